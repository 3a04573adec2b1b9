"""Redis, in this one module: the snapshot, what routers report, and the stream of records on their way to Postgres.

Nothing here is a source of truth. The snapshot comes from Postgres, records wait in spools until Postgres has them:
a Redis that restarts empty costs a moment, never data. Every function raises BusUnavailable when Redis does not answer.
"""

# redis-py types its commands in part only: keyword arguments and generic replies are unknown to pyright.
# pyright: reportUnknownMemberType=false, reportGeneralTypeIssues=false

import asyncio
from collections.abc import AsyncGenerator, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final, cast
from uuid import uuid4
from zlib import crc32

import msgspec
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from control_plane.errors import BusUnavailable

SNAPSHOT = "mlcp:snapshot"  # the document itself
SNAPSHOTS = "mlcp:snapshots"  # channel: "<epoch>:<revision>" of a document just set
ROUTERS = "mlcp:routers"  # hash: router id -> its last report, JSON
RECORDS = "mlcp:records"  # stream of batches
WATERMARKS = "mlcp:watermarks"  # hash: spool -> "<segment>:<offset>", all before it is in Postgres
LIMIT_WORKERS = "mlcp:limits:workers"  # sorted set: router workers by when they traded last
LIMIT_POOL = "mlcp:limits:pool"  # hash: limit -> tokens nobody uses now
LIMIT_WANTS = "mlcp:limits:wants"  # hash: limit -> when somebody was short of it
REWINDS = "mlcp:rewinds"  # hash: spool -> generation of a batch that could not be used, because one before it is lost
EVERYBODY: Final = ""  # field of REWINDS: changes whenever the stream was thrown away
_HEAD: Final = (b"spool", b"start", b"end", b"generation", b"first")  # of a batch, in this order in its checksum
_FRAMES: Final = b"frames"
_CHECK: Final = b"check"
_PLAIN: Final = {*_HEAD, _FRAMES}  # of a shipper of a version that sent no checksum


def connect(url: str, *, timeout_s: float = 2.0) -> Redis:
    """A client of its own pool; `await client.aclose()` ends it. Connects on first use, and again after each loss.

    It does not retry by itself: every caller has something better to do first, and tries again after that.
    """
    retry = Retry(NoBackoff(), 0)
    return Redis.from_url(url, socket_connect_timeout=timeout_s, socket_timeout=timeout_s, retry=retry)


@contextmanager
def _translated() -> Generator[None]:
    """What goes wrong becomes BusUnavailable; a cancellation stays one.

    redis-py waits with `asyncio.wait_for`, which before Python 3.12 forgets a cancellation that comes in the very tick
    of the answer: a task could not be stopped.
    """
    task = asyncio.current_task()
    asked = task.cancelling() if task else 0
    try:
        yield
    except (RedisError, OSError) as exc:
        raise BusUnavailable(f"Redis does not answer: {exc}") from exc
    if task and task.cancelling() > asked:
        raise asyncio.CancelledError


# --- snapshot -----------------------------------------------------------------------------------------------------


async def publish_snapshot(redis: Redis, document: bytes, epoch: int, revision: int) -> None:
    """Set the document, then wake every subscribed router. Publishing the same one again is harmless."""
    with _translated():
        await redis.set(SNAPSHOT, document)
        await redis.publish(SNAPSHOTS, f"{epoch}:{revision}")


async def snapshot(redis: Redis) -> bytes | None:
    """The document last published, None where there is none."""
    with _translated():
        return cast(bytes | None, await redis.get(SNAPSHOT))


async def snapshot_changes(redis: Redis) -> AsyncGenerator[None]:
    """Yield once when subscribed and after every publication, until Redis goes away (BusUnavailable)."""
    with _translated():
        async with redis.pubsub() as subscription:
            await subscription.subscribe(SNAPSHOTS)
            yield
            while True:
                # A time limit, so that a connection that died in silence is found by the health check.
                if await subscription.get_message(ignore_subscribe_messages=True, timeout=1.0):
                    yield


# --- router reports -----------------------------------------------------------------------------------------------


