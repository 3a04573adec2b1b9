"""/batch_predict: many rows in one request, answered in slices that let other requests of this process through."""

import asyncio
import logging
from collections.abc import Callable
from typing import Any, Final

import msgspec

from model_servers.runtime import problems, reasons
from model_servers.runtime.engine import Engine
from model_servers.runtime.features import Row, Warn, outside, row_type
from model_servers.runtime.problems import Refused
from model_servers.runtime.request import Request
from model_servers.runtime.spec import Spec

_log = logging.getLogger(__name__)
_SLICE: Final = 512  # rows per call of the model

Failed = Callable[[Request, Exception], Refused]


class Batch:
    def __init__(self, spec: Spec, engine: Engine, warn: Warn, failed: Failed) -> None:
        self._spec = spec
        self._engine = engine
        self._warn = warn
        self._failed = failed
        self._features = engine.features
        rows: Any = list[row_type(engine.features, (), strict=False)]  # type: ignore[misc]  # made at run time
        decoder: Any = msgspec.json.Decoder(msgspec.defstruct("Rows", [("rows", rows)], gc=False))
        self._decode: Callable[[bytes], Any] = decoder.decode
        self._tasks: set[asyncio.Task[None]] = set()

    def json(self, request: Request) -> None:
        """{"rows": [{feature: value, ...}, ...]} -> {"model", "version", "predictions": [answer, ...]}, in order.

        All rows or none: one row that does not fit refuses the batch, with the reasons of every such row.
        """
        if not self._spec.config.serving.batch:
            raise problems.not_found("/batch_predict")
        task = asyncio.get_running_loop().create_task(self._json(request, self._rows(request.body)))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _rows(self, body: bytes) -> list[Row]:
        try:
            rows = [msgspec.structs.astuple(row) for row in self._decode(body).rows]
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as exc:
            raise reasons.of_batch(body, self._features, str(exc)) from None
        for i, (name, feature) in enumerate(self._features.items()):
            if feature.range or feature.categories is not None:
                for row in rows:
                    if kind := outside(feature, row[i]):
                        self._warn(name, kind)
        return rows

    async def _json(self, request: Request, rows: list[Row]) -> None:
        size = _SLICE if self._engine.rows_at_once else 1
        try:
            if len(rows) <= size:
                request.respond(200, self._head() + b",".join(self._engine.answers(rows) if rows else []) + b"]}")
                return
            first = self._engine.answers(rows[:size])  # a model that fails at once is a problem document
            out = request.start(200, b"application/json")
        except Exception as exc:  # noqa: BLE001  (whatever a foreign model raises)
            request.refuse(exc if isinstance(exc, Refused) else self._failed(request, exc))
            return
        try:
            await out.write(self._head() + b",".join(first))
            for at in range(size, len(rows), size):
                await asyncio.sleep(0)
                await out.write(b"," + b",".join(self._engine.answers(rows[at : at + size])))
            await out.write(b"]}")
        except ConnectionError:
            return
        except Exception as exc:  # noqa: BLE001
            self._failed(request, exc)
            out.abort()  # the answer has begun: cutting it is the only way left to say so
            return
        out.end()

    def _head(self) -> bytes:
        identity = msgspec.json.encode({"model": self._spec.model, "version": self._spec.version})
        return identity[:-1] + b',"predictions":['
