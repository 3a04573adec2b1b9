"""Logged predictions and outcomes in Postgres. Personal data: read one by id, or reduced to counts."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, Float, Subquery, case, cast, func, select
from sqlalchemy.dialects.postgresql import distinct_on, insert
from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.adapters.store import ids
from control_plane.adapters.store.tables import OutcomeRow, PredictionRow


async def load(session: AsyncSession, prediction_id: UUID) -> PredictionRow | None:
    """None: not logged, or not ingested yet. The id's own time names the partition."""
    if prediction_id.version != 7:
        return None
    try:
        born = ids.born(prediction_id)
    except (OverflowError, ValueError):  # a time beyond any calendar
        return None
    day = born.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    return await session.get(PredictionRow, (day, prediction_id), populate_existing=True)


async def outcomes_of(session: AsyncSession, prediction_id: UUID) -> Sequence[OutcomeRow]:
    """Every outcome of the prediction, corrections included, in order of observation."""
    query = select(OutcomeRow).where(OutcomeRow.prediction_id == prediction_id)
    return (await session.scalars(query.order_by(OutcomeRow.observed_at, OutcomeRow.outcome_id))).all()


async def add_outcomes(session: AsyncSession, rows: Sequence[dict[str, Any]]) -> int:
    """Insert outcomes; return how many were new. One known by its id is left as it is."""
    new = insert(OutcomeRow).on_conflict_do_nothing(index_elements=[OutcomeRow.outcome_id])
    stored = await session.scalars(new.returning(OutcomeRow.outcome_id), list(rows))
    return len(stored.all())


@dataclass(frozen=True, slots=True)
class Requests:
    """Customers' requests of one version: `failures` were assigned to it and not answered by it."""

    version: str
    answered: int
    failures: int
    mean_us: float | None
    p95_us: float | None


async def requests(session: AsyncSession, model: str, since: datetime, until: datetime) -> list[Requests]:
    row = PredictionRow
    answered = row.status == "ok"
    version = func.coalesce(row.assigned_version, row.served_version)
    served = func.coalesce(row.served_version, row.assigned_version)
    failed = ~answered | (row.assigned_version != row.served_version)
    query = (
        select(
            version,
            func.count().filter(answered & (served == version)),
            func.count().filter(failed & (row.status != "invalid")),
            func.avg(row.latency_us).filter(answered),
            func.percentile_cont(0.95).within_group(row.latency_us).filter(answered),
        )
        .where(*_counted(model, since, until), version.is_not(None))
        .group_by(version)
        .order_by(version)
    )
    found = await session.execute(query)
    return [Requests(v, n, bad, _float(mean), _float(p95)) for v, n, bad, mean, p95 in found]


@dataclass(frozen=True, slots=True)
class Cell:
    """`count` answers of one version that said the same and turned out the same.

    `said`: the decision's word, else the label; None where the answer had neither. `above`: probability >= the
    decision threshold in force; None without one. `truth`: as it was reported.
    """

    version: str
    said: str | None
    above: bool | None
    truth: float | bool | str
    count: int


async def confusion(session: AsyncSession, model: str, since: datetime, until: datetime) -> list[Cell]:
    """Answers joined with the newest truth (outcome "label") of each, reduced to counts."""
    newest, row = _newest_truth(model, since), PredictionRow
    said = func.coalesce(row.decision, row.output["label"].astext)
    above = _numeric(row.output["probability"]) >= row.threshold
    cell = (row.served_version, said, above, newest.c.value)
    query = select(*cell, func.count()).join(newest, newest.c.prediction_id == row.prediction_id).group_by(*cell)
    answered = (row.status == "ok", row.served_version.is_not(None))
    return [Cell(*found) for found in await session.execute(query.where(*_counted(model, since, until), *answered))]


@dataclass(frozen=True, slots=True)
class Errors:
    """`total`: sum of |value - truth| over `count` answers of one version, in the target's unit."""

    version: str
    count: int
    total: float


async def errors(session: AsyncSession, model: str, since: datetime, until: datetime) -> list[Errors]:
    """Of answers that are numbers, where the truth is one too."""
    newest, row = _newest_truth(model, since), PredictionRow
    distance = func.abs(_numeric(row.output["value"]) - _numeric(newest.c.value))
    query = (
        select(row.served_version, func.count(distance), func.sum(distance))
        .join(newest, newest.c.prediction_id == row.prediction_id)
        .where(*_counted(model, since, until), row.status == "ok", distance.is_not(None))
        .where(row.served_version.is_not(None))
        .group_by(row.served_version)
    )
    return [Errors(*found) for found in await session.execute(query)]


def _newest_truth(model: str, since: datetime) -> Subquery:
    """Of each prediction; what arrived before `since` belongs to an older prediction."""
    outcome = OutcomeRow
    return (
        select(outcome.prediction_id, outcome.value)
        .where(outcome.model == model, outcome.name == "label", outcome.prediction_id.is_not(None))
        .where(outcome.received_at >= since)
        .ext(distinct_on(outcome.prediction_id))
        .order_by(outcome.prediction_id, outcome.observed_at.desc(), outcome.received_at.desc())
        .subquery()
    )


def _numeric(document: ColumnElement[Any]) -> ColumnElement[float | None]:
    """The JSON number, or NULL for anything else: a stranger's model may answer whatever it likes."""
    text = document[()].astext
    return case((func.jsonb_typeof(document) == "number", cast(text, Float)), else_=None)


def _counted(model: str, since: datetime, until: datetime) -> tuple[Any, ...]:
    row = PredictionRow
    midnight = since.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0) - timedelta(days=1)
    window = (row.received_at >= since, row.received_at < until, row.day >= midnight)
    return (row.model == model, ~row.shadow, ~row.pinned, *window)


def _float(value: Any) -> float | None:
    return None if value is None else float(value)
