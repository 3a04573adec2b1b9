"""Quality per hour: answers joined with the newest truth of each, reduced in Postgres, kept as sums that add."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, cast

from sqlalchemy import bindparam, delete, func, insert, select, text, update
from sqlalchemy.dialects.postgresql import INTERVAL
from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.adapters.store import log_hours, truth
from control_plane.adapters.store.tables import LogHourRow, QualityRow
from control_plane.domain.quality import GRID

_ANSWERS = f"""
WITH answers AS (
  SELECT p.prediction_id, p.unit_id, p.received_at, p.served_version AS version, p.threshold,
    CASE WHEN p.shadow THEN 'shadow' WHEN p.pinned THEN 'pinned' ELSE coalesce(p.assigned_variant, '') END AS variant,
    {truth.number("p.features -> CAST(:amount AS text)")} AS amount,
    {truth.SAID}
  FROM predictions p
  WHERE p.day = :day AND p.prediction_id >= :low AND p.prediction_id < :high AND p.model = :model
    AND p.status = 'ok' AND p.served_version IS NOT NULL
), {truth.JOINED}
"""  # noqa: S608  (constants)

_LABELS = """
, scored AS (
  SELECT *, CASE WHEN probability BETWEEN 0 AND 1 THEN probability END AS score
  FROM joined WHERE truth IS NOT NULL OR CAST(:absent AS boolean)
)
SELECT version, variant, said, score >= threshold AS above, truth::text,
  round(CAST(:grid AS float8) * ln(greatest(score, 1e-9) / greatest(1 - score, 1e-9)))::int AS step, count(*),
  coalesce(sum(amount), 0), coalesce(sum(amount * amount), 0),
  sum(-ln(greatest(score, 1e-15))), sum(ln(greatest(score, 1e-15)) ^ 2),
  sum(-ln(greatest(1 - score, 1e-15))), sum(ln(greatest(1 - score, 1e-15)) ^ 2)
FROM scored GROUP BY 1, 2, 3, 4, 5, 6
"""

_NUMBERS = f"""
, known AS (
  SELECT version, variant, value, {truth.number("truth")} AS truth FROM joined
), errors AS (
  SELECT version, variant, truth, value - truth AS e FROM known WHERE value IS NOT NULL AND truth IS NOT NULL
)
SELECT version, variant, count(*), sum(e), sum(abs(e)), sum(e ^ 2), sum(e ^ 4), sum(truth), sum(truth ^ 2)
FROM errors GROUP BY 1, 2
"""  # noqa: S608  (constants)


@dataclass(frozen=True, slots=True)
class Join:
    """How an hour of one model is joined with its truths. `until`: only predictions whose label had its time."""

    model: str
    hour: datetime
    until: datetime
    window: timedelta  # how long after a prediction its unit's outcomes speak of it
    absent: bool  # also count answers without any outcome
    amount: str | None = None  # the feature that is the price of a false no


@dataclass(frozen=True, slots=True)
class Labels:
    """`count` answers that said the same, on the same step of the grid, and turned out the same."""

    version: str
    variant: str
    said: str | None
    above: bool | None  # probability >= threshold; None without one of them
    truth: float | bool | str | None  # None: no outcome
    step: int | None
    count: int
    amount: float
    amount_squares: float
    loss_yes: tuple[float, float] | None  # log loss were the truth yes: sum, sum of squares
    loss_no: tuple[float, float] | None


@dataclass(frozen=True, slots=True)
class Errors:
    version: str
    variant: str
    sums: tuple[float, ...]  # in the order of domain.quality.Tally.errors


async def labels(session: AsyncSession, join: Join) -> list[Labels]:
    found = await session.stream(_bound(_LABELS), _parameters(join) | {"grid": GRID})
    made = list[Labels]()
    async for row in found:
        version, variant, said, above, told, step, n, amount, squares, ly, lyy, ln, lnn = cast("tuple[Any, ...]", row)
        value = None if told is None else json.loads(told)
        value = told if isinstance(value, dict | list) else value  # kept safe: nothing that could be compared
        yes, no = (None, None) if ly is None else ((ly, lyy), (ln, lnn))
        made.append(Labels(version, variant, said, above, value, step, n, amount, squares, yes, no))
    return made


async def errors(session: AsyncSession, join: Join) -> list[Errors]:
    found = await session.execute(_bound(_NUMBERS), _parameters(join))
    rows = [cast("tuple[Any, ...]", row) for row in found]
    return [Errors(version, variant, tuple(map(float, sums))) for version, variant, *sums in rows]


def _bound(query: str) -> Any:
    return text(_ANSWERS + query).bindparams(bindparam("window", type_=INTERVAL))


def _parameters(join: Join) -> dict[str, Any]:
    high = min(join.hour + timedelta(hours=1), join.until)
    return {
        "model": join.model,
        "day": join.hour.replace(hour=0),
        "low": log_hours.floor_id(join.hour),
        "high": log_hours.floor_id(max(high, join.hour)),
        "window": join.window,
        "absent": join.absent,
        "amount": join.amount or "",
    }


async def due(session: AsyncSession, *, now: datetime, limit: int) -> list[tuple[str, datetime]]:
    """Hours to fold, the longest due first. What is no longer whole in Postgres keeps the sums it had."""
    row = LogHourRow
    waiting = select(row.model, row.hour).where(row.quality_due_at <= now, row.dropped_at.is_(None))
    query = waiting.order_by(row.quality_due_at).limit(limit)
    return [(model, hour) for model, hour in await session.execute(query)]


async def begin(session: AsyncSession, model: str, hour: datetime) -> int | None:
    """Hold the hour until the transaction ends; its count of changes, or None where another process holds it."""
    key = f"quality {model} {hour.isoformat()}"
    if not await session.scalar(select(func.pg_try_advisory_xact_lock(func.hashtextextended(key, 0)))):
        return None
    row = LogHourRow
    mine = select(row.changed).where(row.model == model, row.hour == hour, row.dropped_at.is_(None))
    return await session.scalar(mine)


async def put_off(session: AsyncSession, model: str, hour: datetime, until: datetime) -> None:
    """Make way for other hours."""
    row = LogHourRow
    await session.execute(update(row).where(row.model == model, row.hour == hour).values(quality_due_at=until))


async def end(
    session: AsyncSession,
    model: str,
    hour: datetime,
    documents: Sequence[tuple[str, str, dict[str, Any]]],
    *,
    seen: int,
    due_at: datetime | None,
    now: datetime,
) -> None:
    """Replace the hour's sums (version, variant, document). What changed since `seen` makes it due again soon."""
    row = QualityRow
    await session.execute(delete(row).where(row.model == model, row.hour == hour))
    if documents:
        listed = [
            {"model": model, "hour": hour, "version": version, "variant": variant, "tally": document, "folded_at": now}
            for version, variant, document in documents
        ]
        await session.execute(insert(row), listed)
    mine = update(LogHourRow).where(LogHourRow.model == model, LogHourRow.hour == hour)
    await session.execute(mine.where(LogHourRow.changed == seen).values(quality_due_at=due_at))
    await session.execute(mine.where(LogHourRow.changed != seen).values(quality_due_at=due_at or now))


async def tallies(
    session: AsyncSession, model: str, since: datetime, until: datetime | None = None
) -> list[QualityRow]:
    row = QualityRow
    query = select(row).where(row.model == model, row.hour >= since)
    return list(await session.scalars(query if until is None else query.where(row.hour < until)))
