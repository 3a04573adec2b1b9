"""Models, their versions and the stage events in Postgres."""

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from sqlalchemy import BigInteger, cast, insert, or_, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.adapters.store.tables import DeploymentRow, ModelRow, ModelVersionRow, StageEventRow
from control_plane.domain.stages import Change, Stage
from control_plane.errors import NotFound

_FRESH = {"populate_existing": True}  # what the database says now, not what this session read before a lock


async def model(session: AsyncSession, name: str, *, lock: bool = False) -> ModelRow:
    """The model, or NotFound. `lock`: until the transaction ends nobody else changes its releases.

    Everything that moves stages, rollouts or traffic of a model locks its row first, so such changes come one after
    the other and two of them never wait for each other.
    """
    query = select(ModelRow).where(ModelRow.name == name)
    row = await session.scalar(query.with_for_update() if lock else query, execution_options=_FRESH)
    if row is None:
        raise NotFound(f"There is no model {name}.", model=name)
    return row


async def needed_digests(session: AsyncSession) -> frozenset[str]:
    """Artifacts that may be served at once: of Production, what it could go back to, Staging, and every deployment."""
    row, model, server = ModelVersionRow, ModelRow, DeploymentRow
    named = or_(
        row.stage.in_([Stage.STAGING, Stage.PRODUCTION]),
        row.version == model.production_version,
        row.version == model.previous_version,
    )
    of_versions = select(row.digest).join(model, model.name == row.model).where(named, row.digest.is_not(None))
    of_servers = select(server.digest).where(server.state != "stopped")
    return frozenset(digest for digest in await session.scalars(of_versions.union(of_servers)) if digest)


async def models(session: AsyncSession, *, after: str | None, limit: int) -> list[ModelRow]:
    query = select(ModelRow).order_by(ModelRow.name).limit(limit)
    return list(await session.scalars(query if after is None else query.where(ModelRow.name > after)))


async def version(session: AsyncSession, name: str, number: str) -> ModelVersionRow:
    row = await session.get(ModelVersionRow, (name, number), populate_existing=True)
    if row is None:
        raise NotFound(f"Model {name} has no version {number}.", model=name, version=number)
    return row


async def versions(
    session: AsyncSession, name: str, *, before: int | None = None, limit: int | None = None
) -> list[ModelVersionRow]:
    """Newest first, deleted ones included. `before`: only versions of a smaller number."""
    number = cast(ModelVersionRow.version, BigInteger)
    query = select(ModelVersionRow).where(ModelVersionRow.model == name).order_by(number.desc()).limit(limit)
    query = query if before is None else query.where(number < before)
    return list(await session.scalars(query, execution_options=_FRESH))


async def in_stage(session: AsyncSession, name: str, stage: Stage) -> str | None:
    """The newest version of that stage: MLflow's alias of the same name points there."""
    rows = [row for row in await versions(session, name) if row.stage == stage and row.deleted_at is None]
    return rows[0].version if rows else None


async def set_stage(
    session: AsyncSession,
    row: ModelVersionRow,
    to: Stage,
    *,
    actor: str,
    reason: str,
    at: datetime,
    rollout_id: UUID | None = None,
) -> None:
    """Move one version and note the event; nothing happens when it is there already."""
    came_from = row.stage
    if came_from == to:
        return
    changed = {"stage": to.value, "stage_since": at}
    key = (ModelVersionRow.model == row.model, ModelVersionRow.version == row.version)
    await session.execute(update(ModelVersionRow).where(*key).values(**changed))
    event = {"model": row.model, "version": row.version, "from_stage": came_from, "to_stage": to.value, "at": at}
    await session.execute(
        insert(StageEventRow).values(**event, actor=actor, reason=reason, rollout_id=rollout_id),
    )


async def set_production(session: AsyncSession, name: str, production: str | None, previous: str | None) -> None:
    """What should answer customers from now on. A split by hand ends with it; its ETag moves."""
    changed = {"production_version": production, "previous_version": previous, "traffic": None}
    await session.execute(
        update(ModelRow).where(ModelRow.name == name).values(**changed, revision=ModelRow.revision + 1)
    )


async def set_traffic(session: AsyncSession, name: str, shares: list[dict[str, object]] | None) -> None:
    """A split by hand, [{version, weight in buckets}]; None: all to Production."""
    changed = {"traffic": shares, "revision": ModelRow.revision + 1}
    await session.execute(update(ModelRow).where(ModelRow.name == name).values(**changed))


async def touch(session: AsyncSession, name: str) -> None:
    """Move the ETag of the traffic: what customers get has changed by a rollout's step."""
    await session.execute(update(ModelRow).where(ModelRow.name == name).values(revision=ModelRow.revision + 1))


async def changes(session: AsyncSession, name: str, *, until: datetime | None = None) -> list[Change]:
    """Every stage change of the model in the order it happened."""
    query = select(StageEventRow).where(StageEventRow.model == name).order_by(StageEventRow.id)
    rows = await session.scalars(query if until is None else query.where(StageEventRow.at <= until))
    return [Change(row.version, Stage(row.from_stage), Stage(row.to_stage)) for row in rows]


async def events(session: AsyncSession, name: str, *, until: datetime, limit: int) -> Sequence[StageEventRow]:
    """Newest first."""
    query = select(StageEventRow).where(StageEventRow.model == name, StageEventRow.at <= until)
    return (await session.scalars(query.order_by(StageEventRow.id.desc()).limit(limit))).all()
