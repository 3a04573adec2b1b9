"""Prediction records and outcomes into Postgres: one transaction per batch, each record once.

The caller gives rows and the positions they bring each spool to. Rows, the hourly windows, exposures and the watermark
move together or not at all; a record that is there already changes nothing. Raw asyncpg below, for COPY.
"""

from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any, Protocol, cast
from uuid import UUID

import asyncpg  # pyright: ignore[reportMissingTypeStubs]
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine

from control_plane.adapters.store import erasures, log_hours
from control_plane.adapters.store import ingest_counts as counts
from control_plane.errors import StoreUnavailable

Position = tuple[int, int]  # segment, offset

PREDICTION_COLUMNS = (
    "day",
    "prediction_id",
    "model",
    "status",
    "received_at",
    "latency_us",
    "epoch",
    "revision",
    "assigned_variant",
    "assigned_version",
    "served_variant",
    "served_version",
    "fallback_reason",
    "pinned",
    "shadow",
    "rollout_id",
    "step",
    "unit_id",
    "request_id",
    "features",
    "output",
    "threshold",
    "decision",
    "unit_hash",
)
OUTCOME_COLUMNS = (
    "outcome_id",
    "model",
    "name",
    "value",
    "currency",
    "observed_us",
    "received_us",
    "prediction_id",
    "unit_id",
)
DAY, PREDICTION_ID, _MODEL = 0, 1, 2  # where they are in a row
_UNIT, _RECEIVED = PREDICTION_COLUMNS.index("unit_id"), PREDICTION_COLUMNS.index("received_at")
_PERSONAL = frozenset(PREDICTION_COLUMNS.index(name) for name in ("unit_id", "unit_hash", "request_id", "features"))
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_HOUR = 3_600_000 << 80  # of a UUIDv7

_TEMPORARY = """
CREATE TEMP TABLE IF NOT EXISTS incoming_outcomes (
  outcome_id uuid, model text, name text, value text, currency text, observed_us bigint, received_us bigint,
  prediction_id uuid, unit_id text
) ON COMMIT DELETE ROWS;
"""

_KNOWN = "SELECT prediction_id FROM predictions WHERE day = ANY($1::timestamptz[]) AND prediction_id = ANY($2::uuid[])"

_FOLD_OUTCOMES = """
WITH fresh AS (
  INSERT INTO outcomes (outcome_id, model, name, value, currency, observed_at, received_at, prediction_id, unit_id)
  SELECT outcome_id, model, name, value::jsonb, currency, timestamptz 'epoch' + observed_us * interval '1 microsecond',
    timestamptz 'epoch' + received_us * interval '1 microsecond', prediction_id, unit_id
  FROM incoming_outcomes
  ON CONFLICT DO NOTHING
  RETURNING 1
)
SELECT count(*) FROM fresh
"""

_SET_WATERMARK = """
INSERT INTO ingest_watermark (spool, segment, "offset", stream_epoch, at)
VALUES ($1, $2, $3, $4, clock_timestamp())
ON CONFLICT (spool) DO UPDATE SET segment = $2, "offset" = $3, stream_epoch = $4, at = clock_timestamp()
"""


class Connection(Protocol):
    """What is used here of an asyncpg connection, whose own types are partial."""

    async def execute(self, query: str, *args: object) -> str: ...
    async def executemany(self, command: str, args: Sequence[tuple[object, ...]]) -> None: ...
    async def fetch(self, query: str, *args: object) -> Sequence[Mapping[str, Any]]: ...
    async def fetchval(self, query: str, *args: object) -> Any: ...
    async def copy_records_to_table(
        self, table_name: str, *, records: Sequence[tuple[object, ...]], columns: Sequence[str]
    ) -> str: ...
    def transaction(self) -> AbstractAsyncContextManager[None]: ...


Row = tuple[object, ...]
Fold = Callable[[Connection, Sequence[Row]], Awaitable[None]]
"""What else happens to prediction rows that are new, in the order of PREDICTION_COLUMNS, in the transaction that stores
them: each row comes to it exactly once. It must not commit; what it raises leaves nothing of the batch."""


class Unstorable(ValueError):
    """Postgres refuses a value among the rows. Nothing was written; which value it was is for the caller to find."""


class Moved(Exception):
    """Another ingester has moved a watermark in between. Nothing was written; read them again."""


@dataclass(frozen=True, slots=True)
class Move:
    """A spool's watermark: where it was when the rows were chosen (None: nowhere), and where they bring it."""

    spool: str
    before: Position | None
    after: Position
    generation: str


@asynccontextmanager
async def connection(engine: AsyncEngine) -> AsyncGenerator[Connection]:
    """A connection for the functions below, with their temporary tables. StoreUnavailable when there is none."""
    with translated():
        outer = await engine.connect()
    try:
        with translated():
            raw = await outer.get_raw_connection()
            inner = cast(Connection, raw.driver_connection)
            await inner.execute(_TEMPORARY)
        yield inner
    finally:
        with suppress(DBAPIError, OSError):
            await outer.close()


async def watermarks(connection: Connection) -> dict[str, Position]:
    """How far each spool is in Postgres."""
    with translated():
        rows = await connection.fetch('SELECT spool, segment, "offset" FROM ingest_watermark')
    return {row["spool"]: (row["segment"], row["offset"]) for row in rows}


async def make_partitions(connection: Connection, days: Iterable[date]) -> None:
    """Day partitions of `predictions`, each in a short transaction of its own, made ahead of the rows."""
    with translated():
        for day in sorted(set(days)):
            begin = datetime(day.year, day.month, day.day, tzinfo=UTC)
            end = begin + timedelta(days=1)
            async with connection.transaction():
                await connection.execute("SELECT pg_advisory_xact_lock(hashtext('predictions partitions'))")
                await connection.execute(
                    f"CREATE TABLE IF NOT EXISTS predictions_{begin:%Y%m%d} PARTITION OF predictions "
                    f"FOR VALUES FROM ('{begin.isoformat()}') TO ('{end.isoformat()}')"
                )


