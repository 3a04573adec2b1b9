"""Targets that speak the Open Inference Protocol: native requests are translated on their way out, answers back.

The rest of the router does not notice: deadline, retry, breaker, fallback, shadow and record are those of any target.
A body that does not fit the declared features is refused here, with the reasons a model server of ours would give.
"""

import asyncio
from collections.abc import Mapping
from typing import Any, Final, cast
from urllib.parse import unquote, urlsplit

import msgspec
import structlog

from control_plane.contracts import oip as wire
from control_plane.contracts.snapshot import Target
from control_plane.router.calls import request_head
from control_plane.router.rest import Rest
from control_plane.router.upstream import Call, Failure, Pool
from model_servers import oip
from model_servers.oip import Malformed, Tensor

_log: structlog.stdlib.BoundLogger = structlog.get_logger()
_encode = msgspec.json.encode
_SAID: Final = 500  # characters of a server's own refusal passed on
_SIBLINGS: Final = b"\r\nx-mlcp-siblings: "
_EXPECTED: Final[Mapping[str, str]] = {
    "number": "a number",
    "integer": "an integer",
    "boolean": "true or false",
    "text": "a string",
}


class ForeignPool(Pool):
    """Connections to one model on somebody else's server."""

    def __init__(self, target: Target, rest: Rest | None = None) -> None:
        """A target whose description cannot be used is as good as dead; it must not cost the rest of the snapshot."""
        super().__init__(target.address, rest=rest)
        url = urlsplit(target.address)
        base = f"{url.path.rstrip('/')}/v2/models/{target.remote_name}"
        self._translation: Translation | None = None
        try:
            self._translation = Translation(msgspec.json.decode(target.schema, type=wire.Description))
        except (msgspec.MsgspecError, ValueError, KeyError) as exc:
            _log.error("target.unusable", target=target.id, version=target.version, error=str(exc))
        self._infer = request_head("POST", f"{base}/infer", host=url.netloc)
        self._ready = request_head("GET", f"{base}/ready", host=url.netloc) + b"0\r\n\r\n"

    def submit(self, call: Call) -> None:
        """A prediction, or any GET, which asks whether the model is ready."""
        soon = asyncio.get_running_loop().call_soon
        head, _, body = call.request.partition(b"\r\n\r\n")
        if self._translation is None:
            soon(call.failed, "dead")
            return
        if head.startswith(b"GET "):
            super().submit(_Asked(call, self._ready, None))
            return
        try:
            content = self._translation.request(body, _siblings(head))
        except Malformed as exc:
            soon(call.answered, 422, _problem(exc.reasons))
            return
        super().submit(_Asked(call, b"%b%d\r\n\r\n%b" % (self._infer, len(content), content), self._translation))


class _Asked:
    """A call in the other protocol."""

    def __init__(self, call: Call, request: bytes, translation: "Translation | None") -> None:
        self.request, self.deadline, self.patience = request, call.deadline, call.patience
        self._call, self._translation = call, translation

    def answered(self, status: int, body: bytes) -> None:
        if self._translation is None:
            self._call.answered(status, body)
        elif status == 200:
            answer = self._translation.answer(body)
            self._call.answered(200 if answer is not None else 502, answer or b"")
        else:
            self._call.answered(status, _problem([_said(body)]))

    def failed(self, reason: Failure) -> None:
        self._call.failed(reason)


