"""Logged traffic as columns, in bounded memory: from the archive, and from Postgres where that knows more."""

import asyncio
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from control_plane.adapters.archive import Archive, Damaged, Manifest
from control_plane.adapters.store import log_archive
from control_plane.adapters.store.tables import LogHourRow, PredictionRow

COLUMNS: Final = (
    "prediction_id",
    "status",
    "received_at",
    "served_version",
    "pinned",
    "shadow",
    "unit_id",
    "features",
    "output",
    "decision",
    "outcomes",
)
Columns = Mapping[str, list[Any]]  # received_at in microseconds since 1970; features, output and values are JSON
_HOUR: Final = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class Piece:
    """One hour of the log, and where it is read from: the file that holds it as it is now, else Postgres."""

    hour: datetime
    rows: int
    file: Manifest | None
    stale: bool = False  # only the file has it, and outcomes came in since


async def pieces(
    sessions: async_sessionmaker[AsyncSession], archive: Archive, model: str, since: datetime, until: datetime
) -> list[Piece]:
    """The hours that overlap with [since, until), in order of time.

    Raises Damaged where Postgres has let go of an hour and the archive does not have it.
    """
    begin = since.astimezone(UTC).replace(minute=0, second=0, microsecond=0)
    row = LogHourRow
    files = {
        datetime.fromisoformat(one.hour): one
        for one in await asyncio.to_thread(lambda: list(archive.hours(model, begin, until)))
    }
    async with sessions() as session:
        query = select(row).where(row.model == model, row.hour >= begin, row.hour < until)
        known = {one.hour: one for one in await session.scalars(query)}
        made: list[Piece] = []
        for hour in sorted(known.keys() | files.keys()):
            found, file = known.get(hour), files.get(hour)
            if found is None or found.dropped_at is not None or found.changed == found.archived:
                if file is not None:
                    stale = found is not None and found.changed != found.archived
                    made.append(Piece(hour, file.rows, file, stale))
                    continue
                if found is not None and found.dropped_at is not None:
                    raise Damaged(f"{model} {hour:%Y-%m-%d %H}:00 has no file in the archive")
            made.append(Piece(hour, await _count(session, model, hour), None))
    return made


async def read(
    sessions: async_sessionmaker[AsyncSession],
    archive: Archive,
    model: str,
    piece: Piece,
    since: datetime,
    until: datetime,
    *,
    window: timedelta,
    rows: int,
) -> AsyncGenerator[Columns]:
    """What was received in [since, until), `rows` at a time. `window`: how long after a prediction an outcome of its
    unit speaks of it. Raises Damaged, Unavailable."""
    if piece.file is not None:
        found = archive.lists(piece.file, since, until, COLUMNS, rows=rows)
        while (columns := await asyncio.to_thread(next, found, None)) is not None:
            yield columns
        return
    async with sessions() as session:
        async for part in log_archive.rows(session, model, piece.hour, at_once=rows):
            mine = [row for row in part if since <= row["received_at"] < until]
            await log_archive.attach_outcomes(session, model, mine, window)
            made = {name: [row[name] for row in mine] for name in COLUMNS}
            made["received_at"] = [_micros(at) for at in made["received_at"]]
            yield made


async def _count(session: AsyncSession, model: str, hour: datetime) -> int:
    row = PredictionRow
    day = hour.astimezone(UTC).replace(hour=0)
    mine = (row.day == day, row.model == model, row.received_at >= hour, row.received_at < hour + _HOUR)
    return int(await session.scalar(select(func.count()).where(*mine)) or 0)


def _micros(at: datetime) -> int:
    return round(at.timestamp() * 1e6)
