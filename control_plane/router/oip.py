"""Predictions asked for in the Open Inference Protocol: every row of a request is a prediction like any other.

A row has its own assignment, deadline, fallback, record and prediction id; the answer is sent when all rows have one.
If one row cannot be answered the request is refused with that row's reason, while the others keep their records.
"""

import time
import zlib
from collections.abc import Mapping
from functools import cached_property
from typing import Any, Final, cast

import msgspec

from control_plane.contracts.snapshot import Target
from control_plane.router import body as bodies
from control_plane.router import pages
from control_plane.router.auth import Keys
from control_plane.router.forward import MakePrediction, Prediction, choose, unit_bytes
from control_plane.router.problems import Refused
from control_plane.router.request import JSON, Request
from control_plane.router.routes import Route
from control_plane.router.tools import Tools
from model_servers import oip
from model_servers.oip import Malformed

_BINARY: Final = b"application/octet-stream"
_UNIT: Final = "unit_id"  # the input tensor that names the assignment unit of each row
_WINDOW: Final = {b"gzip": 16 + zlib.MAX_WBITS, b"deflate": zlib.MAX_WBITS}

SERVER: Final = msgspec.json.encode({"name": "mlcp", "version": "2", "extensions": ["binary_tensor_data"]})


class Infer:
    """POST .../infer of one model; of one version, if that is given, as a prediction with `model_version` is."""

    streams = False

    def __init__(
        self,
        route: Route,
        keys: Keys,
        tools: Tools,
        version: str | None = None,
        prediction: MakePrediction | None = None,
    ) -> None:
        self.max_body = route.source.max_body_bytes
        self._route, self._keys, self._tools, self._version = route, keys, tools, version
        self._prediction = prediction or Prediction

    def handle(self, request: Request) -> None:
        started = time.perf_counter()
        route = self._route
        grant = self._keys.grant(request.headers.get(b"authorization"), route.name)
        try:
            asked = oip.decode(_plain(request, self.max_body), request.headers.get(oip.HEADER_LENGTH))
            version = self._version or _text(asked, "model_version")
            unit, request_id = _text(asked, _UNIT), _text(asked, "request_id") or asked.id
            named = route.by_version.get(route.source.aliases.get(version, version)) if version is not None else None
            inputs = self._inputs if named is None else inputs_of(named.target)
            rows = oip.rows(asked.inputs or [], inputs, also=self._also)
        except Malformed as exc:
            raise Refused.invalid(exc.reasons) from None
        gathered = _Gathered(request, route, asked, len(rows))
        ready: list[tuple[Prediction, Any, bool]] = []
        for number, row in enumerate(rows):
            own = row.pop(_UNIT, None) if _UNIT in self._also else None
            if own is not None and not isinstance(own, str | int):
                raise Refused.invalid([f"inputs.{_UNIT}[{number}]: expected text"])
            features = msgspec.Raw(msgspec.json.encode(row))
            body = bodies.Body(features, unit if own is None else str(own), request_id, version)
            one = _Row(request, gathered, number, b'{"features":%b}' % features)
            unit_of_row = unit_bytes(route, one, body)
            arm, pinned = choose(route, grant, version, unit_of_row)
            prediction = self._prediction(self._tools, route, one, body, started)
            if unit_of_row is not None:
                prediction.unit = unit_of_row
            ready.append((prediction, arm, pinned))
        for prediction, arm, pinned in ready:  # nothing is sent before every row has been found in order
            prediction.start(arm, pinned=pinned)

    @cached_property
    def _inputs(self) -> tuple[oip.Input, ...]:
        main = self._route.pinned_to or self._route.default
        return inputs_of(main.target) if main is not None else ()

    @cached_property
    def _also(self) -> frozenset[str]:
        """Tensors that need not be there: features of routed siblings, which a server ignores, and the unit's."""
        every = {name for target in self._route.source.targets.values() for name in target.features}
        return frozenset(every | {_UNIT}) if _UNIT not in every else frozenset(every - {_UNIT})


def inputs_of(target: Target) -> tuple[oip.Input, ...]:
    """The features as input tensors, in the model's own order; empty where the version says nothing about itself."""
    schema = cast("Mapping[str, Any]", pages.described(target).get("request_schema") or {})
    declared = {given.name: given for given in oip.declared(schema)}
    return tuple(declared.get(name) or oip.Input(name, "any") for name in target.features)


