"""Brings the prediction log into the archive, hour by hour, and drops day partitions the archive holds whole."""

import asyncio
from collections.abc import AsyncGenerator, Generator, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime, timedelta
from operator import itemgetter
from typing import Any, Final, cast

import structlog
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from control_plane.adapters.archive import Archive, Damaged, Manifest
from control_plane.adapters.store import log_archive, versions
from control_plane.adapters.store.log_archive import Hour, Row
from control_plane.domain import quality as domain
from control_plane.domain import retention
from control_plane.domain.model_config import Label
from control_plane.services import quality

_AT_ONCE: Final = 5_000  # rows in memory

log = structlog.get_logger()


@dataclass(slots=True)
class Report:
    """What one run did."""

    hours: int = 0
    rows: int = 0
    bytes: int = 0
    dropped: list[str] = field(default_factory=list[str])  # days
    kept: dict[str, str] = field(default_factory=dict[str, str])  # day -> why its partition is not dropped
    exposures: int = 0  # forgotten, of rollouts long over
    outcomes: int = 0  # forgotten, of predictions that only the archive has
    failed: dict[str, str] = field(default_factory=dict[str, str])  # model and hour -> why it was not archived

    def document(self) -> dict[str, Any]:
        return asdict(self)


async def run(
    sessions: async_sessionmaker[AsyncSession], archive: Archive, *, now: datetime, keep: timedelta
) -> Report:
    """Archive every hour that is due; then drop the partitions of days that are older than `keep`.

    Raises:
        Unavailable: the archive cannot be written, such as a full disk. Postgres has what it had.
    """
    report = Report()
    async with sessions() as session:
        due = retention.due(now)
        waiting = await log_archive.waiting(session, begun_before=due.begun_before, written_before=due.written_before)
    for hour in waiting:
        try:
            await _archive(sessions, archive, hour, report, now=now)
        except Damaged as exc:
            report.failed[f"{hour.model} {hour.hour:%Y-%m-%dT%H}"] = str(exc)
            log.error("archive.hour_failed", model=hour.model, hour=hour.hour.isoformat(), why=str(exc))
    async with sessions() as session:
        days = await log_archive.partitions(session, before=now - keep)
    for day in days:
        why = await _drop(sessions, archive, day, report, now=now)
        if why is None:
            report.dropped.append(f"{day:%Y-%m-%d}")
        else:
            report.kept[f"{day:%Y-%m-%d}"] = why
            log.warning("archive.partition_kept", day=f"{day:%Y-%m-%d}", why=why)
    return report


async def forget(
    sessions: async_sessionmaker[AsyncSession],
    report: Report,
    *,
    closed_before: datetime,
    outcomes_before: datetime,
) -> None:
    """Let go of what only an open rollout needs, and of outcomes that the archive has beside their predictions."""
    async with sessions.begin() as session:
        report.exposures = await log_archive.forget_exposures(session, closed_before=closed_before)
    if not report.dropped:  # nothing has become the archive's alone
        return
    async with sessions() as session:
        models = [row.name for row in await versions.models(session, after=None, limit=1_000)]
    for model in models:
        gone = 1
        while gone:
            async with sessions.begin() as session:
                gone = await log_archive.forget_outcomes(session, model, before=outcomes_before, at_once=_AT_ONCE)
            report.outcomes += gone


async def _archive(
    sessions: async_sessionmaker[AsyncSession], archive: Archive, hour: Hour, report: Report, *, now: datetime
) -> None:
    """Read in one snapshot, write and verify outside of any change, note it last: a crash repeats the hour."""
    async with sessions() as session:
        await session.connection(execution_options={"isolation_level": "REPEATABLE READ"})
        (mine,) = [h for h in await log_archive.of_day(session, hour.hour.replace(hour=0)) if _same(h, hour)]
        config = await quality.config_of(session, hour.model)
        window = domain.window(config.label if config else Label())
        batches = rows_of(session, archive, mine, window)
        manifest = await _written(archive, mine, batches)
    await asyncio.to_thread(archive.publish, manifest)
    async with sessions.begin() as session:
        await log_archive.note(session, mine.model, mine.hour, changed=mine.changed, rows=manifest.rows, now=now)
    report.hours += 1
    report.rows += manifest.rows
    report.bytes += manifest.bytes


