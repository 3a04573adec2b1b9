"""What the installation itself is doing, in a few numbers: read by the worker, shown as metrics."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, cast
from uuid import UUID

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.adapters.store.tables import (
    AnalysisRunRow,
    DeploymentRow,
    JobRow,
    KeyRow,
    LeaseRow,
    ModelRow,
    ModelVersionRow,
    RouterRow,
    SnapshotRow,
)

_UNBEGUN = ("wanted", "queued")


@dataclass(frozen=True, slots=True)
class Jobs:
    """`counts` by kind and state; `waiting_s` by kind, of the oldest nobody has begun."""

    counts: dict[tuple[str, str], int]
    waiting_s: dict[str, float]


@dataclass(frozen=True, slots=True)
class Analysed:
    """The newest look kept of a rollout: its verdict and its evidence."""

    verdict: str
    evidence: dict[str, Any]


async def jobs(session: AsyncSession, now: datetime) -> Jobs:
    row = JobRow
    oldest = func.min(row.created_at).filter(row.state.in_(_UNBEGUN))
    query = select(row.kind, row.state, func.count(), oldest).group_by(row.kind, row.state)
    found = cast("Sequence[tuple[str, str, int, datetime | None]]", (await session.execute(query)).all())
    waiting = {kind: 0.0 for kind, *_ in found}
    for kind, _, _, since in found:
        if since is not None:
            waiting[kind] = max(waiting[kind], (now - since).total_seconds())
    return Jobs({(kind, state): int(count) for kind, state, count, _ in found}, waiting)


async def servers(session: AsyncSession) -> dict[tuple[str, str], int]:
    """Deployments that are not stopped, by model and state."""
    row = DeploymentRow
    query = select(row.model, row.state, func.count()).where(row.state != "stopped").group_by(row.model, row.state)
    return {(model, state): int(count) for model, state, count in await session.execute(query)}


async def production(session: AsyncSession) -> list[ModelVersionRow]:
    """The version in Production of every model that has one."""
    row = ModelVersionRow
    query = select(row).join(ModelRow, (ModelRow.name == row.model) & (ModelRow.production_version == row.version))
    return list(await session.scalars(query, execution_options={"populate_existing": True}))


async def expiries(session: AsyncSession, now: datetime) -> dict[str, datetime]:
    """By prefix, when each key that is still good will expire; keys that never do are not there."""
    row = KeyRow
    query = select(row.prefix, row.expires_at).where(row.revoked_at.is_(None), row.expires_at > now)
    return {prefix: at for prefix, at in await session.execute(query) if at is not None}


async def lease_s(session: AsyncSession) -> float | None:
    """Seconds the reconciler's lease has left, on the database's clock; None: nobody ever led."""
    left = func.extract("epoch", LeaseRow.expires_at - func.clock_timestamp())
    found = await session.scalar(select(left).where(LeaseRow.name == "reconciler"))
    return None if found is None else float(found)


async def published(session: AsyncSession) -> int | None:
    """Revision of the newest snapshot."""
    return await session.scalar(select(func.max(SnapshotRow.revision)))


async def routers(session: AsyncSession, revision: int, since: datetime) -> tuple[int, int]:
    """Router workers heard of since then, and how many of them have not applied `revision`."""
    row = RouterRow
    query = select(func.count(), func.count().filter(row.revision < revision)).where(row.seen_at > since)
    live, behind = (await session.execute(query)).one()
    return int(live), int(behind)


async def analysed(session: AsyncSession, rollouts: Collection[UUID]) -> dict[UUID, Analysed]:
    """The newest kept look of each."""
    row = AnalysisRunRow
    newest = select(func.max(row.id)).where(row.rollout_id.in_(rollouts)).group_by(row.rollout_id)
    found = await session.scalars(select(row).where(row.id.in_(newest)))
    return {one.rollout_id: Analysed(one.verdict, one.evidence) for one in found}
