"""Waiting for company: between two batches a busy worker looks at its model servers only.

Who is served at once is served alone, and alone a prediction costs five to ten times what it costs in a batch
(docs/explanation/serving-benchmark.md). So where enough come while it waits, a worker rests after it has sent a batch:
its thread sleeps until a model server has answered or the rest is over, and what has come from clients meanwhile leaves
together. Answers never wait.
"""

import asyncio
import select
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Final, Protocol

from control_plane.domain import sharing

LOOK_S: Final = 0.05


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
        self.number = 0  # of the present rest; 0: there is none. A pool sends one batch in each
        self._traffic, self._pending = traffic, pending
        self._loop = asyncio.get_running_loop()
        self._lines = select.epoll()
        self._waiting: dict[Waits, None] = {}
        self._seconds = self._until = 0.0
        self._begun = 0
        self._looked = time.monotonic()

    def look(self) -> None:
        """Every LOOK_S: decide how long the rests are until the next look."""
        now, traffic = time.monotonic(), self._traffic
        took, self._looked = max(now - self._looked, 1e-3), now
        self._seconds = sharing.rest_s(traffic.asked / took, traffic.connections, traffic.peak)
        traffic.again()

    def watch(self, descriptor: int) -> None:
        """A connection to a model server, until it is closed: what comes on it ends the sleep."""
        with suppress(FileExistsError):
            self._lines.register(descriptor, select.EPOLLIN)

    def begin(self) -> int:
        """A batch has left: the number of the rest this begins, or that it left in. -1: there is none."""
        if not self.number:
            if not self._seconds:
                return -1
            self._begun += 1
            self.number = self._begun
            self._until = time.monotonic() + self._seconds
            self._soon()
        return self.number

    def hold(self, pool: Waits) -> None:
        """Tell `pool` when the rest is over."""
        self._waiting[pool] = None

    def close(self) -> None:
        self._seconds = 0.0
        self._lines.close()

    def _soon(self) -> None:
        """After the loop has written what is to be written, and read what is there."""
        self._loop.call_soon(self._loop.call_soon, self._sleep)

    def _sleep(self) -> None:
        if self._pending():
            self._soon()
            return
        left = self._until - time.monotonic()
        if left > 0 and not self._lines.closed:
            answered, _, _ = select.select([self._lines], [], [], left)  # to a microsecond; epoll itself to a thousand
            if answered:
                self._soon()
                return
        self._loop.call_soon(self._end)  # when the clients have been read

    def _end(self) -> None:
        self.number = 0
        waiting, self._waiting = self._waiting, {}
        for pool in waiting:
            pool.go_on()
