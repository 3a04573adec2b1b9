"""The routes of a model server, and what each does with a request."""

import logging
from uuid import uuid4

import msgspec

from model_servers.runtime import batch, logs, problems, schema, traces
from model_servers.runtime.batching import BUDGET_S, MOST_ROWS, Batcher
from model_servers.runtime.engine import Engine
from model_servers.runtime.features import Decoder
from model_servers.runtime.metrics import CONTENT_TYPE, Metrics
from model_servers.runtime.oip import Tensors
from model_servers.runtime.problems import Refused
from model_servers.runtime.request import Request, Route, Routes
from model_servers.runtime.spec import Spec

_log = logging.getLogger(__name__)
_WARM_UP = 20  # calls, after which pages are mapped and caches filled


class App:
    """One worker's application. Made inside its event loop; `warm_up` before the first request."""

    def __init__(self, spec: Spec, engine: Engine, metrics: Metrics) -> None:
        self._spec = spec
        self._engine = engine
        self._metrics = metrics
        self._tracer = traces.tracer(spec.model, spec.version)
        self._decoder = Decoder(engine.features, metrics.warn)
        recorded = engine.recorded_example()
        example = schema.example(spec.config, recorded)
        identity = {"model": spec.model, "version": spec.version, "digest": spec.digest}
        self._identity = msgspec.json.encode(identity)
        self._schema = msgspec.json.encode(
            {
                "features": list(engine.features),
                "example": example,
                "request_schema": schema.request(spec.config, recorded),
                "answer_schema": schema.answer(spec.config),
                "problem": spec.config.problem,
                "problem_words": schema.problem_words(spec.config),
                "owner": spec.config.owner,
                "purpose": spec.config.purpose,
            }
        )
        self._example = msgspec.json.encode(example)
        self._ready = False

    def routes(self) -> Routes:
        """Of the main socket: what is small and quick."""
        native = self._spec.runtime == "native"
        batcher = Batcher(
            self._engine.answers,
            failed=failed,
            observe=self._metrics.observe,
            most_rows=MOST_ROWS if self._engine.rows_at_once else 1,
            budget_s=BUDGET_S if native else None,
        )
        row, add = self._decoder.row, batcher.add

        def predict(request: Request) -> None:
            add(row(request.body, request.siblings), request)

        tensors = Tensors(self._spec, self._engine, self._decoder, batcher, self._tracer)
        handle = predict if self._tracer is None else traces.traced(self._tracer, "infer", predict)
        return {
            b"/predict": {b"POST": Route(handle, self._spec.max_body_bytes, together=True)},
            **self._common(),
            **tensors.routes(self.check_ready),
        }

    def aux_routes(self) -> Routes:
        """Of the aux socket: what may take long, in a process of its own."""
        rows = batch.Batch(self._spec, self._engine, self._metrics.warn, failed)
        return {
            b"/explain": {b"POST": Route(self.explain, self._spec.max_body_bytes)},
            b"/batch_predict": {b"POST": Route(rows.handle, streams=True)},
            **self._common(),
        }

    def _common(self) -> Routes:
        return {
            b"/live": {b"GET": Route(lambda request: request.respond(200, b'{"live":true}'))},
            b"/ready": {b"GET": Route(self.ready)},
            b"/schema": {b"GET": Route(lambda request: request.respond(200, self._schema))},
            b"/metrics": {
                b"GET": Route(lambda request: request.respond(200, self._metrics.exposition(), CONTENT_TYPE))
            },
        }

    def warm_up(self) -> None:
        """Predict the example. A model that fails on it is logged and served all the same: other rows may fit it."""
        try:
            row = self._decoder.row(self._example)
            for _ in range(_WARM_UP if self._spec.runtime == "native" else 3):
                self._engine.answers([row])
            self._engine.answers([row] * (16 if self._engine.rows_at_once else 1))
        except Exception:  # noqa: BLE001  (a foreign model may raise anything)
            _log.warning("the model failed on its example", exc_info=True)

    def open(self) -> None:
        """From now on /ready says so."""
        self._ready = True

    def explain(self, request: Request) -> None:
        row = self._decoder.row(request.body, request.siblings)
        request.respond(200, self._engine.explanations([row])[0])

    def ready(self, request: Request) -> None:
        self.check_ready()
        request.respond(200, self._identity)

    def check_ready(self) -> None:
        """Raises Refused (503) while the model is being warmed up."""
        if not self._ready:
            raise Refused(503, "warming-up", "The model server is not ready", "The model is being warmed up.")


def failed(request: Request, exc: Exception) -> Refused:
    """Log a failure by type and place, and say no more than its trace id to the caller."""
    trace_id = uuid4().hex
    where = logs.where(type(exc), exc.__traceback__)
    _log.error("the model failed", extra={"trace_id": trace_id, "path": request.path.decode(), "exception": where})
    return problems.model_failed(trace_id)