async def report_router(redis: Redis, router_id: str, report: Mapping[str, object]) -> None:
    """Say what this router has applied: {"epoch", "revision", "pins", "rejected", "asked", "at", "journal"}."""
    with _translated():
        await redis.hset(ROUTERS, router_id, msgspec.json.encode(report))


async def forget_router(redis: Redis, router_id: str) -> None:
    """Take back the report of a router that stops for good."""
    with _translated():
        await redis.hdel(ROUTERS, router_id)


async def router_reports(redis: Redis) -> dict[str, dict[str, object]]:
    """The last report of every router, dead ones included: `at` (Unix seconds) says how old it is."""
    with _translated():
        found = cast(dict[bytes, bytes], await redis.hgetall(ROUTERS))
    return {name.decode(): msgspec.json.decode(report, type=dict[str, object]) for name, report in found.items()}


# --- rate limits ---------------------------------------------------------------------------------------------------

SILENT_S = 60.0  # a worker that has not traded for longer no longer has a share
_TRADE = """
local clock = redis.call('TIME')
local now = clock[1] + clock[2] / 1e6
local newcomer = redis.call('ZADD', KEYS[1], now, ARGV[1])
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now - ARGV[2])
local granted = {}
for i = 3, #ARGV, 4 do
  local limit, take = ARGV[i], tonumber(ARGV[i + 2])
  local pool = math.min(tonumber(ARGV[i + 3]), (tonumber(redis.call('HGET', KEYS[2], limit)) or 0) + ARGV[i + 1])
  local got = math.min(pool, take)
  redis.call('HSET', KEYS[2], limit, string.format('%.9f', pool - got))
  if take > 0 then redis.call('HSET', KEYS[3], limit, string.format('%.3f', now)) end
  if got > 0 then table.insert(granted, limit); table.insert(granted, string.format('%.9f', got)) end
end
local wanted = {}
local asked = redis.call('HGETALL', KEYS[3])
for i = 1, #asked, 2 do
  if now - asked[i + 1] < 3 then table.insert(wanted, asked[i])
  else redis.call('HDEL', KEYS[3], asked[i]); redis.call('HDEL', KEYS[2], asked[i]) end
end
return {redis.call('ZCARD', KEYS[1]), newcomer, wanted, granted}
"""


@dataclass(frozen=True, slots=True)
class Offer:
    """Tokens of one limit a worker gives to the pool, and how many it would take. `room`: what the pool may hold."""

    limit: str
    give: float
    take: float
    room: float


@dataclass(frozen=True, slots=True)
class Traded:
    """`workers`: how many share the limits, this one included; `newcomer`: the others do not know of it yet."""

    workers: int
    newcomer: bool
    wanted: frozenset[str]
    granted: dict[str, float]


async def trade(redis: Redis, worker: str, offers: Sequence[Offer]) -> Traded:
    """Exchange tokens of rate limits with the other router workers, in one step. Tokens are moved, never made."""
    values = [str(part) for o in offers for part in (o.limit, f"{o.give:.9f}", f"{o.take:.9f}", o.room)]
    keys = (LIMIT_WORKERS, LIMIT_POOL, LIMIT_WANTS)
    with _translated():
        answer = await redis.eval(_TRADE, len(keys), *keys, worker, str(SILENT_S), *values)
    workers, newcomer, wanted, granted = cast("tuple[int, int, list[bytes], list[bytes]]", answer)
    pairs = zip(granted[::2], granted[1::2], strict=True)
    return Traded(
        workers,
        bool(newcomer),
        frozenset(limit.decode() for limit in wanted),
        {limit.decode(): float(tokens) for limit, tokens in pairs},
    )


async def leave(redis: Redis, worker: str) -> None:
    """Give up a worker's share of the limits."""
    with _translated():
        await redis.zrem(LIMIT_WORKERS, worker)


# --- record stream ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Batch:
    """Consecutive records of one spool: every byte after `start` up to `end`, as framed on disk.

    Positions are (segment, offset). `first`: nothing older than `start` exists on the shipper's disk.
    """

    spool: str
    start: tuple[int, int]
    end: tuple[int, int]
    generation: str  # changes whenever the shipper starts over
    first: bool
    frames: bytes


