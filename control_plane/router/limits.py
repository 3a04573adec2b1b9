"""Rate limits that all routers share: a token bucket per limit in every worker, filled with the worker's share.

A limit of R requests a second is divided among the routers by their n live workers, whether Redis lives or not, so
together they never hand out more than the limit. The workers of one router divide its part by what they are asked
(`siblings`). What a worker has no use for it gives to a pool in Redis, and a worker that runs short takes from there:
tokens are moved, never made. With Redis dead the routers' parts stay.

Any period of T seconds sees at most R x T + `burst(R, n)` requests of one limit.
"""

import asyncio
import math
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import structlog
from redis.asyncio import Redis

from control_plane.adapters import bus
from control_plane.errors import BusUnavailable, RateLimited
from control_plane.router.problems import Refused

TICK_S: Final = 0.25  # between two trades of a worker
HURRY_S: Final = 0.02  # at least, when it is short
POOL_S: Final = 0.5  # of the limit's rate: what the pool holds at most
SHRINK_S: Final = 5.0  # fewer workers are believed after so long: an emptied Redis knows of none at first
_log: structlog.stdlib.BoundLogger = structlog.get_logger()


def burst(rate: float, workers: int) -> float:
    """What may go through beyond the rate: a full bucket in every worker, the pool, and what is on its way to it."""
    return max(rate, workers) + rate * (POOL_S + 2 * TICK_S)


class Bucket:
    """One limit in one worker. Tokens are requests; `rate` is the whole limit, `pace` this worker's share, a second."""

    __slots__ = ("asked", "at", "id", "pace", "rate", "room", "short", "spare", "tokens")

    def __init__(self, limit_id: str, rate: float, part: float, now: float, *, up_s: float = math.inf) -> None:
        """`part`: of the rate that is this worker's.

        `up_s`: how long this worker has been up; a worker that begins has not had the time to fill its bucket.
        """
        self.id, self.rate = limit_id, rate
        self.at = now
        self.asked = 0  # requests since somebody last looked
        self.pace = rate * part
        self.room = max(1.0, self.pace)
        self.tokens = min(self.room, max(1.0, up_s * self.pace))
        self.spare = 0.0  # ran over since the last trade
        self.short = False  # somebody was refused since the last trade

    def take(self, now: float) -> bool:
        """Whether one more request may pass at `now` (monotonic seconds)."""
        self.asked += 1
        tokens = self.tokens + (now - self.at) * self.pace
        self.at = now
        if tokens > self.room:
            self.spare += tokens - self.room
            tokens = self.room
        if tokens >= 1.0:
            self.tokens = tokens - 1.0
            return True
        self.tokens = tokens
        self.short = True
        return False

    def share(self, part: float, now: float) -> None:
        """Fill at this part of the rate from now on."""
        self._fill(now)
        self.pace = self.rate * part
        self.room = max(1.0, self.pace)
        self.tokens = min(self.tokens, self.room)

    def offer(self, now: float, *, wanted: bool) -> bus.Offer | None:
        """What to trade now; None: nothing. What ran over is given where somebody wants it, else forgotten."""
        self._fill(now)
        spare, self.spare = min(self.spare, 2 * TICK_S * self.pace), 0.0
        short, self.short = self.short, False
        take = max(0.0, self.room - self.tokens) if short else 0.0
        give = spare if wanted else 0.0
        return bus.Offer(self.id, give, take, self.rate * POOL_S) if give or take else None

    def granted(self, tokens: float) -> None:
        self.tokens += tokens

    def wait_s(self) -> int:
        """Whole seconds until a token is there."""
        return max(1, math.ceil((1.0 - self.tokens) / self.pace)) if self.pace else 1

    def _fill(self, now: float) -> None:
        tokens = self.tokens + (now - self.at) * self.pace
        self.at = now
        self.tokens = min(tokens, self.room)
        self.spare += tokens - self.tokens


def admit(key: Bucket | None, model: Bucket | None) -> Bucket | None:
    """Take a token of each limit there is; the limit that refuses, which costs the other nothing."""
    now = time.monotonic()
    if key is not None and not key.take(now):
        return key
    if model is not None and not model.take(now):
        if key is not None:
            key.tokens += 1.0
        return model
    return None


def refusal(bucket: Bucket) -> Refused:
    """429 with Retry-After and the RateLimit fields of draft-ietf-httpapi-ratelimit-headers-10."""
    kind, _, name = bucket.id.partition(":")
    quota, window = (math.floor(bucket.rate), 1) if bucket.rate >= 1 else (1, math.ceil(1 / bucket.rate))
    wait = bucket.wait_s()
    whose = "This key" if kind == "key" else f"The model {name}"
    refused = Refused.of(RateLimited, f"{whose} may be used {bucket.rate:g} times a second; try again in {wait} s.")
    refused.retry_after_s = wait
    refused.headers = (
        f'ratelimit-policy: "{kind}";q={quota};w={window}\r\nratelimit: "{kind}";r=0;t={wait}\r\n'.encode()
    )
    return refused


