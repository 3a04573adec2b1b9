"""Availability and business figures of models from what was logged, and how often they were released."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import cast

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.adapters.store.ingest import Connection
from control_plane.adapters.store.tables import (
    BusinessRow,
    ModelRow,
    ModelVersionRow,
    RolloutRow,
    StageEventRow,
    WindowRow,
)

Key = tuple[str, str, str, str, datetime]  # model, version, variant, name, hour
_ADD = """
INSERT INTO business_windows (model, version, variant, name, hour, predictions, total)
VALUES ($1, $2, $3, $4, $5, $6, $7)
ON CONFLICT (model, version, variant, name, hour) DO UPDATE SET
  predictions = business_windows.predictions + excluded.predictions, total = business_windows.total + excluded.total
"""
_CONFIGS = """
SELECT model, version, config::text FROM model_versions
WHERE (model, version) IN (SELECT * FROM unnest($1::text[], $2::text[]))
"""
_APART = ("shadow", "pinned")  # variants no customer was assigned to


@dataclass(frozen=True, slots=True)
class Availability:
    """`answered`: of the predictions asked for, those with a prediction or a refusal of the body as their answer."""

    model: str
    asked: int
    answered: int


@dataclass(frozen=True, slots=True)
class Figure:
    """One business metric of one version. `total` in the metric's unit, over `predictions` that contributed."""

    model: str
    version: str
    name: str
    predictions: int
    total: float


async def add(connection: Connection, totals: Sequence[tuple[Key, int, float]]) -> None:
    """Add predictions and their total to each hour, in the ingester's transaction."""
    await connection.executemany(_ADD, [(*key, count, total) for key, count, total in totals])


async def models(session: AsyncSession) -> list[str]:
    """Names of all models the control plane knows."""
    return list(await session.scalars(select(ModelRow.name)))


async def configs(connection: Connection, versions: Collection[tuple[str, str]]) -> list[tuple[tuple[str, str], str]]:
    """model.yaml, as JSON, of those versions that are registered."""
    asked = sorted(versions)
    rows = await connection.fetch(_CONFIGS, [model for model, _ in asked], [version for _, version in asked])
    return [((row["model"], row["version"]), row["config"]) for row in rows]


async def availability(
    session: AsyncSession, since: datetime, model: str | None = None, *, until: datetime | None = None
) -> list[Availability]:
    """Since the hour of `since`, to before the hour `until`, of one model or of every one that was asked."""
    row = WindowRow
    asked = func.sum(row.requests)
    query = (
        select(row.model, asked, asked - func.sum(row.failures))
        .where(row.hour >= func.date_trunc("hour", since, "UTC"), row.variant.not_in(_APART))
        .group_by(row.model)
    )
    query = query if until is None else query.where(row.hour < until)
    found = await session.execute(query if model is None else query.where(row.model == model))
    return [Availability(name, int(n), int(m)) for name, n, m in found]


async def business(
    session: AsyncSession, since: datetime, model: str | None = None, *, until: datetime | None = None
) -> list[Figure]:
    """Since the hour of `since`, to before the hour `until`, of one model or of every one."""
    row = BusinessRow
    query = (
        select(row.model, row.version, row.name, func.sum(row.predictions), func.sum(row.total))
        .where(row.hour >= func.date_trunc("hour", since, "UTC"), row.variant.not_in(_APART))
        .group_by(row.model, row.version, row.name)
        .order_by(row.model, row.version, row.name)
    )
    query = query if until is None else query.where(row.hour < until)
    found = await session.execute(query if model is None else query.where(row.model == model))
    return [Figure(m, version, name, int(count), float(total)) for m, version, name, count, total in found]


async def units(session: AsyncSession) -> dict[tuple[str, str], str]:
    """The unit of each business metric, by model and name, as the version in Production declares it."""
    query = select(ModelVersionRow.model, ModelVersionRow.config).join(
        ModelRow, (ModelRow.name == ModelVersionRow.model) & (ModelRow.production_version == ModelVersionRow.version)
    )
    found: dict[tuple[str, str], str] = {}
    for model, config in await session.execute(query):
        declared = cast("dict[str, dict[str, object]]", config.get("business") or {})
        found |= {(model, name): str(spec.get("unit") or "") for name, spec in declared.items()}
    return found


async def releases(session: AsyncSession) -> dict[tuple[str, str, str], int]:
    """How many releases have ended, by model, stage and status: succeeded or aborted."""
    rollout, event = RolloutRow, StageEventRow
    production = await session.execute(
        select(rollout.model, rollout.phase, func.count())
        .where(rollout.phase.in_(("succeeded", "aborted")))
        .group_by(rollout.model, rollout.phase)
    )
    found = {(model, "Production", phase): int(count) for model, phase, count in production}
    staging = select(event.model, func.count()).where(event.to_stage == "Staging").group_by(event.model)
    return found | {(m, "Staging", "succeeded"): int(count) for m, count in await session.execute(staging)}


async def active_models(session: AsyncSession) -> int:
    """How many models have a version in Production."""
    query = select(func.count()).select_from(ModelRow).where(ModelRow.production_version.is_not(None))
    return int(await session.scalar(query) or 0)
