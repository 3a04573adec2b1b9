"""Requests that arrive in one event-loop tick share one call of the model.

A call has a fixed cost worth several rows (133 us for 1 row of a 100-tree ensemble, 208 us for 64), so this is where
throughput comes from. A tick takes at most 64 rows and aims at 2 ms: other connections are read in between.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Final

from model_servers.runtime.features import Row
from model_servers.runtime.problems import Refused
from model_servers.runtime.request import Request

MOST_ROWS: Final = 64
BUDGET_S: Final = 0.002
_HURRY: Final = MOST_ROWS  # rows waiting: more than one call can take
_MOST_WAITING: Final = 1_024  # more are shed: they would wait longer than anyone's deadline


class Batcher:
    def __init__(
        self,
        answers: Callable[[Sequence[Row], bool], list[bytes]],
        *,
        failed: Callable[[Request, Exception], Refused],
        observe: Callable[[float, int], None],
        most_rows: int = MOST_ROWS,
        budget_s: float | None = BUDGET_S,
        clock: Callable[[], float] = time.perf_counter,
        spent: Callable[[], float] = time.thread_time,
    ) -> None:
        """`answers(rows, hurried)`: hurried while many wait, when whatever is not the answer itself is to be left out.
        `observe(seconds, rows)` hears of every call. `budget_s` None: the call's cost does not depend on rows."""
        self._answers = answers
        self._failed = failed
        self._observe = observe
        self._most = self._limit = most_rows
        self._budget_s = budget_s
        self._rows: list[Row] = []
        self._requests: list[Request] = []
        self._clock, self._spent = clock, spent
        self._loop = asyncio.get_running_loop()

    def add(self, row: Row, request: Request) -> None:
        """Answers `request` within this tick or one of the next. Raises Refused (503) when too many wait."""
        if not self._rows:
            self._loop.call_soon(self._flush)
        elif len(self._rows) >= _MOST_WAITING:
            raise Refused(503, "overloaded", "Too many requests at once", f"{_MOST_WAITING} rows wait already.")
        self._rows.append(row)
        self._requests.append(request)

    def _flush(self) -> None:
        rows, requests = self._rows, self._requests
        hurried = len(rows) > _HURRY
        limit = self._most if hurried else self._limit
        if len(rows) > limit:
            self._rows, self._requests = rows[limit:], requests[limit:]
            rows, requests = rows[:limit], requests[:limit]
            self._loop.call_soon(self._flush)
        else:
            self._rows, self._requests = [], []
        started, spent = self._clock(), self._spent()
        try:
            bodies = self._answers(rows, hurried)
        except Exception as exc:  # noqa: BLE001  (one row's failure is not its neighbours')
            self._one_by_one(rows, requests, exc)
            return
        took, spent = self._clock() - started, self._spent() - spent
        for request, body in zip(requests, bodies, strict=True):
            request.respond(200, body)
        self._observe(took, len(rows))
        if self._budget_s is not None and not hurried:
            # Processor time: on a busy machine a call is interrupted, and smaller ones would only cost more of it.
            self._adapt(len(rows), spent, self._budget_s)

    def _one_by_one(self, rows: list[Row], requests: list[Request], exc: Exception) -> None:
        if len(rows) == 1:
            requests[0].refuse(self._failed(requests[0], exc))
            return
        for row, request in zip(rows, requests, strict=True):
            started = self._clock()
            try:
                (body,) = self._answers([row], False)
            except Exception as single:  # noqa: BLE001
                request.refuse(self._failed(request, single))
            else:
                request.respond(200, body)
                self._observe(self._clock() - started, 1)

    def _adapt(self, rows: int, took: float, budget_s: float) -> None:
        """Follow the budget: shrink in proportion when a call overran it, double when a full one stayed below half."""
        if took > budget_s and rows > 1:
            self._limit = max(1, min(self._limit, int(rows * budget_s / took)))
        elif rows >= self._limit and took < budget_s / 2:
            self._limit = min(self._most, self._limit * 2)
