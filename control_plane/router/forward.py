"""One prediction: assign, call, fall back once, record, answer. Callbacks all the way: no task, no future.

Whatever happens, the client gets one answer and the spool one record, and the record is written before the answer
leaves. An assigned unit that is not answered leaves a record too.
"""

import time
from collections.abc import Callable
from typing import Final

from msgspec.json import encode

from control_plane.contracts.records import Status
from control_plane.errors import (
    ControlPlaneError,
    DeadlineExceeded,
    Forbidden,
    NotFound,
    Overloaded,
    TargetUnavailable,
)
from control_plane.router import answers, limits, shadows
from control_plane.router import body as bodies
from control_plane.router.auth import Grant, Keys
from control_plane.router.problems import Refused
from control_plane.router.request import Request
from control_plane.router.routes import Arm, Route
from control_plane.router.tools import Tools
from control_plane.router.upstream import Failure

FIRST_SHARE: Final = 0.6  # of the deadline for an arm that has a fallback, which gets the rest
NOTED_S: Final = 30.0  # how exact it has to be when a version was last asked for
QUICK_S: Final = 0.05  # how long a refused connection is tried again where there is a fallback


class Predict:
    """POST /ml/{model}/predict of one snapshot."""

    streams = False

    def __init__(self, route: Route, keys: Keys, tools: Tools, prediction: "MakePrediction | None" = None) -> None:
        """`prediction`: makes the prediction of a request, where something more is to happen with some of them."""
        self.max_body = route.source.max_body_bytes
        self._route, self._keys, self._tools = route, keys, tools
        self._prediction = prediction or Prediction

    def handle(self, request: Request) -> None:
        started = time.perf_counter()
        route, headers = self._route, request.headers
        grant = self._keys.grant(headers.get(b"authorization"), route.name)
        body = bodies.parse(request.body)
        unit = unit_bytes(route, request, body)
        arm, pinned = choose(route, grant, body.model_version, unit)
        prediction = self._prediction(self._tools, route, request, body, started)
        if unit is not None:
            prediction.unit = unit
        prediction.start(arm, pinned=pinned)


def unit_bytes(route: Route, request: Request, body: bodies.Body) -> bytes | None:
    """The assignment unit: of the body, else of the header, else of the feature that names it; None: unassigned."""
    if body.unit_id is not None:
        return bodies.checked_unit(body.unit_id, "unit_id")
    if (header := request.headers.get(b"x-unit-id")) is not None:
        return bodies.checked_unit(bodies.unit_of_header(header), "X-Unit-Id")
    if route.unit_of is not None and (unit := route.unit_of(body.features)):
        return bodies.checked_unit(unit, f"features.{route.source.unit}")
    return None


def choose(route: Route, grant: Grant, version: str | int | None, unit: bytes | None) -> tuple[Arm, bool]:
    """The arm of a request, and whether a version was pinned, by the request or by an operator.

    Raises:
        Refused: 429 beyond the rate limit of the key or the model, 403 for a version without the scope, 404 for one
            that is not among the ready targets, 503 for one that this starts, or where nothing is routed.
    """
    if grant.limit is not None or route.limit is not None:
        full = limits.admit(grant.limit, route.limit)
        if full is not None:
            route.limited(full.id.partition(":")[0])
            raise limits.refusal(full)
    if version is not None and version != "latest":
        if not grant.pin:
            raise Refused.of(Forbidden, "model_version needs a key with the scope predict:pin.")
        named = route.source.aliases.get(str(version), str(version))
        arm = route.by_version.get(named)
        if arm is not None:
            now = time.time()
            if now - route.asked.get(named, 0.0) > NOTED_S:
                route.asked[named] = now
        elif named in route.source.sleeping:
            route.asked[named] = time.time()
            detail = f"Version {named} of {route.name} was stopped, since nobody had asked for it; it is being started."
            raise Refused.of(TargetUnavailable, detail)
        else:
            known = sorted({*route.by_version, *route.source.aliases})
            detail = f"{route.name} has no ready version {str(version)[:100]!r}; there are {', '.join(known)}."
            raise Refused.of(NotFound, detail)
        return arm, True
    if route.pinned_to is not None:
        return route.pinned_to, True
    if route.default is None:
        raise Refused.of(TargetUnavailable, f"No version of {route.name} is routed yet.")
    return (route.default if unit is None else route.arm_of(unit)), False


