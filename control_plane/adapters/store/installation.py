"""The one row that identifies this database."""

from datetime import datetime

from sqlalchemy import func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.adapters.store import ids
from control_plane.adapters.store.tables import InstallationRow

_LOCK = 7_305_002  # any constant: first starts come one after the other


async def ensure(session: AsyncSession, *, now: datetime) -> bool:
    """Make the row if there is none; whether it was made. Others who call wait until this transaction ends."""
    await session.execute(select(func.pg_advisory_xact_lock(_LOCK)))
    row = insert(InstallationRow).values(only=True, id=ids.new(), epoch=1, created_at=now)
    made = await session.scalar(row.on_conflict_do_nothing().returning(InstallationRow.id))
    return made is not None
