"""`python -m control_plane.ingest.ingester`: folds the record stream into Postgres, each record exactly once.

A batch says from where to where in its spool it goes. It is taken only if it continues at the spool's watermark, which
moves in the same transaction as the rows: a batch that arrives twice is recognised, one that is missing is asked for
again. Only after the commit is the watermark told to the shippers and the batch dropped from the stream.
"""

import asyncio
import signal
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from typing import Final, cast

import structlog
import uvloop
from redis.asyncio import Redis
from sqlalchemy.ext.asyncio import AsyncEngine

from control_plane import garbage
from control_plane.adapters import bus, store
from control_plane.adapters.bus import Batch
from control_plane.adapters.metrics import Metrics
from control_plane.adapters.store import ingest, log_hours
from control_plane.adapters.store.ingest import Connection, Fold, Move, Moved, Position, Unstorable
from control_plane.contracts import frames
from control_plane.errors import BusUnavailable, StoreUnavailable
from control_plane.ingest import rows
from control_plane.ingest.business import Business
from control_plane.ingest.dead_letters import DeadLetters
from control_plane.ingest.figures import keep_fresh
from control_plane.ingest.profiles import Profiler
from control_plane.settings import IngesterSettings
from control_plane.telemetry import Metric, configure_logging, mark_ready

_WAIT_S: Final = 1.0  # for batches; also how often watermarks are told again, for a Redis that lost them
_PAUSE_S: Final = 0.5
_BATCHES: Final = 32  # read at once
_JSON_COLUMNS: Final = tuple(ingest.PREDICTION_COLUMNS.index(name) for name in ("features", "output"))
_RECEIVED: Final = ingest.PREDICTION_COLUMNS.index("received_at")
_VALUE_COLUMN: Final = (ingest.OUTCOME_COLUMNS.index("value"),)
FOLDS: Final[tuple[Fold, ...]] = ()  # what else is done with new rows in the transaction that stores them
_log: structlog.stdlib.BoundLogger = structlog.get_logger()


@dataclass(slots=True)
class Plan:
    """What one transaction takes from the stream."""

    frames: list[tuple[str, bytes]] = field(default_factory=list[tuple[str, bytes]])  # (spool, whole frames)
    before: dict[str, Position | None] = field(default_factory=dict[str, Position | None])
    after: dict[str, tuple[Position, str]] = field(default_factory=dict[str, tuple[Position, str]])  # and generation
    rewinds: dict[str, str] = field(default_factory=dict[str, str])
    jumped: list[str] = field(default_factory=list[str])  # spools whose disk has nothing between watermark and batch

    @property
    def moves(self) -> list[Move]:
        return [
            Move(spool, self.before[spool], position, generation)
            for spool, (position, generation) in self.after.items()
        ]


def plan(batches: Iterable[Batch], watermarks: dict[str, Position]) -> Plan:
    """Which parts of the batches are new, and which batches cannot be used because one before them is missing."""
    made = Plan()
    for batch in batches:
        taken = made.after.get(batch.spool)
        watermark = taken[0] if taken is not None else watermarks.get(batch.spool)
        if watermark is not None and batch.end <= watermark:
            continue
        continues = watermark is not None and batch.start <= watermark
        if not continues and not batch.first:
            made.rewinds[batch.spool] = batch.generation
            continue
        if not continues and watermark is not None:
            made.jumped.append(batch.spool)
        data = batch.frames
        if watermark is not None and watermark[0] == batch.end[0]:
            begins = batch.end[1] - len(batch.frames)
            data = data[max(0, watermark[1] - begins) :]
        made.before.setdefault(batch.spool, watermarks.get(batch.spool))
        made.after[batch.spool] = (batch.end, batch.generation)
        made.frames.append((batch.spool, data))
    return made