class Translation:
    """One version's features and answers in the words of its server."""

    def __init__(self, described: wire.Description) -> None:
        """Raises ValueError where the server's inputs are not the features."""
        self._features = {name: described.inputs[name] for name in described.features}
        self._problem, self._decision = described.problem, described.decision
        self._parts = wire.layout(self._features, described.endpoint)
        self._by_name = not described.endpoint and len(self._parts) > 1

    def request(self, body: bytes, siblings: frozenset[str] = frozenset()) -> bytes:
        """Native body -> infer body of one row. Features of `siblings` are left out. Raises Malformed."""
        features = cast("Mapping[str, Any]", msgspec.json.decode(body)["features"])
        reasons = [f"features.{name}: missing" for name in self._features if name not in features]
        reasons += [
            f"features.{name}: unknown" for name in features if name not in self._features and name not in siblings
        ]
        for name, feature in self._features.items():
            if name in features and not _fits(feature, features[name]):
                expected = _EXPECTED[feature.kind] + (" or null" if feature.nullable else "")
                reasons.append(
                    f"features.{name}: expected {expected}, got {_encode(features[name])[:40].decode(errors='replace')}"
                )
        if reasons:
            raise Malformed(*reasons)
        tensors = [
            oip.Output(
                part.name,
                part.datatype,
                part.shape,
                [_as(part.datatype, features[name]) for name in part.features],
                {"content_type": "str"} if part.datatype == "BYTES" else {},
            )
            for part in self._parts
        ]
        # MLServer reads named columns as a frame only when it is told to.
        more: dict[str, object] = {"parameters": {"content_type": "pd"}} if self._by_name else {}
        return oip.encode(more, tensors, member="inputs")[0]

    def answer(self, body: bytes) -> bytes | None:
        """Infer answer of one row -> native answer; None where it is none, and so the server is at fault."""
        try:
            outputs = cast("list[Tensor]", oip.decode(body, tensors="outputs").outputs)
        except Malformed:
            return None
        if not outputs or not all(output.values for output in outputs):
            return None
        match self._problem:
            case "binary":
                return self._binary(outputs)
            case "multiclass":
                return _multiclass(outputs)
            case "regression":
                value = next((_number(output) for output in outputs if _number(output) is not None), None)
                return None if value is None else _encode({"output": {"value": value}})
            case _:
                values = {o.name: o.values[0] if len(o.values) == 1 else o.values for o in outputs}
                return _encode({"output": {"value": next(iter(values.values())) if len(values) == 1 else values}})

    def _binary(self, outputs: list[Tensor]) -> bytes | None:
        """The probability of yes: of an output that says so in its name, else of the first float, else of a 0 or 1."""
        ordered = sorted(outputs, key=lambda o: (o.name != "probability", "prob" not in o.name, o.datatype[:2] != "FP"))
        for output in ordered:
            value = output.values[-1] if len(output.values) <= 2 else None  # of two classes, the second is yes
            if isinstance(value, bool | int | float) and 0 <= value <= 1:
                break
        else:
            return None
        decision = self._decision
        word = decision.positive if value >= decision.threshold else decision.negative
        return _encode({"output": {"probability": float(value)}, "decision": word, "threshold": decision.threshold})


def _multiclass(outputs: list[Tensor]) -> bytes | None:
    """The label is an output of text, else of an integer, else the number of the most probable class."""
    shares = next((o for o in outputs if o.datatype.startswith("FP")), None)
    labels = [o for o in outputs if o.datatype == "BYTES"] or [o for o in outputs if "INT" in o.datatype]
    named = next((o for o in labels if o.name == "label"), labels[0] if labels else None)
    numbers = [v for v in shares.values if isinstance(v, int | float)] if shares is not None else []
    if named is None and not numbers:
        return None
    label = str(named.values[0]) if named is not None else str(numbers.index(max(numbers)))
    output: dict[str, object] = {"label": label}
    if numbers and 0 <= max(numbers) <= 1:
        output["probability"] = float(max(numbers))
    return _encode({"output": output})


def _number(output: Tensor) -> float | None:
    value = output.values[0]
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _fits(feature: wire.Feature, value: object) -> bool:
    if value is None:
        return feature.nullable
    match feature.kind:
        case "number":
            return isinstance(value, int | float) and not isinstance(value, bool)
        case "integer":
            return isinstance(value, int) and not isinstance(value, bool)
        case "boolean":
            return isinstance(value, bool)
        case "text":
            return isinstance(value, str)


def _as(datatype: str, value: Any) -> bool | int | float | str | None:
    """A feature's value in a server's datatype."""
    if value is None:
        return None
    if datatype == "BYTES":
        return value if isinstance(value, str) else _encode(value).decode()
    if datatype == "BOOL":
        return bool(value)
    if isinstance(value, str):
        return value  # the server will say that it wants a number
    return float(value) if datatype[:2] in ("FP", "BF") else int(value)


def _siblings(head: bytes) -> frozenset[str]:
    """Features of routed siblings, as the head of a native call names them."""
    _, found, rest = head.partition(_SIBLINGS)
    return frozenset(unquote(name) for name in rest.partition(b"\r\n")[0].decode().split(",")) if found else frozenset()


def _said(body: bytes) -> str:
    """What the server says is wrong."""
    try:
        document: Any = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        document = None
    if isinstance(document, dict):
        members = cast("dict[str, object]", document)
        said = members.get("error") or members.get("detail") or members
        return (said if isinstance(said, str) else _encode(said).decode())[:_SAID]
    return "The model server refuses this body and does not say why."


def _problem(reasons: Any) -> bytes:
    return _encode(
        {
            "type": "invalid-input",
            "title": "Input cannot be used",
            "detail": "The features do not fit the model.",
            "reasons": list(reasons),
        }
    )