class Prediction:
    """One request from assignment to answer. It is its own `upstream.Call`."""

    __slots__ = (
        "_arm",
        "_assigned",
        "_body",
        "_document",
        "_fallback",
        "_id",
        "_kind",
        "_pinned",
        "_received_us",
        "_refused",
        "_request",
        "_route",
        "_started",
        "_tools",
        "deadline",
        "patience",
        "request",
        "unit",
    )

    def __init__(self, tools: Tools, route: Route, request: Request, body: bodies.Body, started: float) -> None:
        self._tools, self._route, self._request, self._body, self._started = tools, route, request, body, started
        self._received_us = time.time_ns() // 1000
        self._id = tools.fresh_id()
        self._fallback: str | None = None  # why another arm than the assigned one answers
        self._refused: Refused | None = None
        self._document = b""  # the answer, kept until the record is written
        self._kind: Status = "ok"
        self.unit: bytes | None = None
        header = request.headers.get(b"x-request-id")
        if body.request_id is not None:
            bodies.checked_request_id(body.request_id)
        elif header is not None:
            body.request_id = header.decode("ascii", "replace")[: bodies.REQUEST_ID_LIMIT]

    def start(self, arm: Arm, *, pinned: bool) -> None:
        route = self._route
        self._arm = self._assigned = arm
        self._pinned = pinned
        if route.load.in_flight >= route.load.limit:
            self._tools.meter.shed(route.name)
            detail = f"{route.load.in_flight} predictions of {route.name} are under way already."
            self._give_up("shed", Overloaded, detail)
            return
        route.load.in_flight += 1
        now = self._tools.loop.time()
        self.deadline = now + route.deadline_s
        fallback = route.fallback
        if fallback is None or pinned or fallback.target is arm.target:
            self.patience = self.deadline
        else:
            self.patience = now + QUICK_S
            self.deadline = now + route.deadline_s * FIRST_SHARE
        self._call(now)

    def _call(self, now: float) -> None:
        arm = self._arm
        if not arm.server.breaker.allows(now):
            self._not_answered("open")
            return
        data = self._request.body
        self.request = b"%b%d\r\n\r\n%b" % (arm.head, len(data), data)
        arm.server.pool.submit(self)

    # upstream.Call

    def answered(self, status: int, body: bytes) -> None:
        try:
            if status == 200:
                self._answered_ok(body)
            elif status in answers.REFUSALS:
                self._arm.server.breaker.succeeded()
                self._answered_refusal(status, body)
            else:
                self._arm.server.breaker.failed(self._tools.loop.time())
                self._not_answered("error")
        except Exception as exc:  # noqa: BLE001  (the connection this is called from serves others too)
            self._crashed(exc)

    def failed(self, reason: Failure) -> None:
        try:
            self._arm.server.breaker.failed(self._tools.loop.time())
            self._not_answered(reason)
        except Exception as exc:  # noqa: BLE001
            self._crashed(exc)

    def _answered_ok(self, data: bytes) -> None:
        arm = self._arm
        answer = answers.parse(data)
        if answer is None:
            arm.server.breaker.failed(self._tools.loop.time())
            self._not_answered("error")
            return
        arm.server.breaker.succeeded()
        tail = answers.tail(answer)
        record = self._record("ok", arm, b',"output":%b%b' % (answer.output, tail))
        request_id = self._body.request_id
        self._document = b'{"prediction_id":"%b"%b%b,"output":%b%b%b' % (
            self._id,
            arm.answer,
            b"" if request_id is None else b',"request_id":%b' % encode(request_id),
            answer.output,
            tail,
            b',"reasons":%b' % answer.reasons if answer.reasons else b"",
        )
        self._tools.spool.append(record, self._logged)

    def _answered_refusal(self, status: int, data: bytes) -> None:
        """The server refuses the body. What stable accepts, a candidate has to accept."""
        if self._fall_back("4xx"):
            return
        self._kind = "invalid"
        self._refused = answers.refusal(status, data)
        self._tools.spool.append(self._record("invalid", self._arm, b""), self._logged)

    def _not_answered(self, reason: str) -> None:
        if self._fall_back(reason):
            return
        name = self._route.name
        if reason == "deadline":
            self._route.load.late += 1
            detail = f"No model server of {name} answered within {self._route.source.deadline_ms} ms."
            self._give_up("timeout", DeadlineExceeded, detail)
        else:
            self._give_up("error", TargetUnavailable, f"No model server of {name} can answer now.")

    def _fall_back(self, reason: str) -> bool:
        """Ask stable instead, once. False where that is not possible."""
        fallback = self._route.fallback
        if fallback is None or self._pinned or self._fallback is not None or fallback.target is self._arm.target:
            return False
        self._fallback = reason
        self._arm = fallback
        self._tools.meter.fell_back(self._route.name, reason)
        now = self._tools.loop.time()
        whole = self._route.deadline_s
        self.deadline = self.patience = now + max(whole - (time.perf_counter() - self._started), whole * 0.1)
        self._call(now)
        return True

    def _give_up(self, status: Status, kind: type[ControlPlaneError], detail: str) -> None:
        self._kind = status
        self._refused = Refused.of(kind, detail, prediction_id=self._id.decode())
        self._tools.spool.append(self._record(status, None, b""), self._logged)

    def _record(self, status: Status, served: Arm | None, answer: bytes) -> bytes:
        """The prediction record: see contracts.records. `answer`: further members, with their comma."""
        unit, body = self.unit, self._body
        extra = self._who()
        if self._fallback is not None:
            extra += b',"fallback_reason":"%b"' % self._fallback.encode()
        if self._pinned:
            extra += b',"pinned":true'
        elif unit is not None:
            extra += self._assigned.assigned
        return answers.record(
            self._id,
            status,
            self._received_us,
            self._started,
            route=self._route.common,
            served=b"" if served is None else served.served,
            extra=extra,
            features=body.features,
            answer=answer,
        )

    def _who(self) -> bytes:
        unit, request_id = self.unit, self._body.request_id
        members = b"" if unit is None else b',"unit_id":%b' % encode(unit.decode())
        return members if request_id is None else members + b',"request_id":%b' % encode(request_id)

    def _logged(self, logged: bool) -> None:
        """The record is written, or the disk refused it: now the answer leaves."""
        route, kind = self._route, self._kind
        if kind != "shed":
            route.load.in_flight -= 1
        if not logged:
            self._tools.meter.unlogged(route.name)
        if self._refused is None:
            self._request.respond(200, self._document + (b"}" if logged else b',"logged":false}'))
            self._arm.counted.inc()
            route.timings.observe(time.perf_counter() - self._started)
            if route.shadows:
                shadows.copy(self._tools, route, self._body, self._who(), self._request.body, self._id)
            return
        self._request.refuse(self._refused)
        arm = self._arm if kind == "invalid" else None
        variant, version = (arm.variant, arm.target.version) if arm is not None else (None, None)
        self._tools.meter.predictions(route.name, kind, variant, version).inc()

    def _crashed(self, exc: Exception) -> None:
        self._route.load.in_flight -= 1
        self._request.refuse(Refused.crashed(self._request.path, exc, self._request.headers.get(b"x-request-id")))


MakePrediction = Callable[[Tools, Route, Request, bodies.Body, float], Prediction]