class Ingester:
    """Takes batches from `redis` into `connection`'s database until something fails."""

    def __init__(
        self,
        connection: Connection,
        redis: Redis,
        settings: IngesterSettings,
        meters: "Meters",
        folds: Sequence[Fold] = FOLDS,
    ) -> None:
        self._connection, self._redis, self._settings, self._meters = connection, redis, settings, meters
        self._profiler = Profiler()
        self._folds: tuple[Fold, ...] = (*folds, self._profiler)
        self._letters = DeadLetters(settings.home / "spool" / "dead-letters", "ingester")
        self._watermarks: dict[str, Position] = {}
        self._partitions: set[date] = set()

    async def start(self) -> None:
        """Read the watermarks and tell them; make the partitions of today and tomorrow."""
        self._watermarks = await ingest.watermarks(self._connection)
        await self._ensure(self._near_days())
        await bus.done(self._redis, upto=None, watermarks=self._watermarks, rewinds={})

    async def step(self) -> int:
        """One transaction, if there is anything. How many batches were taken from the stream."""
        received = await bus.receive(self._redis, count=_BATCHES, wait_s=_WAIT_S)
        if not received:
            await self._ensure(self._near_days())
            await bus.done(self._redis, upto=None, watermarks=self._watermarks, rewinds={})
            self._meters.lag(0.0)
            return 0
        limit, taken, batches, damaged = self._settings.ingest_batch, list[str](), list[Batch](), 0
        for entry, batch in received:
            taken.append(entry)
            if batch is None:
                damaged += 1
                continue
            batches.append(batch)
            limit -= len(batch.frames) // 400  # about so many bytes a record: a bound on memory, not a promise
            if limit <= 0:
                break
        if damaged:  # nor is the rest of the stream to be relied on: shippers send again what is not in Postgres
            _log.error("ingester.damaged", batches=damaged, what="Redis does not have what it was sent: sent again")
        made = plan(batches, self._watermarks)
        if made.rewinds:  # or another ingester took what seems to be missing
            self._watermarks = await ingest.watermarks(self._connection)
            made = plan(batches, self._watermarks)
        for spool in made.jumped:
            _log.error("ingester.jumped", spool=spool, what="the spool no longer has what follows the watermark")
        if made.after:
            try:
                await self._fold(made)
            except Moved:  # another ingester is at work: look again
                self._watermarks = await ingest.watermarks(self._connection)
                return len(taken)
            self._watermarks |= {spool: position for spool, (position, _) in made.after.items()}
        await bus.done(
            self._redis, upto=taken[-1], watermarks=self._watermarks, rewinds=made.rewinds, damaged=bool(damaged)
        )
        return len(taken)

    async def _fold(self, made: Plan) -> None:
        predictions, outcomes, days, newest = self._rows(made.frames, careful=False)
        await self._ensure(days)
        await self._profiler.refresh(self._connection)
        try:
            counts = await self._store(predictions, outcomes, made.moves)
        except Unstorable as exc:
            _log.warning("ingester.unstorable", error=str(exc))
            counts = await self._fold_carefully(made)
        self._meters.folded(*counts)
        if newest:
            self._meters.lag(max(0.0, time.time() - newest))

    async def _fold_carefully(self, made: Plan) -> tuple[int, int]:
        """Postgres refused a value somewhere: keep suspicious JSON as text; if that does not do, row by row."""
        predictions, outcomes, _, _ = self._rows(made.frames, careful=True)
        try:
            return await self._store(predictions, outcomes, made.moves)
        except Unstorable as exc:
            _log.error("ingester.row_by_row", error=str(exc), predictions=len(predictions), outcomes=len(outcomes))
        stored = [0, 0]
        for kind, found in enumerate((predictions, outcomes)):
            for row in found:
                stored[kind] += await self._fold_one(row, kind)
        await self._store([], [], made.moves)
        return stored[0], stored[1]

    async def _fold_one(self, row: rows.Row, kind: int) -> int:
        """One row in a transaction of its own, as it is, else with its JSON as text, else not at all."""
        for attempt in (row, rows.as_text(row, _VALUE_COLUMN if kind else _JSON_COLUMNS)):
            try:
                await self._store([] if kind else [attempt], [attempt] if kind else [], [])
            except Unstorable as exc:
                why = str(exc)
            else:
                self._meters.kept_safe(attempt is not row)
                return 1
        self._letters.add("row", why, repr(row).encode())
        self._meters.set_aside()
        return 0

    def _rows(
        self, chunks: Sequence[tuple[str, bytes]], *, careful: bool
    ) -> tuple[list[rows.Row], list[rows.Row], set[date], float]:
        """Rows of whole frames, their days, and when the newest record was received (Unix seconds, or 0)."""
        predictions, outcomes, days, newest = dict[object, rows.Row](), dict[object, rows.Row](), set[date](), 0.0
        today = datetime.now(UTC).date()
        for spool, data in chunks:
            for payload in frames.payloads(data):
                try:
                    if spool.startswith("outcomes"):
                        row = rows.outcome(payload, careful=careful)
                        outcomes[row[0]] = row
                        continue
                    row, day = rows.prediction(payload, careful=careful)
                    if not today - log_hours.OLDEST <= day <= today + log_hours.NEWEST:
                        raise ValueError(f"prediction_id is of {day}")
                except ValueError as exc:
                    self._letters.add(spool, str(exc), payload)
                    self._meters.set_aside()
                    continue
                predictions[row[1]] = row
                days.add(day)
                newest = max(newest, cast(datetime, row[_RECEIVED]).timestamp())
        kept = sum(str(row[c]).startswith('{"$raw"') for row in predictions.values() for c in _JSON_COLUMNS)
        if kept:
            self._meters.kept_safe(kept)
        return list(predictions.values()), list(outcomes.values()), days, newest

    async def _store(
        self, predictions: Sequence[rows.Row], outcomes: Sequence[rows.Row], moves: Sequence[Move]
    ) -> tuple[int, int]:
        return await ingest.fold(
            self._connection, predictions=predictions, outcomes=outcomes, moves=moves, folds=self._folds
        )

    async def _ensure(self, days: set[date]) -> None:
        """A day's partition is remembered while it is recent: a late one may have been dropped after its retention."""
        self._partitions &= self._near_days() | {datetime.now(UTC).date() - timedelta(days=1)}
        if missing := days - self._partitions:
            await ingest.make_partitions(self._connection, missing)
            self._partitions |= missing

    def _near_days(self) -> set[date]:
        today = datetime.now(UTC).date()
        return {today, today + timedelta(days=1)}


