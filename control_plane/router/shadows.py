"""Shadow copies: requests sent to a version that answers nobody. They have a budget of their own."""

import time
from typing import Final

from control_plane.contracts.records import Status
from control_plane.domain.assignment import BUCKETS
from control_plane.router import answers
from control_plane.router.body import Body
from control_plane.router.routes import Arm, Route
from control_plane.router.tools import Tools
from control_plane.router.upstream import Failure

_OTHER: Final = {b"%x" % digit: b"%x" % (digit ^ 1) for digit in range(16)}
BUDGET: Final = 16  # copies under way per target in one worker; more are dropped


class ShadowCall:
    """One copy. Its answer goes to the log and to nobody else."""

    def __init__(
        self, tools: Tools, route: Route, arm: Arm, body: Body, members: bytes, data: bytes, of: bytes
    ) -> None:
        self._id = of[:-1] + _OTHER[of[-1:]]
        self.request = b"%b%d\r\n\r\n%b" % (arm.head, len(data), data)
        now = tools.loop.time()
        self.deadline, self.patience = now + route.deadline_s, now
        self._tools, self._route, self._arm, self._body, self._members = tools, route, arm, body, members
        self._started, self._received_us = time.perf_counter(), time.time_ns() // 1000
        arm.server.shadowing += 1
        arm.server.pool.submit(self)

    def answered(self, status: int, body: bytes) -> None:
        breaker = self._arm.server.breaker
        answer = answers.parse(body) if status == 200 else None
        if answer is not None:
            breaker.succeeded()
            self._end("ok", b',"output":%b%b' % (answer.output, answers.tail(answer)))
        elif status in answers.REFUSALS:
            breaker.succeeded()
            self._end("invalid", b"")
        else:
            breaker.failed(self._tools.loop.time())
            self._end("error", b"")

    def failed(self, reason: Failure) -> None:
        self._arm.server.breaker.failed(self._tools.loop.time())
        self._end("timeout" if reason == "deadline" else "error", b"")

    def _end(self, status: Status, answer: bytes) -> None:
        arm, tools = self._arm, self._tools
        arm.server.shadowing -= 1
        record = answers.record(
            self._id,
            status,
            self._received_us,
            self._started,
            route=self._route.common,
            served=arm.served,
            extra=self._members + b',"shadow":true',
            features=self._body.features,
            answer=answer,
        )
        tools.spool.append(record, _ignore)
        tools.meter.predictions(self._route.name, status, "shadow", arm.target.version).inc()


def copy(tools: Tools, route: Route, body: Body, members: bytes, data: bytes, of: bytes) -> None:
    """Send `data` to shadows, as often as their weight and their budget allow. `members`: unit and request id.

    `of`: the id of the prediction that is copied. The copy's differs in the last bit, which is how the two are found.
    """
    for weight, arm in route.shadows:
        lot = int(of[-8:], 16) % BUCKETS  # the end of an id is random
        if lot < weight and arm.server.shadowing < BUDGET and arm.server.breaker.allows(tools.loop.time()):
            ShadowCall(tools, route, arm, body, members, data, of)


def _ignore(logged: bool) -> None:
    """Nobody waits for a shadow's record."""
