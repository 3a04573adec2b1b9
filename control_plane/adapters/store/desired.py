"""What services want of deployments. Observing them, and carrying it out, is the reconciler's."""

from datetime import datetime

from sqlalchemy import func, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.adapters.store import ids
from control_plane.adapters.store.tables import DeploymentRow

_LIVE = DeploymentRow.state != "stopped"


async def running(session: AsyncSession, model: str, version: str, digest: str, *, now: datetime) -> None:
    """Servers of this version should run. One that failed is tried again; one that runs is left as it is."""
    fresh = {"id": ids.new(), "model": model, "version": version, "digest": digest, "desired": "running"}
    wanted = insert(DeploymentRow).values(**fresh, state="pending", created_at=now, changed_at=now)
    await session.execute(
        wanted.on_conflict_do_nothing(index_elements=[DeploymentRow.model, DeploymentRow.version], index_where=_LIVE)
    )
    mine = (DeploymentRow.model == model, DeploymentRow.version == version, _LIVE)
    again = {"desired": "running", "state": "pending", "error": None, "changed_at": now}
    await session.execute(update(DeploymentRow).where(*mine, DeploymentRow.state == "failed").values(**again))
    await session.execute(
        update(DeploymentRow).where(*mine, DeploymentRow.desired != "running").values(desired="running")
    )


async def keep_warm(session: AsyncSession, model: str, version: str, *, until: datetime) -> None:
    """Leave the servers of this version running until then, whoever answers meanwhile; never shortens it."""
    longest = func.greatest(func.coalesce(DeploymentRow.warm_until, until), until)
    mine = (DeploymentRow.model == model, DeploymentRow.version == version, _LIVE)
    await session.execute(update(DeploymentRow).where(*mine).values(warm_until=longest))


async def live(session: AsyncSession, model: str) -> dict[str, DeploymentRow]:
    """The deployments of `model` that are not stopped, by version."""
    query = select(DeploymentRow).where(DeploymentRow.model == model, _LIVE)
    rows = await session.scalars(query, execution_options={"populate_existing": True})
    return {row.version: row for row in rows}
