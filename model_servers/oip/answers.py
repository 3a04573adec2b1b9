"""Answers of a model -> output tensors, and the documents around them."""

from collections.abc import Mapping, Sequence
from typing import Any, Final, cast

import msgspec

from model_servers.oip.rows import Input
from model_servers.oip.tensors import Malformed, Message, Output, Value, Wanted, encode

_encode = msgspec.json.encode
_OUTPUTS: Final[Mapping[str, Sequence[tuple[str, str]]]] = {
    "binary": (("probability", "FP64"), ("decision", "BYTES"), ("threshold", "FP64")),
    "multiclass": (("label", "BYTES"), ("probability", "FP64")),
    "regression": (("value", "FP64"),),
    "opaque": (("value", "BYTES"),),
}


class Asked(msgspec.Struct, frozen=True):
    """Which outputs a client wants, and which of them in binary."""

    names: tuple[str, ...] | None  # None: all there are
    binary: frozenset[str]
    all_binary: bool

    @classmethod
    def of(cls, request: Message) -> "Asked":
        wanted = cast("list[Wanted]", request.outputs or [])
        everything = (request.parameters or {}).get("binary_data_output") is True
        binary = frozenset(w.name for w in wanted if (w.parameters or {}).get("binary_data", everything) is True)
        return cls(tuple(w.name for w in wanted) or None, binary, everything and not wanted)


def answer_tensors(answers: Sequence[Mapping[str, Any]]) -> list[Output]:
    """One tensor [n, 1] per member of the answers: those of `output`, then decision, threshold and reasons.

    Numbers are FP64, true and false BOOL, text BYTES; anything else is BYTES that hold its JSON.
    """
    flat = [
        {**_output(answer), **{k: answer[k] for k in ("decision", "threshold", "reasons") if k in answer}}
        for answer in answers
    ]
    names = dict.fromkeys(name for row in flat for name in row)
    return [_tensor(name, [row.get(name) for row in flat]) for name in names]


def response(
    model: str,
    version: str | None,
    request: Message,
    tensors: Sequence[Output],
    parameters: Mapping[str, object] | None = None,
) -> tuple[bytes, int | None]:
    """The body of an answer, and its header length where it is binary. Raises Malformed for an unknown output."""
    asked = Asked.of(request)
    chosen = list(tensors)
    if asked.names is not None:
        there = {tensor.name: tensor for tensor in tensors}
        if unknown := [name for name in asked.names if name not in there]:
            raise Malformed(*(f"outputs.{name}: unknown; there are {', '.join(there)}" for name in unknown))
        chosen = [there[name] for name in asked.names]
    document: dict[str, object] = {"model_name": model}
    document |= {"model_version": version} if version is not None else {}
    document |= {"id": request.id} if request.id is not None else {}
    document |= {"parameters": dict(parameters)} if parameters else {}
    binary = [asked.all_binary or tensor.name in asked.binary for tensor in chosen]
    return encode(document, chosen, binary=binary)


def metadata(
    model: str, versions: Sequence[str], inputs: Sequence[Input], problem: str, *, reasons: bool = False
) -> bytes:
    """The model's metadata document. `reasons`: its answers say why."""
    outputs = [*_OUTPUTS.get(problem, _OUTPUTS["opaque"]), *([("reasons", "BYTES")] if reasons else [])]
    return _encode(
        {
            "name": model,
            "versions": list(versions),
            "platform": f"mlcp_{problem}",
            "inputs": [feature.described() for feature in inputs],
            "outputs": [
                {"name": name, "datatype": datatype, "shape": [-1, 1]}
                | ({"parameters": {"content_type": "str"}} if datatype == "BYTES" else {})
                for name, datatype in outputs
            ],
        }
    )


def error(message: str) -> bytes:
    """The protocol's error object."""
    return _encode({"error": message})


def _output(answer: Mapping[str, Any]) -> Mapping[str, Any]:
    found: Any = answer.get("output")
    return cast("Mapping[str, Any]", found) if isinstance(found, dict) else {"value": found}


def _tensor(name: str, values: list[Any]) -> Output:
    shape = (len(values), 1)
    if all(isinstance(value, bool) for value in values):
        return Output(name, "BOOL", shape, values)
    if all(isinstance(value, int | float) and not isinstance(value, bool) for value in values):
        return Output(name, "FP64", shape, [float(value) for value in values])
    texts: list[Value] = [value if isinstance(value, str) else _encode(value).decode() for value in values]
    return Output(name, "BYTES", shape, texts, {"content_type": "str"})