@dataclass(slots=True)
class Limits:
    """The limits of one worker. `workers`: how many share them, as far as is known, `local` of them in this router."""

    workers: int = 1
    local: int = 1
    mine: float = 1.0  # of this router's part
    waiting: bool = False  # until others have learnt of this worker
    buckets: dict[str, Bucket] = field(default_factory=dict[str, Bucket])  # by id: `key:<uuid>`, `model:<name>`
    wanted: frozenset[str] = frozenset()  # ids somebody is short of
    began: float = field(default_factory=time.monotonic)

    def bucket(self, limit_id: str, rate: float | None) -> Bucket | None:
        """The bucket of a limit, which keeps its tokens from one snapshot to the next; None: unlimited."""
        if rate is None:
            self.buckets.pop(limit_id, None)
            return None
        known = self.buckets.get(limit_id)
        now = time.monotonic()
        if known is None:
            known = self.buckets[limit_id] = Bucket(limit_id, rate, self.part, now, up_s=now - self.began)
        elif known.rate != rate:
            known.rate = rate
            known.share(self.part, now)
        return known

    @property
    def part(self) -> float:
        """Of each limit, that is this worker's."""
        return 0.0 if self.waiting else self.mine * self.local / max(self.workers, self.local)

    def asked(self) -> int:
        """Requests of limited keys and models since the last call."""
        buckets = self.buckets.values()
        count = sum(bucket.asked for bucket in buckets)
        for bucket in buckets:
            bucket.asked = 0
        return count

    def take_part(self, mine: float) -> None:
        """Another part of this router's than before."""
        if mine != self.mine:
            self.mine = mine
            self.share()

    def keep_only(self, ids: set[str]) -> None:
        for gone in self.buckets.keys() - ids:
            del self.buckets[gone]

    def share(self) -> None:
        now = time.monotonic()
        for bucket in self.buckets.values():
            bucket.share(self.part, now)

    def offers(self) -> Iterator[bus.Offer]:
        now = time.monotonic()
        for bucket in self.buckets.values():
            if (offer := bucket.offer(now, wanted=bucket.id in self.wanted)) is not None:
                yield offer

    def granted(self, tokens: Mapping[str, float]) -> None:
        for limit_id, number in tokens.items():
            if limit_id in self.buckets:
                self.buckets[limit_id].granted(number)

    @property
    def short(self) -> bool:
        return any(bucket.short for bucket in self.buckets.values())


class Trader:
    """Keeps a worker's limits in step with everybody else's, through Redis."""

    def __init__(self, limits: Limits, redis: Redis, worker: str, file: Path) -> None:
        self._limits, self._redis, self._worker, self._file = limits, redis, worker, file
        self._fewer_since: float | None = None
        self._lost = False
        with suppress(OSError, ValueError):
            limits.workers = max(limits.workers, int(file.read_text()))

    async def run(self) -> None:
        """For ever. While Redis is dead every worker keeps the share it had."""
        while True:
            if not self._limits.buckets:
                await asyncio.sleep(TICK_S)
                continue
            try:
                await self.trade()
                self._lost = False
            except BusUnavailable as exc:
                if not self._lost:
                    _log.warning("limits.alone", workers=self._limits.workers, error=str(exc))
                self._lost = True
            except Exception:  # noqa: BLE001  (each worker has its share, whatever happens here)
                _log.exception("limits.failed")
                self._lost = True
            await self._pause()

    async def trade(self) -> None:
        """Give what runs over, take what is missing, learn how many we are."""
        limits = self._limits
        traded = await bus.trade(self._redis, self._worker, list(limits.offers()))
        limits.granted(traded.granted)
        limits.wanted = traded.wanted
        if traded.newcomer and traded.workers > 1:
            # The others fill at their old, larger shares until they have learnt of this worker.
            limits.waiting = True
            limits.share()
            await asyncio.sleep(2 * TICK_S)
            self._settle(max(traded.workers, limits.workers))
        elif traded.workers >= limits.workers:
            self._fewer_since = None
            if traded.workers > limits.workers:
                self._settle(traded.workers)
        else:
            now = time.monotonic()
            self._fewer_since = self._fewer_since or now
            if now - self._fewer_since >= SHRINK_S:
                self._settle(traded.workers)

    async def leave(self) -> None:
        """Leave our share to the others: a worker that ends in order is not counted any more."""
        with suppress(BusUnavailable):
            await bus.leave(self._redis, self._worker)

    def _settle(self, workers: int) -> None:
        self._fewer_since = None
        self._limits.workers, self._limits.waiting = workers, False
        self._limits.share()
        fresh = self._file.with_name(f"{self._file.name}.{os.getpid()}")
        with suppress(OSError):  # a full disk: a router that starts with Redis dead will divide by its own workers
            fresh.write_text(str(workers))
            fresh.rename(self._file)

    async def _pause(self) -> None:
        for _ in range(round(TICK_S / HURRY_S)):
            await asyncio.sleep(HURRY_S)
            if self._limits.short and not self._lost:
                return
