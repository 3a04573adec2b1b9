"""Policies that were applied, and the kill switch."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import insert, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.adapters.store import ids
from control_plane.adapters.store.tables import HaltRow, PolicyRow
from control_plane.errors import NotFound


async def newest(session: AsyncSession) -> PolicyRow | None:
    return await session.scalar(select(PolicyRow).order_by(PolicyRow.version.desc()).limit(1))


async def load(session: AsyncSession, version: int) -> PolicyRow:
    row = await session.get(PolicyRow, version)
    if row is None:
        raise NotFound(f"There is no policy of version {version}.")
    return row


async def page(session: AsyncSession, *, before: int | None, limit: int) -> list[PolicyRow]:
    """Newest first."""
    query = select(PolicyRow).order_by(PolicyRow.version.desc()).limit(limit)
    return list(await session.scalars(query if before is None else query.where(PolicyRow.version < before)))


async def add(
    session: AsyncSession, document: Mapping[str, Any], *, applied_by: str, reason: str, now: datetime
) -> PolicyRow:
    facts = {"document": dict(document), "applied_at": now, "applied_by": applied_by, "reason": reason}
    return (await session.scalars(insert(PolicyRow).values(**facts).returning(PolicyRow))).one()


async def halt(session: AsyncSession) -> HaltRow | None:
    """The halt that is in force."""
    query = select(HaltRow).where(HaltRow.resumed_at.is_(None))
    return await session.scalar(query, execution_options={"populate_existing": True})


async def begin_halt(session: AsyncSession, *, by: str, reason: str, now: datetime) -> None:
    """A second one violates `one_halt`."""
    await session.execute(insert(HaltRow).values(id=ids.new(), at=now, by=by, reason=reason))


async def end_halt(session: AsyncSession, *, by: str, now: datetime) -> None:
    await session.execute(update(HaltRow).where(HaltRow.resumed_at.is_(None)).values(resumed_at=now, resumed_by=by))