class Meters:
    """What the ingester counts."""

    def __init__(self, metrics: Metrics) -> None:
        self.lag = metrics.gauge(Metric.INGEST_LAG, "Age of the newest record when it was folded; 0 when idle.").set
        self.kept_safe = metrics.counter(Metric.UNSTORABLE, "JSON values Postgres refuses, kept as text.").inc
        aside = metrics.counter(Metric.DEAD_LETTERS, "Records set aside because they cannot be read.", ("process",))
        self.set_aside = aside.labels("ingester").inc
        self._ingested = metrics.counter(Metric.INGESTED, "Records folded into Postgres.", ("kind",))

    def folded(self, predictions: int, outcomes: int) -> None:
        self._ingested.labels("prediction").inc(predictions)
        self._ingested.labels("outcome").inc(outcomes)


async def run(settings: IngesterSettings, engine: AsyncEngine, redis: Redis, stopping: asyncio.Event) -> None:
    """Until `stopping` is set. A lost Redis or Postgres is waited for; nothing is lost meanwhile."""
    metrics = Metrics(settings.run / "metrics", "ingester")
    meters, fresh = Meters(metrics), asyncio.create_task(keep_fresh(engine, metrics))
    try:
        async with metrics.alive("ingester", settings.metrics_host, settings.metrics_port):
            await _ingest(settings, engine, redis, stopping, meters)
    finally:
        fresh.cancel()
        await asyncio.gather(fresh, return_exceptions=True)


async def _ingest(
    settings: IngesterSettings, engine: AsyncEngine, redis: Redis, stopping: asyncio.Event, meters: Meters
) -> None:
    lost, folds = False, (*FOLDS, Business().fold)
    while not stopping.is_set():
        try:
            async with ingest.connection(engine) as connection:
                ingester = Ingester(connection, redis, settings, meters, folds)
                await ingester.start()
                _log.info("ingester.started")
                lost = False
                while not stopping.is_set():
                    await ingester.step()
        except (BusUnavailable, StoreUnavailable) as exc:
            if not lost:
                _log.warning("ingester.lost", error=str(exc))
            lost = True
            await asyncio.sleep(_PAUSE_S)


async def _main(settings: IngesterSettings) -> None:
    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    engine = store.create_engine(settings.postgres_dsn.get_secret_value(), pooler=settings.transaction_pooler, size=2)
    redis = bus.connect(settings.redis_url, timeout_s=_WAIT_S + 2)
    garbage.collect_seldom(100_000)  # rows leave no cycles behind: looking for some was an eighth of the work
    mark_ready()
    await run(settings, engine, redis, stopping)
    await redis.aclose()
    await engine.dispose()


def main() -> int:
    settings = IngesterSettings()  # pyright: ignore[reportCallIssue]  (the environment has the rest)
    configure_logging("ingester", level=settings.log_level)
    uvloop.run(_main(settings))
    return 0


if __name__ == "__main__":
    sys.exit(main())