def metadata(route: Route, version: str | None) -> bytes:
    """The metadata document of the model, or of one version of it."""
    main = route.by_version[version] if version is not None else route.pinned_to or route.default
    if main is None:
        return oip.metadata(route.name, (), (), route.source.problem)
    about = pages.described(main.target)
    answer = cast("Mapping[str, Any]", about.get("answer_schema") or {})
    return oip.metadata(
        route.name,
        sorted(route.by_version) if version is None else [version],
        inputs_of(main.target),
        str(about.get("problem") or route.source.problem),
        reasons="reasons" in (answer.get("properties") or {}),
    )


class _Gathered:
    """The answers to the rows of one request, until there are all of them."""

    def __init__(self, request: Request, route: Route, asked: oip.Message, count: int) -> None:
        self._request, self._route, self._asked = request, route, asked
        self._answers: list[dict[str, Any]] = [{}] * count
        self._refused: dict[int, Refused] = {}
        self._left = count

    def answered(self, number: int, document: bytes) -> None:
        self._answers[number] = msgspec.json.decode(document)
        self._done()

    def refused(self, number: int, refused: Refused) -> None:
        self._refused[number] = refused
        self._done()

    def _done(self) -> None:
        self._left -= 1
        if self._left:
            return
        if self._refused:
            number = min(self._refused)
            self._request.refuse(_of_row(self._refused[number], number, len(self._answers)))
            return
        answers = self._answers
        versions = [str(answer["model_version"]) for answer in answers]
        parameters: dict[str, object] = {
            "prediction_ids": ",".join(answer["prediction_id"] for answer in answers),
            "variants": ",".join(answer["variant"] for answer in answers),
            "model_versions": ",".join(versions),
        }
        if any(answer.get("logged") is False for answer in answers):
            parameters["logged"] = False
        version = versions[0] if len(set(versions)) == 1 else None
        tensors = oip.answer_tensors(answers)
        try:
            body, length = oip.response(self._route.name, version, self._asked, tensors, parameters)
        except Malformed as exc:
            self._request.refuse(Refused.invalid(exc.reasons))
            return
        if length is None:
            self._request.respond(200, body)
        else:
            self._request.respond(200, body, _BINARY, b"%b: %d\r\n" % (oip.HEADER_LENGTH, length))


class _Row(Request):
    """One row of a request, answered like a request of its own."""

    __slots__ = ("_gathered", "_number")

    def __init__(self, whole: Request, gathered: _Gathered, number: int, body: bytes) -> None:
        super().__init__(_NOWHERE)
        self.headers, self.path, self.body = whole.headers, whole.path, body
        self._gathered, self._number = gathered, number

    def respond(self, status: int, body: bytes, content_type: bytes = JSON, extra: bytes = b"") -> None:
        self._gathered.answered(self._number, body)

    def refuse(self, refused: Refused) -> None:
        self._gathered.refused(self._number, refused)


class _Nowhere:
    """The channel of a row, which has none of its own."""

    closed = False

    def answer(self, request: Request, data: bytes) -> None: ...

    def write(self, data: bytes) -> None: ...

    async def drained(self) -> None: ...

    def abort(self) -> None: ...


_NOWHERE: Final = _Nowhere()


def _of_row(refused: Refused, number: int, count: int) -> Refused:
    """The row's refusal as the request's."""
    if count == 1:
        return refused
    reasons = [f"row {number}: {reason}" for reason in refused.reasons or (refused.detail,)]
    return Refused(
        refused.status,
        refused.slug,
        refused.title,
        refused.detail,
        reasons=reasons,
        retry_after_s=refused.retry_after_s,
    )


def _text(asked: oip.Message, name: str) -> str | None:
    value = (asked.parameters or {}).get(name)
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    raise Malformed(f"parameters.{name}: expected a string")


def _plain(request: Request, limit: int) -> bytes:
    """The body without its content encoding. Raises Refused: 413 when it is larger than `limit`, 415."""
    encoding = request.headers.get(b"content-encoding", b"identity").lower()
    if encoding == b"identity":
        return request.body
    if encoding not in _WINDOW:
        raise Refused(415, "unsupported-encoding", "Unsupported encoding", "Send gzip, deflate or neither.")
    inflate = zlib.decompressobj(_WINDOW[encoding])
    try:
        body = inflate.decompress(request.body, limit + 1)
    except zlib.error:
        raise Malformed("body: not in the encoding it is said to be") from None
    if len(body) > limit:
        raise Refused.too_large(limit)
    if not inflate.eof:
        raise Malformed("body: its compressed data ends too early")
    return body
