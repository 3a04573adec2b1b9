"""What the archiver reads and notes in Postgres: hours that changed, their rows with outcomes, partitions to drop."""

import re
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from operator import itemgetter
from typing import Any

from sqlalchemy import and_, delete, func, literal, or_, select, text, update
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

from control_plane.adapters.store import log_hours
from control_plane.adapters.store.tables import ExposureRow, LogHourRow, RolloutRow

Row = dict[str, Any]
_ALONE = 7_305_003  # advisory: one archiver at a time

_ROWS = """
SELECT prediction_id::text, model, status, received_at, latency_us, epoch, revision, assigned_variant, assigned_version,
  served_variant, served_version, fallback_reason, pinned, shadow, rollout_id::text, step, unit_id, request_id,
  features::text AS features, output::text AS output, threshold, decision
FROM predictions
WHERE day = :day AND prediction_id >= :low AND prediction_id < :high AND model = :model ORDER BY prediction_id
"""

_OUTCOMES = """
SELECT outcome_id::text, name, value::text AS value, currency, observed_at, received_at, unit_id,
  prediction_id::text AS prediction_id
FROM outcomes
WHERE model = :model AND (
  prediction_id = ANY(CAST(:identities AS uuid[]))
  OR (unit_id = ANY(CAST(:units AS text[])) AND observed_at >= :since AND observed_at <= :until))
ORDER BY observed_at, outcome_id
"""

_FORGET_OUTCOMES = """
DELETE FROM outcomes WHERE outcome_id IN (
  SELECT outcome_id FROM outcomes
  WHERE model = :model AND received_at < :before
    AND (prediction_id < :floor OR (unit_id IS NOT NULL AND observed_at < :before))
  LIMIT :limit
) RETURNING 1
"""

_PARTITIONS = """
SELECT c.relname FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid JOIN pg_class p ON p.oid = i.inhparent
WHERE p.relname = 'predictions' ORDER BY 1
"""


@dataclass(frozen=True, slots=True)
class Hour:
    model: str
    hour: datetime
    changed: int
    archived: int
    rows: int  # in the archive
    dropped: bool  # its day partition is gone: what the archive holds is all there is


async def waiting(session: AsyncSession, *, begun_before: datetime, written_before: datetime) -> list[Hour]:
    """Hours that began before `begun_before` and are not in the archive, or are and have changed since.

    One that is in the archive waits until `written_before` is later than its file: labels come in by and by.
    """
    row = LogHourRow
    stale = or_(row.archived == 0, row.archived_at < written_before)
    query = select(row).where(row.hour < begun_before, row.changed != row.archived, stale).order_by(row.hour, row.model)
    return [_hour(found) for found in await session.scalars(query.limit(1_000))]


async def of_day(session: AsyncSession, day: datetime) -> list[Hour]:
    row = LogHourRow
    query = select(row).where(row.hour >= day, row.hour < day + timedelta(days=1)).order_by(row.hour, row.model)
    return [_hour(found) for found in await session.scalars(query, execution_options={"populate_existing": True})]


async def of_model(session: AsyncSession, model: str, *, since: datetime, until: datetime) -> list[Hour]:
    """Hours that begin within [since, until), the newest first."""
    row = LogHourRow
    query = select(row).where(row.model == model, row.hour >= since, row.hour < until).order_by(row.hour.desc())
    return [_hour(found) for found in await session.scalars(query)]


async def rows(session: AsyncSession, model: str, hour: datetime, *, at_once: int) -> AsyncGenerator[list[Row]]:
    """The hour's predictions in Postgres, in order of their ids."""
    hour = hour.astimezone(UTC)
    parameters = {"day": hour.replace(hour=0), "model": model, "low": log_hours.floor_id(hour)}
    parameters["high"] = log_hours.floor_id(hour + timedelta(hours=1))
    found = await session.stream(text(_ROWS).execution_options(yield_per=at_once), parameters)
    async for part in found.mappings().partitions(at_once):
        yield [dict(row) for row in part]


async def attach_outcomes(session: AsyncSession, model: str, found: Sequence[Row], window: timedelta) -> None:
    """Give every row its `outcomes`: those that name it, and those of its unit within `window` after it."""
    if not found:
        return
    units = sorted({row["unit_id"] for row in found if row["unit_id"] is not None})
    times = [row["received_at"] for row in found]
    parameters = {"model": model, "identities": [row["prediction_id"] for row in found], "units": units}
    parameters |= {"since": min(times), "until": max(times) + window}
    by_subject = dict[tuple[str, str], list[Row]]()
    for outcome in (await session.execute(text(_OUTCOMES), parameters)).mappings():
        kept = dict(outcome)
        subject = kept.pop("prediction_id")
        key = ("unit", kept["unit_id"]) if subject is None else ("prediction", subject)
        by_subject.setdefault(key, []).append(kept)
    for row in found:
        named = by_subject.get(("prediction", row["prediction_id"]), [])
        at = row["received_at"]
        of_unit = [
            outcome
            for outcome in by_subject.get(("unit", row["unit_id"]), [])
            if at <= outcome["observed_at"] <= at + window
        ]
        row["outcomes"] = sorted([*named, *of_unit], key=itemgetter("observed_at", "outcome_id"))


