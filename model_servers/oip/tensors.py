"""Tensors on the wire: JSON, and the binary extension, where a tensor's bytes follow the JSON document.

A tensor's values are held flat and row-major as plain Python: bool, int, float, str; None for a JSON null.
"""

import math
import struct
from collections.abc import Mapping, Sequence
from typing import Any, Final, cast

import msgspec

HEADER_LENGTH: Final = b"inference-header-content-length"  # bytes of JSON in a body that has more than JSON

_FORMATS: Final = {
    "BOOL": "?",
    "UINT8": "B",
    "UINT16": "H",
    "UINT32": "I",
    "UINT64": "Q",
    "INT8": "b",
    "INT16": "h",
    "INT32": "i",
    "INT64": "q",
    "FP16": "e",
    "FP32": "f",
    "FP64": "d",
}
_FLOATS: Final = frozenset({"FP16", "FP32", "FP64"})
DATATYPES: Final = (*_FORMATS, "BYTES")
Value = bool | int | float | str | None


class Malformed(Exception):
    """What was sent is not the protocol, or not what was asked for; `reasons` say where, one sentence each."""

    def __init__(self, *reasons: str) -> None:
        super().__init__("; ".join(reasons))
        self.reasons = reasons


class Tensor(msgspec.Struct):
    """An input of a request, or an output of an answer. `data` is replaced by flat values when it is decoded."""

    name: str
    shape: list[int]
    datatype: str
    parameters: dict[str, Any] | None = None
    data: list[Any] | None = None

    @property
    def values(self) -> list[Value]:
        return cast("list[Value]", self.data or [])


class Wanted(msgspec.Struct):
    """An output a client asks for."""

    name: str
    parameters: dict[str, Any] | None = None


class Message(msgspec.Struct):
    """A request, or an answer: both have tensors, an id and parameters. Some write null for what they leave out."""

    inputs: list[Tensor] | None = None
    outputs: list[Any] | None = None  # wanted ones of a request, tensors of an answer
    id: str | None = None
    parameters: dict[str, Any] | None = None
    model_name: str | None = None
    model_version: str | None = None


class Output(msgspec.Struct, frozen=True):
    """A tensor to be sent."""

    name: str
    datatype: str
    shape: Sequence[int]
    values: Sequence[Value]
    parameters: Mapping[str, object] = {}


_decode = msgspec.json.Decoder(Message).decode
_encode = msgspec.json.encode


def decode(body: bytes, header_length: bytes | None = None, *, tensors: str = "inputs") -> Message:
    """Read a body. `header_length`: value of the header of that name; `tensors`: "inputs", or "outputs" of an answer.

    Raises Malformed with every reason found.
    """
    document, rest = _split(body, header_length)
    try:
        message = _decode(document)
        found = (message.inputs or []) if tensors == "inputs" else msgspec.convert(message.outputs or [], list[Tensor])
        if tensors == "inputs":
            message.outputs = msgspec.convert(message.outputs or [], list[Wanted])
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as exc:
        raise Malformed(f"body: {exc}") from None
    if tensors == "outputs":
        message.outputs = found
    message.inputs = message.inputs or []
    message.parameters = message.parameters or {}
    reasons: list[str] = []
    at = 0
    names: set[str] = set()
    for tensor in found:
        if tensor.name in names:
            reasons.append(f"{tensors}.{tensor.name}: given twice")
        names.add(tensor.name)
        try:
            at = _fill(tensor, rest, at)
        except Malformed as exc:
            reasons += [f"{tensors}.{tensor.name}: {reason}" for reason in exc.reasons]
    if at != len(rest) and not reasons:
        reasons.append(f"body: {len(rest) - at} bytes belong to no tensor")
    if reasons:
        raise Malformed(*reasons)
    return message


def encode(
    document: Mapping[str, object], tensors: Sequence[Output], *, member: str = "outputs", binary: Sequence[bool] = ()
) -> tuple[bytes, int | None]:
    """The body, and the length of its JSON where binary tensors follow it. `binary`: one flag per tensor."""
    blocks: list[bytes] = []
    shown: list[dict[str, object]] = []
    for i, tensor in enumerate(tensors):
        entry: dict[str, object] = {"name": tensor.name, "shape": list(tensor.shape), "datatype": tensor.datatype}
        parameters = dict(tensor.parameters)
        if i < len(binary) and binary[i]:
            blocks.append(_packed(tensor))
            parameters["binary_data_size"] = len(blocks[-1])
        else:
            entry["data"] = list(tensor.values)
        if parameters:
            entry["parameters"] = parameters
        shown.append(entry)
    head = _encode({**document, member: shown})
    return (head + b"".join(blocks), len(head)) if blocks else (head, None)


