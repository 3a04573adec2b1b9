"""A prediction that is traced: its span begins with the request, its id goes on to the model server."""

from control_plane.adapters.otel import Span, Tracer
from control_plane.router import body as bodies
from control_plane.router.forward import MakePrediction, Prediction
from control_plane.router.request import Request
from control_plane.router.routes import Route
from control_plane.router.tools import Tools


class Traced(Prediction):
    """Only what is sampled is one of these; every other prediction pays nothing."""

    __slots__ = ("_span",)

    def __init__(
        self, span: Span, tools: Tools, route: Route, request: Request, body: bodies.Body, started: float
    ) -> None:
        super().__init__(tools, route, request, body, started)
        self._span = span

    def _call(self, now: float) -> None:
        arm = self._arm
        if not arm.server.breaker.allows(now):
            self._not_answered("open")
            return
        data = self._request.body
        self.request = b"%b%d\r\ntraceparent: %b\r\n\r\n%b" % (arm.head, len(data), self._span.traceparent, data)
        arm.server.pool.submit(self)

    def _logged(self, logged: bool) -> None:
        super()._logged(logged)
        refused = self._refused
        attributes: dict[str, str | int | bool] = {
            "mlcp.model": self._route.name,
            "mlcp.prediction_id": self._id.decode(),
            "mlcp.status": self._kind,
            "mlcp.assigned_version": self._assigned.target.version,
            "mlcp.logged": logged,
        }
        if refused is None:
            attributes |= {"mlcp.served_version": self._arm.target.version, "mlcp.variant": self._arm.variant}
        if self._fallback is not None:
            attributes["mlcp.fallback_reason"] = self._fallback
        if self._body.request_id is not None:
            attributes["mlcp.request_id"] = self._body.request_id
        self._span.end(200 if refused is None else refused.status, attributes)

    def _crashed(self, exc: Exception) -> None:
        super()._crashed(exc)
        self._span.end(500, {"mlcp.model": self._route.name, "mlcp.prediction_id": self._id.decode()})


def predictions(tracer: Tracer) -> MakePrediction:
    """What makes a prediction of each request: a traced one of those that are sampled."""

    def make(tools: Tools, route: Route, request: Request, body: bodies.Body, started: float) -> Prediction:
        span = tracer.begin(f"predict {route.name}", request.headers.get(b"traceparent"))
        if span is None:
            return Prediction(tools, route, request, body, started)
        return Traced(span, tools, route, request, body, started)

    return make