async def note(session: AsyncSession, model: str, hour: datetime, *, changed: int, rows: int, now: datetime) -> None:
    """The archive holds the hour as it was at this count of changes."""
    mine = update(LogHourRow).where(LogHourRow.model == model, LogHourRow.hour == hour)
    await session.execute(mine.values(archived=changed, archived_at=now, archived_rows=rows))


async def partitions(session: AsyncSession, *, before: datetime) -> list[datetime]:
    """Days that have a partition and ended before."""
    days = list[datetime]()
    for name in await session.scalars(text(_PARTITIONS)):
        found = re.fullmatch(r"predictions_(\d{8})", str(name))
        if found:
            day = datetime.strptime(found[1], "%Y%m%d").replace(tzinfo=UTC)
            if day + timedelta(days=1) <= before:
                days.append(day)
    return days


async def drop(session: AsyncSession, day: datetime, *, now: datetime) -> str | None:
    """Drop the day's partition if the archive holds every row of it; else why not. Nothing can be added meanwhile.

    Whoever reads it goes on while its rows are counted; only the drop itself waits for them, five seconds at most.
    """
    name = f"predictions_{day:%Y%m%d}"
    await session.execute(text("SET LOCAL lock_timeout = '5s'"))
    await session.execute(text(f"LOCK TABLE {name} IN SHARE MODE"))
    hours = await of_day(session, day)
    if stale := [hour for hour in hours if hour.changed != hour.archived]:
        return f"{len(stale)} hours have changed since they were archived"
    stored = int(await session.scalar(text(f"SELECT count(*) FROM {name}")) or 0)  # noqa: S608  (a date)
    archived = sum(hour.rows for hour in hours)
    if stored > archived or (stored < archived and not any(hour.dropped for hour in hours)):
        return f"{stored} rows in Postgres, {archived} in the archive"
    await session.execute(text(f"DROP TABLE {name}"))
    mine = update(LogHourRow).where(LogHourRow.hour >= day, LogHourRow.hour < day + timedelta(days=1))
    await session.execute(mine.values(dropped_at=func.coalesce(LogHourRow.dropped_at, now)))
    return None


async def forget_exposures(session: AsyncSession, *, closed_before: datetime) -> int:
    """Delete exposures of rollouts that ended before; their statistics stay. How many there were."""
    ended = select(RolloutRow.id).where(RolloutRow.closed_at < closed_before)
    found = await session.execute(delete(ExposureRow).where(ExposureRow.rollout_id.in_(ended)).returning(literal(1)))
    return len(found.all())


async def forget_outcomes(session: AsyncSession, model: str, *, before: datetime, at_once: int) -> int:
    """Delete outcomes that came before `before` and speak only of hours that the archive alone has, as they are now.

    Those of an open rollout stay. How many went, `at_once` at most: call it again until none does.
    """
    row = LogHourRow
    kept = or_(and_(row.dropped_at.is_(None), row.archived_rows > 0), row.changed != row.archived)
    oldest = await session.scalar(select(func.min(row.hour)).where(row.model == model, kept))
    begun = select(func.min(RolloutRow.created_at)).where(RolloutRow.model == model, RolloutRow.closed_at.is_(None))
    until = min(found for found in (before, oldest, await session.scalar(begun)) if found is not None)
    given = {"model": model, "before": until, "floor": log_hours.floor_id(until), "limit": at_once}
    return len((await session.execute(text(_FORGET_OUTCOMES), given)).all())


async def alone(connection: AsyncConnection) -> bool:
    """Whether this is the only archiver; it is until the connection closes."""
    return bool(await connection.scalar(select(func.pg_try_advisory_lock(_ALONE))))


async def wait_alone(connection: AsyncConnection) -> None:
    """Until the archiver at work has ended."""
    await connection.execute(select(func.pg_advisory_lock(_ALONE)))


def _hour(row: LogHourRow) -> Hour:
    return Hour(row.model, row.hour, row.changed, row.archived, row.archived_rows, row.dropped_at is not None)
