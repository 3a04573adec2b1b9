"""Prediction records and outcomes into Postgres: one transaction per batch, each record once.

The caller gives rows and the positions they bring each spool to. Rows, the hourly windows, exposures and the watermark
move together or not at all; a record that is there already changes nothing. Raw asyncpg below, for COPY.
"""

from collections.abc import AsyncGenerator, Generator, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any, Protocol, cast

import asyncpg  # pyright: ignore[reportMissingTypeStubs]
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine

from control_plane.errors import StoreUnavailable

Position = tuple[int, int]  # segment, offset

PREDICTION_COLUMNS = (
    "day",
    "prediction_id",
    "model",
    "status",
    "received_us",
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
    "unit_hash",
    "request_id",
    "features",
    "output",
    "threshold",
    "decision",
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

_TEMPORARY = """
CREATE TEMP TABLE IF NOT EXISTS incoming_predictions (
  day timestamptz, prediction_id uuid, model text, status text, received_us bigint, latency_us int, epoch bigint,
  revision bigint, assigned_variant text, assigned_version text, served_variant text, served_version text,
  fallback_reason text, pinned bool, shadow bool, rollout_id uuid, step int, unit_id text, unit_hash bytea,
  request_id text, features text, output text, threshold float8, decision text
) ON COMMIT DELETE ROWS;
CREATE TEMP TABLE IF NOT EXISTS incoming_outcomes (
  outcome_id uuid, model text, name text, value text, currency text, observed_us bigint, received_us bigint,
  prediction_id uuid, unit_id text
) ON COMMIT DELETE ROWS;
"""

_FOLD_PREDICTIONS = """
WITH fresh AS (
  INSERT INTO predictions (
    day, prediction_id, model, status, received_at, latency_us, epoch, revision, assigned_variant, assigned_version,
    served_variant, served_version, fallback_reason, pinned, shadow, rollout_id, step, unit_id, request_id, features,
    output, threshold, decision)
  SELECT day, prediction_id, model, status, timestamptz 'epoch' + received_us * interval '1 microsecond', latency_us,
    epoch, revision, assigned_variant, assigned_version, served_variant, served_version, fallback_reason, pinned,
    shadow, rollout_id, step, unit_id, request_id, features::jsonb, output::jsonb, threshold, decision
  FROM incoming_predictions
  ON CONFLICT DO NOTHING
  RETURNING prediction_id
), mine AS (
  SELECT i.*, timestamptz 'epoch' + i.received_us * interval '1 microsecond' AS received_at,
    CASE WHEN i.shadow THEN 'shadow' WHEN i.pinned THEN 'pinned' ELSE coalesce(i.assigned_variant, '') END AS variant
  FROM incoming_predictions i JOIN fresh USING (prediction_id)
), counted AS (
  INSERT INTO windows (model, version, variant, hour, requests, failures, fallbacks, latency_us_sum)
  SELECT model, coalesce(served_version, ''), variant, date_trunc('hour', received_at, 'UTC'), count(*),
    count(*) FILTER (WHERE status IN ('error', 'timeout', 'shed')), count(fallback_reason), sum(latency_us)
  FROM mine GROUP BY 1, 2, 3, 4 ORDER BY 1, 2, 3, 4
  ON CONFLICT (model, version, variant, hour) DO UPDATE SET
    requests = windows.requests + excluded.requests, failures = windows.failures + excluded.failures,
    fallbacks = windows.fallbacks + excluded.fallbacks,
    latency_us_sum = windows.latency_us_sum + excluded.latency_us_sum
), exposed AS (
  INSERT INTO exposures (rollout_id, unit_hash, variant, step, first_at, requests, fallbacks)
  SELECT rollout_id, unit_hash, (array_agg(assigned_variant ORDER BY received_at))[1],
    coalesce((array_agg(step ORDER BY received_at))[1], 0), min(received_at), count(*), count(fallback_reason)
  FROM mine
  WHERE rollout_id IS NOT NULL AND unit_hash IS NOT NULL AND assigned_variant IS NOT NULL AND NOT shadow AND NOT pinned
  GROUP BY 1, 2 ORDER BY 1, 2
  ON CONFLICT (rollout_id, unit_hash) DO UPDATE SET
    requests = exposures.requests + excluded.requests, fallbacks = exposures.fallbacks + excluded.fallbacks,
    variant = CASE WHEN excluded.first_at < exposures.first_at THEN excluded.variant ELSE exposures.variant END,
    step = CASE WHEN excluded.first_at < exposures.first_at THEN excluded.step ELSE exposures.step END,
    first_at = least(exposures.first_at, excluded.first_at)
)
SELECT count(*) FROM fresh
"""

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
    with _translated():
        outer = await engine.connect()
    try:
        with _translated():
            raw = await outer.get_raw_connection()
            inner = cast(Connection, raw.driver_connection)
            await inner.execute(_TEMPORARY)
        yield inner
    finally:
        with suppress(DBAPIError, OSError):
            await outer.close()


async def watermarks(connection: Connection) -> dict[str, Position]:
    """How far each spool is in Postgres."""
    with _translated():
        rows = await connection.fetch('SELECT spool, segment, "offset" FROM ingest_watermark')
    return {row["spool"]: (row["segment"], row["offset"]) for row in rows}


async def make_partitions(connection: Connection, days: Iterable[date]) -> None:
    """Day partitions of `predictions`, each in a short transaction of its own, made ahead of the rows."""
    with _translated():
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
    predictions: Sequence[tuple[object, ...]],
    outcomes: Sequence[tuple[object, ...]],
    moves: Sequence[Move],
) -> tuple[int, int]:
    """Write rows in the order of the column lists above and move the watermarks. Returns how many of each are new.

    Raises:
        Moved: a watermark is not where `moves` say it was.
        Unstorable: a value that the column's type cannot hold.
        StoreUnavailable: Postgres is gone; whether it committed is unknown, and doing it again is harmless.
    """
    new_predictions = new_outcomes = 0
    with _translated():
        async with connection.transaction():
            await _check(connection, moves)
            if predictions:
                await connection.copy_records_to_table(
                    "incoming_predictions", records=predictions, columns=PREDICTION_COLUMNS
                )
                new_predictions = int(await connection.fetchval(_FOLD_PREDICTIONS))
            if outcomes:
                await connection.copy_records_to_table("incoming_outcomes", records=outcomes, columns=OUTCOME_COLUMNS)
                new_outcomes = int(await connection.fetchval(_FOLD_OUTCOMES))
            await connection.executemany(_SET_WATERMARK, [(move.spool, *move.after, move.generation) for move in moves])
    return new_predictions, new_outcomes


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
def _translated() -> Generator[None]:
    """Postgres' errors as ours: a value it refuses, or Postgres itself."""
    try:
        yield
    except (
        asyncpg.DataError,
        asyncpg.IntegrityConstraintViolationError,
        asyncpg.ProgramLimitExceededError,
        ValueError,  # asyncpg itself, while it encodes
        OverflowError,
    ) as exc:
        raise Unstorable(str(exc)) from exc
    except (asyncpg.PostgresError, asyncpg.InterfaceError, DBAPIError, OSError) as exc:
        raise StoreUnavailable(f"Postgres does not answer: {exc}") from exc
