"""Waiting for company: between two batches a busy worker looks at its model servers only.

Who is served at once is served alone, and alone a prediction costs five to ten times what it costs in a batch
(docs/explanation/serving-benchmark.md). So where enough come while it waits, a worker rests after it has sent a batch:
its thread sleeps until a model server has answered or the rest is over, and what has come from clients meanwhile leaves
together. Answers never wait.

Clients of which each waits for its answer before it asks again come together once they have been answered, but not at
the same moment: sent at once, the first would be a batch of their own. They make rounds: a rest is over when all that
left in it is answered and all of them have asked again, which a few short sleeps are given to.
"""

import asyncio
import select
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from control_plane.domain import sharing
from control_plane.domain.sharing import Rests

LOOK_S: Final = 0.05
_SLACK: Final = Path("/proc/self/timerslack_ns")


def sleep_precisely() -> None:
    """The kernel may end the sleeps of this thread, which is the process' first, 1 us late instead of 50."""
    with suppress(OSError):
        _SLACK.write_text("1000")


@dataclass(slots=True)
class Traffic:
    """What the clients of one worker did since the last look. Connections count themselves once per `window`."""

    window: int = 0
    asked: int = 0
    connections: int = 0  # that asked
    under_way: int = 0
    peak: int = 0  # most under way at once

    def again(self) -> None:
        self.window += 1
        self.asked = self.connections = 0
        self.peak = self.under_way


class Waits(Protocol):
    def go_on(self) -> None:
        """The rest is over."""
        ...


class Rest:
    """Of one worker. `pending()`: whether an answer is about to leave, which no rest may hold up."""

    def __init__(self, traffic: Traffic, pending: Callable[[], bool]) -> None:
        self._traffic, self._pending = traffic, pending
        self._loop = asyncio.get_running_loop()
        self._lines = select.epoll()
        self._rests = Rests()  # until the next look
        self._looked = time.monotonic()
        self._now: Rests | None = None  # the present one
        self._until = 0.0
        self._under_way: set[object] = set()  # lines with a batch that left at its beginning
        self._gaps = self._before = 0
        self._waiting: dict[Waits, None] = {}

    def look(self) -> None:
        """Every LOOK_S: decide how to rest until the next look."""
        now, traffic = time.monotonic(), self._traffic
        took, self._looked = max(now - self._looked, 1e-3), now
        self._rests = sharing.rests(traffic.asked / took, traffic.connections, traffic.peak)
        traffic.again()

    def watch(self, descriptor: int) -> None:
        """A connection to a model server, until it is closed: what comes on it ends the sleep."""
        with suppress(FileExistsError):
            self._lines.register(descriptor, select.EPOLLIN)

    def begin(self, line: object) -> None:
        """A batch has left on `line`. The first one after a rest begins the next."""
        if self._now is None:
            if not self._rests.seconds:
                return
            self._now, self._gaps = self._rests, 0
            self._until = time.monotonic() + self._rests.seconds
            self._under_way.clear()
            self._soon()
        self._under_way.add(line)

    def holds(self, pool: Waits) -> bool:
        """Whether the next batch of `pool` has to wait. It is told to go on."""
        if self._now is None:
            return False
        self._waiting[pool] = None
        return True

    def answered(self, line: object) -> None:
        """Nothing is under way on `line`."""
        self._under_way.discard(line)

    def close(self) -> None:
        self._rests = Rests()
        self._lines.close()

    def _soon(self) -> None:
        """After the loop has written what is to be written, and read what is there."""
        self._loop.call_soon(self._loop.call_soon, self._sleep)

    def _sleep(self) -> None:
        if self._pending():
            self._soon()
            return
        assert self._now is not None
        left = self._left_s(self._now)
        if left > 0 and not self._lines.closed:
            answered, _, _ = select.select([self._lines], [], [], left)  # to a microsecond; epoll itself to a thousand
            if answered or self._now.everybody:
                self._soon()
                return
        self._loop.call_soon(self._end)  # when the clients have been read

    def _left_s(self, now: Rests) -> float:
        """Of the present rest, or of the next part of a round."""
        if self._under_way or not now.everybody:
            return self._until - time.monotonic()
        came = self._traffic.under_way
        if not now.wait(came, self._before, self._gaps):
            return 0.0
        self._gaps, self._before = self._gaps + 1, came
        return sharing.GAP_S

    def _end(self) -> None:
        self._now = None
        waiting, self._waiting = self._waiting, {}
        for pool in waiting:
            pool.go_on()