def _split(body: bytes, header_length: bytes | None) -> tuple[bytes, memoryview]:
    if header_length is None:
        return body, memoryview(b"")
    try:
        length = int(header_length)
    except ValueError:
        length = -1
    if not 0 < length <= len(body):
        raise Malformed(f"Inference-Header-Content-Length: must be within 1..{len(body)}, the length of the body")
    return body[:length], memoryview(body)[length:]


def _fill(tensor: Tensor, rest: memoryview, at: int) -> int:
    """Give the tensor its flat values; returns where the next one's bytes begin."""
    if tensor.datatype not in DATATYPES:
        raise Malformed(f"datatype {tensor.datatype[:20]!r} is none of {', '.join(DATATYPES)}")
    if not tensor.shape or min(tensor.shape) < 0:
        raise Malformed(f"shape {tensor.shape} must have at least one dimension, none of them negative")
    count = math.prod(tensor.shape)
    parameters = tensor.parameters or {}
    size: object = parameters.get("binary_data_size")
    if "shared_memory_region" in parameters:
        raise Malformed("shared memory is not offered; send the data")
    if size is None:
        tensor.data = _from_json(tensor, count)
        return at
    if tensor.data is not None:
        raise Malformed("has both data and binary_data_size")
    if not isinstance(size, int) or isinstance(size, bool) or not 0 <= size <= len(rest) - at:
        raise Malformed(f"binary_data_size {size!r} is more than the {len(rest) - at} bytes that are left")
    block = rest[at : at + size]
    tensor.data = _strings(block, count) if tensor.datatype == "BYTES" else _numbers(block, tensor.datatype, count)
    return at + size


def _from_json(tensor: Tensor, count: int) -> list[Value]:
    if tensor.data is None:
        raise Malformed("has no data")
    flat: list[Any] = []
    _flatten(tensor.data, flat, len(tensor.shape))
    if len(flat) != count:
        raise Malformed(f"has {len(flat)} values, its shape {tensor.shape} says {count}")
    kind = tensor.datatype
    for i, value in enumerate(flat):
        if value is None:
            continue
        if kind == "BYTES":
            fits = isinstance(value, str)
        elif kind == "BOOL":
            fits = isinstance(value, bool) or value in (0, 1)
            flat[i] = bool(value) if fits else value
        elif kind in _FLOATS:
            fits = isinstance(value, int | float) and not isinstance(value, bool)
        else:
            fits = isinstance(value, int) and not isinstance(value, bool)
        if not fits:
            raise Malformed(f"value {i} is not of datatype {kind}")
    return flat


def _flatten(value: list[Any], into: list[Any], depth: int) -> None:
    """Row-major, whether written flat or nested."""
    for inner in value:
        if isinstance(inner, list) and depth > 1:
            deeper: list[Any] = inner  # pyright: ignore[reportUnknownVariableType]  # of a JSON document
            _flatten(deeper, into, depth - 1)
        else:
            into.append(inner)


def _numbers(block: memoryview, datatype: str, count: int) -> list[Value]:
    width = struct.calcsize("=" + _FORMATS[datatype])
    if len(block) != count * width:
        raise Malformed(f"has {len(block)} bytes, {count} values of {datatype} take {count * width}")
    return list(struct.unpack(f"<{count}{_FORMATS[datatype]}", block))


def _strings(block: memoryview, count: int) -> list[Value]:
    """Each is led by its length, four bytes, little-endian."""
    found: list[Value] = []
    at, end = 0, len(block)
    while at < end:
        if at + 4 > end:
            raise Malformed(f"is cut within the length of string {len(found)}")
        (length,) = struct.unpack_from("<I", block, at)
        if at + 4 + length > end:
            raise Malformed(f"is cut within string {len(found)}")
        try:
            found.append(str(block[at + 4 : at + 4 + length], "utf-8"))
        except UnicodeDecodeError:
            raise Malformed(f"string {len(found)} is not UTF-8") from None
        at += 4 + length
    if len(found) != count:
        raise Malformed(f"has {len(found)} strings, its shape says {count}")
    return found


def _packed(tensor: Output) -> bytes:
    if tensor.datatype != "BYTES":
        return struct.pack(f"<{len(tensor.values)}{_FORMATS[tensor.datatype]}", *tensor.values)
    pieces: list[bytes] = []
    for value in tensor.values:
        data = str(value).encode()
        pieces += (struct.pack("<I", len(data)), data)
    return b"".join(pieces)