async def rows_of(session: AsyncSession, archive: Archive, hour: Hour, window: timedelta) -> AsyncGenerator[list[Row]]:
    """What Postgres has of the hour, then what only the archive still has; outcomes as they are known now.

    Raises:
        Damaged: the archive alone has the hour's rows, and does not have them as it was given them.
    """
    seen = set[str]()
    async for found in log_archive.rows(session, hour.model, hour.hour, at_once=_AT_ONCE):
        if hour.dropped:
            seen.update(row["prediction_id"] for row in found)
        await log_archive.attach_outcomes(session, hour.model, found, window)
        yield found
    if not hour.dropped:
        return
    manifest = await asyncio.to_thread(_sound, archive, hour)
    old = archive.file_batches(manifest, rows=_AT_ONCE)
    while (batch := await asyncio.to_thread(next, old, None)) is not None:
        kept = [row for row in cast("list[Row]", batch.to_pylist()) if row["prediction_id"] not in seen]
        before = [cast("list[Row]", row["outcomes"] or []) for row in kept]
        await log_archive.attach_outcomes(session, hour.model, kept, window)
        for row, known in zip(kept, before, strict=True):  # Postgres may have lost them since: a unit was forgotten
            both: dict[str, Row] = {outcome["outcome_id"]: outcome for outcome in (*row["outcomes"], *known)}
            row["outcomes"] = sorted(both.values(), key=itemgetter("observed_at", "outcome_id"))
        yield kept


def _sound(archive: Archive, hour: Hour) -> Manifest:
    """The manifest of the file Postgres knows of, read again whole. Damaged: the archive does not have it so."""
    manifest, what = archive.manifest(hour.model, hour.hour), f"{hour.model} {hour.hour:%Y-%m-%d %H}:00"
    if manifest is None:
        raise Damaged(f"{what} has no file in the archive")
    if manifest.rows < hour.rows or manifest.changed < hour.archived:
        raise Damaged(f"{what} is an older file in the archive: {manifest.rows} rows of {hour.rows}")
    archive.verify(manifest)
    return manifest


async def _written(archive: Archive, hour: Hour, batches: AsyncGenerator[list[Row]]) -> Manifest:
    """The archive writes in a thread, and takes each batch from this loop when it wants it."""
    loop = asyncio.get_running_loop()

    async def take() -> list[Row] | None:
        return await anext(batches, None)

    def pulled() -> Generator[list[Row]]:
        while (batch := asyncio.run_coroutine_threadsafe(take(), loop).result()) is not None:
            yield batch

    source: Iterator[list[Row]] = pulled()
    return await asyncio.to_thread(archive.write, hour.model, hour.hour, source, changed=hour.changed)


async def _drop(
    sessions: async_sessionmaker[AsyncSession], archive: Archive, day: datetime, report: Report, *, now: datetime
) -> str | None:
    """Why the day's partition has to stay; None: it is gone."""
    async with sessions() as session:
        hours = await log_archive.of_day(session, day)
        if (ripe_at := retention.ripe_at(day, await _delays(session, hours))) > now:
            return f"its labels have their time until {ripe_at:%Y-%m-%d}"
    try:
        for hour in hours:
            await _settle(sessions, archive, hour, report, now=now)
    except Damaged as exc:
        return str(exc)
    try:
        async with sessions.begin() as session:
            return await log_archive.drop(session, day, now=now)
    except DBAPIError as exc:
        return f"Postgres refuses: {exc.orig}"


async def _delays(session: AsyncSession, hours: Sequence[Hour]) -> list[timedelta]:
    configs = [await quality.config_of(session, model) for model in {hour.model for hour in hours}]
    return [timedelta(seconds=config.label.delay_s) for config in configs if config]


async def _settle(
    sessions: async_sessionmaker[AsyncSession], archive: Archive, hour: Hour, report: Report, *, now: datetime
) -> None:
    """See to it that the archive has the hour whole, out of Postgres if need be. Damaged: it cannot be had."""
    if hour.changed == hour.archived:
        try:
            await asyncio.to_thread(_sound, archive, hour)
        except Damaged as exc:
            if hour.dropped:  # nobody else has it
                raise
            log.warning("archive.written_again", model=hour.model, hour=hour.hour.isoformat(), why=str(exc))
        else:
            return
    await _archive(sessions, archive, hour, report, now=now)
    async with sessions() as session:
        (fresh,) = [h for h in await log_archive.of_day(session, hour.hour.replace(hour=0)) if _same(h, hour)]
    await asyncio.to_thread(_sound, archive, fresh)


def _same(one: Hour, other: Hour) -> bool:
    return (one.model, one.hour) == (other.model, other.hour)
