"""/batch_predict: many rows in one request, in a process of its own, in slices that let its other requests through.

JSON rows are answered all or none, as one document. Everything else is streamed both ways in bounded memory: a row
that does not fit is answered, in its place, by what is wrong with it, and the rows after it are answered too.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from typing import Any, Final

import msgspec

from model_servers.runtime import batch_out, problems, reasons
from model_servers.runtime.batch_in import ARROW, CSV, NDJSON, PARQUET, Parsed, Reader
from model_servers.runtime.batch_out import Answered
from model_servers.runtime.engine import Engine
from model_servers.runtime.features import Row, Warn, outside, row_type
from model_servers.runtime.outlet import Outlet
from model_servers.runtime.problems import Refused
from model_servers.runtime.request import JSON, Outgoing, Request
from model_servers.runtime.spec import Spec

_log = logging.getLogger(__name__)
_SLICE: Final = 512  # rows per call of the model
_KINDS: Final = {
    b"": JSON,
    JSON: JSON,
    NDJSON: NDJSON,
    b"application/ndjson": NDJSON,
    b"application/jsonl": NDJSON,
    CSV: CSV,
    ARROW: ARROW,
    PARQUET: PARQUET,
    b"application/x-parquet": PARQUET,
}

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
        self._reader = Reader(engine.features, warn, _SLICE)
        self._writers = batch_out.writers(spec.config.problem)
        self._tasks: set[asyncio.Task[None]] = set()

    def handle(self, request: Request) -> None:
        """By content type and accept. Called as soon as the head is there."""
        if not self._spec.config.serving.batch:
            raise problems.not_found("/batch_predict")
        kind = _KINDS.get(request.content_type)
        if kind is None:
            raise _unsupported(415, request.content_type)
        wanted = self._wanted(request.accept, kind)
        work = self._document(request) if wanted is None else self._stream(request, kind, wanted)
        task = asyncio.get_running_loop().create_task(self._guarded(request, work))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _wanted(self, accept: bytes, kind: bytes) -> bytes | None:
        """The content type of the answer; None: one JSON document. What a client names first wins."""
        named = [part.partition(b";")[0].strip() for part in accept.split(b",")]
        for name in named:
            if name in {b"", b"*/*", b"application/*"}:
                break
            known = _KINDS.get(name)
            if known in self._writers:
                return known
            if known is JSON and kind is JSON:
                return None
        else:
            raise _unsupported(406, accept)
        return None if kind is JSON else NDJSON

    async def _guarded(self, request: Request, work: Any) -> None:
        try:
            await work
        except Refused as refused:
            request.refuse(refused)
        except ConnectionError:
            return
        except Exception as exc:  # noqa: BLE001  (whatever a foreign model raises)
            request.refuse(self._failed(request, exc))

    # one document

    async def _document(self, request: Request) -> None:
        """{"rows": [{feature: value, ...}, ...]} -> {"model", "version", "predictions": [answer, ...]}, in order.

        All rows or none: one row that does not fit refuses the batch, with the reasons of every such row.
        """
        rows = self._rows(await self._body(request))
        size = _SLICE if self._engine.rows_at_once else 1
        if len(rows) <= size:
            request.respond(200, self._head() + b",".join(self._engine.answers(rows) if rows else []) + b"]}")
            return
        first = self._engine.answers(rows[:size])  # a model that fails at once is a problem document
        out = request.start(200, JSON)
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

    async def _body(self, request: Request) -> bytes:
        limit = self._spec.batch_max_body_bytes
        if request.length > limit:
            raise problems.too_large(limit)
        pieces, size = list[bytes](), 0
        assert request.stream is not None
        while piece := await request.stream.read():
            pieces.append(piece)
            size += len(piece)
            if size > limit:
                raise problems.too_large(limit)
        return b"".join(pieces)

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

    def _head(self) -> bytes:
        identity = msgspec.json.encode({"model": self._spec.model, "version": self._spec.version})
        return identity[:-1] + b',"predictions":['

    # streams

    async def _stream(self, request: Request, kind: bytes, wanted: bytes) -> None:
        """Rows in, answers out; without reasons, which cost many times the answer."""
        slices = await self._slices(request, kind)
        writer = self._writers[wanted]()
        out: Outgoing | None = None
        outlet: Outlet | None = None
        try:
            async for parsed in slices:
                answers = self._answers(request, parsed)
                if outlet is None:
                    out = request.start(200, wanted)
                    outlet = Outlet(out)
                await outlet.put(writer.rows(answers))
                await asyncio.sleep(0)
            outlet = outlet or Outlet(request.start(200, wanted))
            await outlet.put(writer.end())
            await outlet.end()
        except ConnectionError:
            return
        except Exception as exc:
            if out is None:
                raise
            detail = exc.reasons[0] if isinstance(exc, Refused) and exc.reasons else type(exc).__name__
            _log.warning("a batch broke off", extra={"reason": detail})
            out.abort()  # its end must not look like one
        finally:
            if outlet is not None:
                outlet.close()

    async def _slices(self, request: Request, kind: bytes) -> AsyncIterator[list[Parsed]]:
        if kind is not JSON:
            assert request.stream is not None
            return self._reader.slices(kind, request.stream)
        rows = self._rows(await self._body(request))

        async def parts() -> AsyncIterator[list[Parsed]]:
            for at in range(0, len(rows), _SLICE):
                yield list(rows[at : at + _SLICE])

        return parts()

    def _answers(self, request: Request, parsed: list[Parsed]) -> list[Answered]:
        good = [row for row in parsed if isinstance(row, tuple)]
        found = iter(self._scored(request, good))
        return [next(found) if isinstance(row, tuple) else row for row in parsed]

    def _scored(self, request: Request, rows: list[Row]) -> list[Answered]:
        if not rows:
            return []
        try:
            if self._engine.rows_at_once or len(rows) == 1:
                return list(self._engine.answers(rows, True))
        except Exception as exc:  # noqa: BLE001  (one row's failure is not its neighbours')
            if len(rows) == 1:
                return [[self._failed(request, exc).detail]]
        return [answer for row in rows for answer in self._scored(request, [row])]


def _unsupported(status: int, named: bytes) -> Refused:
    offered = ", ".join(kind.decode() for kind in (JSON, NDJSON, CSV, ARROW, PARQUET))
    slug, title = (
        ("unsupported-media-type", "Unsupported media type") if status == 415 else ("not-acceptable", "Not acceptable")
    )
    return Refused(status, slug, title, f"{named[:100].decode('ascii', 'replace')} is none of {offered}.")