async def fold(
    connection: Connection,
    *,
    predictions: Sequence[Row],
    outcomes: Sequence[Row],
    moves: Sequence[Move],
    folds: Sequence[Fold] = (),
) -> tuple[int, int]:
    """Write rows in the order of the column lists above and move the watermarks. Returns how many of each are new.

    Raises:
        Moved: a watermark is not where `moves` say it was.
        Unstorable: a value that the column's type cannot hold.
        StoreUnavailable: Postgres is gone; whether it committed is unknown, and doing it again is harmless.
    """
    fresh: Sequence[Row] = ()
    new_outcomes = 0
    with translated():
        async with connection.transaction():
            await _check(connection, moves)
            asked = await erasures.standing(connection) if predictions or outcomes else None
            if asked is not None:
                predictions = [_erased(row, asked) for row in predictions]
                outcomes = [row for row in outcomes if not _forgotten(row, asked)]
            if predictions:
                fresh = await _store(connection, predictions)
            if fresh:
                await counts.fold(connection, fresh)
                for more in folds:
                    await more(connection, fresh)
            if outcomes:
                await connection.copy_records_to_table("incoming_outcomes", records=outcomes, columns=OUTCOME_COLUMNS)
                new_outcomes = int(await connection.fetchval(_FOLD_OUTCOMES))
            subjects, now = [_subject(row) for row in outcomes], datetime.now(UTC)
            changed = _hours(fresh) | await log_hours.of_outcomes(connection, subjects, now=now)
            await log_hours.mark(connection, changed)
            await connection.executemany(_SET_WATERMARK, [(move.spool, *move.after, move.generation) for move in moves])
    return len(fresh), new_outcomes


def _erased(row: Row, asked: erasures.Standing) -> Row:
    """The row as erasure leaves it, where it came out of its spool after its unit was to be forgotten."""
    unit = row[_UNIT]
    if unit is None or not asked.covers(str(unit), cast(datetime, row[_RECEIVED])):
        return row
    return tuple(None if index in _PERSONAL else value for index, value in enumerate(row))


def _forgotten(row: Row, asked: erasures.Standing) -> bool:
    _, _, unit, at = _subject(row)
    return unit is not None and asked.covers(unit, at)


def _hours(rows: Sequence[Row]) -> set[tuple[str, datetime]]:
    found = {(str(row[_MODEL]), cast(UUID, row[PREDICTION_ID]).int // _HOUR) for row in rows}
    return {(model, datetime.fromtimestamp(hour * 3_600, UTC)) for model, hour in found}


def _subject(row: Row) -> log_hours.Subject:
    _, model, _, _, _, observed_us, _, prediction_id, unit_id = row
    at = _EPOCH + timedelta(microseconds=cast(int, observed_us))
    return str(model), cast("UUID | None", prediction_id), cast("str | None", unit_id), at


async def _store(connection: Connection, rows: Sequence[Row]) -> Sequence[Row]:
    """Copy the rows straight into their partitions; returns those that were not there.

    The watermark makes a row that is there already the exception, after a watermark was lost: only then is each looked
    for. Copying to a temporary table and inserting from it, which would do both at once, costs twice as much.
    """
    try:
        async with connection.transaction():
            await _copy(connection, rows)
        return rows
    except asyncpg.UniqueViolationError:
        days, identities = list({row[DAY] for row in rows}), [row[PREDICTION_ID] for row in rows]
        known = {found["prediction_id"] for found in await connection.fetch(_KNOWN, days, identities)}
        fresh = [row for row in rows if row[PREDICTION_ID] not in known]
        await _copy(connection, fresh)
        return fresh


async def _copy(connection: Connection, rows: Sequence[Row]) -> None:
    await connection.copy_records_to_table("predictions", records=rows, columns=PREDICTION_COLUMNS)


async def _check(connection: Connection, moves: Sequence[Move]) -> None:
    """Lock the watermarks. A first insert is serialised by the lock on the spool's name."""
    for spool in sorted(move.spool for move in moves):
        await connection.execute("SELECT pg_advisory_xact_lock(hashtext($1))", spool)
    rows = await connection.fetch(
        'SELECT spool, segment, "offset" FROM ingest_watermark WHERE spool = ANY($1::text[])',
        [move.spool for move in moves],
    )
    found = {row["spool"]: (row["segment"], row["offset"]) for row in rows}
    if any(found.get(move.spool) != move.before for move in moves):
        raise Moved


@contextmanager
def translated() -> Generator[None]:
    """Postgres' errors as ours: a value it refuses, or Postgres itself."""
    try:
        yield
    except asyncpg.UniqueViolationError as exc:  # another process stored the same record in between: look again
        raise StoreUnavailable(f"A record was stored twice at once: {exc}") from exc
    except asyncpg.CheckViolationError as exc:
        if "no partition of relation" not in str(exc):
            raise Unstorable(str(exc)) from exc
        raise StoreUnavailable(f"The day's partition was dropped in between: {exc}") from exc  # it is made anew
    except (
        asyncpg.DataError,
        asyncpg.IntegrityConstraintViolationError,
        asyncpg.ProgramLimitExceededError,
        ValueError,  # asyncpg itself, while it encodes
        OverflowError,
    ) as exc:
        raise Unstorable(str(exc)) from exc
    except (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, DBAPIError, OSError) as exc:
        raise StoreUnavailable(f"Postgres does not answer: {exc}") from exc
