"""The Open Inference Protocol's paths of one model server: health, metadata and infer, on the main socket.

A row of a tensor request is a row like any other: it passes the same decoder, which counts what is unseen or out of
range, and shares calls of the model with the requests that wait beside it.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import msgspec

from model_servers import oip
from model_servers.oip import Malformed
from model_servers.runtime import schema, traces
from model_servers.runtime.batching import Batcher
from model_servers.runtime.engine import Engine
from model_servers.runtime.features import Decoder
from model_servers.runtime.problems import Refused
from model_servers.runtime.request import JSON, Request, Route, Routes
from model_servers.runtime.spec import Spec

if TYPE_CHECKING:
    from opentelemetry.trace import Tracer

BINARY = b"application/octet-stream"


class Tensors:
    """One model's side of the protocol."""

    def __init__(
        self, spec: Spec, engine: Engine, decoder: Decoder, batcher: Batcher, tracer: "Tracer | None" = None
    ) -> None:
        self._spec, self._decoder, self._batcher = spec, decoder, batcher
        self._infer = self.infer if tracer is None else traces.traced(tracer, "infer", self.infer)
        declared = {given.name: given for given in oip.declared(schema.request(spec.config))}
        self._inputs = tuple(declared[name] for name in engine.features)
        explains = spec.config.serving.explain == "top" and spec.runtime == "native"
        self._metadata = oip.metadata(spec.model, [spec.version], self._inputs, spec.config.problem, reasons=explains)

    def routes(self, check_ready: Callable[[], None]) -> Routes:
        """`check_ready` raises Refused until the model is ready."""

        def get(body: bytes, check: Callable[[], None] = lambda: None) -> dict[bytes, Route]:
            def answer(request: Request) -> None:
                check()
                request.respond(200, body)

            return {b"GET": Route(answer)}

        server = {"name": "mlcp-model-server", "version": self._spec.version, "extensions": ["binary_tensor_data"]}
        of_model = msgspec.json.encode({"name": self._spec.model, "ready": True})
        made: dict[bytes, dict[bytes, Route]] = {
            b"/v2": get(msgspec.json.encode(server)),
            b"/v2/health/live": get(b'{"live":true}'),
            b"/v2/health/ready": get(b'{"ready":true}', check_ready),
        }
        model = f"/v2/models/{self._spec.model}"
        for base in (model.encode(), f"{model}/versions/{self._spec.version}".encode()):
            made |= {
                base: get(self._metadata),
                base + b"/ready": get(of_model, check_ready),
                base + b"/infer": {b"POST": Route(self._infer, self._spec.max_body_bytes, together=True)},
            }
        return made

    def infer(self, request: Request) -> None:
        """Raises Refused: 400 with every reason."""
        try:
            asked = oip.decode(request.body, request.header_length)
            rows = oip.rows(asked.inputs or [], self._inputs)
        except Malformed as exc:
            raise malformed(exc) from None
        bodies = [msgspec.json.encode({"features": row}) for row in rows]
        decoded = [self._decoder.row(body) for body in bodies]
        gathered = _Gathered(request, self._spec, asked, len(rows))
        for number, row in enumerate(decoded):
            one = _Row(request, gathered, number)
            try:
                self._batcher.add(row, one)
            except Refused as refused:
                one.refuse(refused)


class _Gathered:
    """The answers to the rows of one request, until there are all of them."""

    def __init__(self, request: Request, spec: Spec, asked: oip.Message, count: int) -> None:
        self._request, self._spec, self._asked = request, spec, asked
        self._answers: list[dict[str, Any]] = [{}] * count
        self._refused: dict[int, Refused] = {}
        self._left = count

    def done(self, number: int, body: bytes | Refused) -> None:
        if isinstance(body, Refused):
            self._refused[number] = body
        else:
            self._answers[number] = msgspec.json.decode(body)
        self._left -= 1
        if self._left:
            return
        if self._refused:
            self._request.refuse(self._refused[min(self._refused)])
            return
        try:
            made, length = oip.response(
                self._spec.model, self._spec.version, self._asked, oip.answer_tensors(self._answers)
            )
        except Malformed as exc:
            self._request.refuse(malformed(exc))
            return
        if length is None:
            self._request.respond(200, made)
        else:
            self._request.respond(200, made, BINARY, b"%b: %d\r\n" % (oip.HEADER_LENGTH, length))


class _Row(Request):
    """One row of a request, answered like a request of its own."""

    __slots__ = ("_gathered", "_number")

    def __init__(self, whole: Request, gathered: _Gathered, number: int) -> None:
        super().__init__(whole.connection)
        self.path = whole.path
        self._gathered, self._number = gathered, number

    def respond(self, status: int, body: bytes, content_type: bytes = JSON, extra: bytes = b"") -> None:
        self._gathered.done(self._number, body)

    def refuse(self, refused: Refused) -> None:
        self._gathered.done(self._number, refused)


def malformed(exc: Malformed) -> Refused:
    return Refused(400, "invalid-input", "Input cannot be used", "The request does not fit the protocol.", exc.reasons)