@dataclass(frozen=True, slots=True)
class Progress:
    """What the shipper must know, read in one step so that it cannot contradict itself."""

    waiting: int  # batches in the stream
    watermarks: dict[str, tuple[int, int]]
    rewinds: dict[str, str]


async def send(redis: Redis, batches: Sequence[Batch]) -> None:
    """Append to the stream, in order, in one round trip."""
    with _translated():
        async with redis.pipeline(transaction=True) as pipe:
            for batch in batches:
                head = (batch.spool, _text(batch.start), _text(batch.end), batch.generation, str(int(batch.first)))
                fields = dict(zip(_HEAD, (part.encode() for part in head), strict=True)) | {_FRAMES: batch.frames}
                pipe.xadd(RECORDS, cast(dict[Any, Any], fields | {_CHECK: str(_checksum(fields)).encode()}))
            await pipe.execute()


async def progress(redis: Redis) -> Progress:
    with _translated():
        async with redis.pipeline(transaction=True) as pipe:
            pipe.xlen(RECORDS)
            pipe.hgetall(WATERMARKS)
            pipe.hgetall(REWINDS)
            waiting, watermarks, rewinds = await pipe.execute()
    return Progress(
        cast(int, waiting),
        {spool.decode(): _position(at) for spool, at in cast(dict[bytes, bytes], watermarks).items()},
        {spool.decode(): generation.decode() for spool, generation in cast(dict[bytes, bytes], rewinds).items()},
    )


async def receive(redis: Redis, *, count: int, wait_s: float) -> list[tuple[str, Batch | None]]:
    """The oldest batches with their stream ids. They stay until `done`. Empty after `wait_s` without any.

    None: Redis no longer has what was sent. The spool has.
    """
    with _translated():
        answer = await redis.xread({RECORDS: "0"}, count=count, block=max(1, round(wait_s * 1000)))
    streams = cast(list[tuple[bytes, list[tuple[bytes, dict[bytes, bytes]]]]], answer or [])
    return [(entry.decode(), _batch(fields)) for _, entries in streams for entry, fields in entries]


async def done(
    redis: Redis,
    *,
    upto: str | None,
    watermarks: Mapping[str, tuple[int, int]],
    rewinds: Mapping[str, str],
    damaged: bool = False,
) -> None:
    """Say how far Postgres has got, then drop the batches up to the stream id `upto`. Only after the commit.

    `damaged`: drop all of them, without reading what is there, and have every shipper start over.
    """
    with _translated():
        async with redis.pipeline(transaction=True) as pipe:
            if watermarks:
                pipe.hset(WATERMARKS, mapping={spool.encode(): _text(at) for spool, at in watermarks.items()})
            if rewinds:
                pipe.hset(REWINDS, mapping={spool.encode(): generation for spool, generation in rewinds.items()})
            if damaged:
                pipe.delete(RECORDS)
                pipe.hset(REWINDS, EVERYBODY, uuid4().hex)
            elif upto is not None:
                milliseconds, _, sequence = upto.partition("-")
                pipe.xtrim(RECORDS, minid=f"{milliseconds}-{int(sequence) + 1}", approximate=False)
            await pipe.execute()


def _text(position: tuple[int, int]) -> str:
    return f"{position[0]}:{position[1]}"


def _position(text: bytes) -> tuple[int, int]:
    segment, _, offset = text.partition(b":")
    return int(segment), int(offset)


def _batch(fields: dict[bytes, bytes]) -> Batch | None:
    try:
        if fields.keys() != _PLAIN and int(fields[_CHECK]) != _checksum(fields):
            return None
    except (KeyError, ValueError):
        return None
    spool, start, end, generation, first = (fields[name] for name in _HEAD)
    return Batch(spool.decode(), _position(start), _position(end), generation.decode(), first == b"1", fields[_FRAMES])


def _checksum(fields: Mapping[bytes, bytes]) -> int:
    return crc32(fields[_FRAMES], crc32(b" ".join(fields[name] for name in _HEAD)))
