"""A client of the Open Inference Protocol written against its specification with numpy, apart from our own codec."""

import json
import struct
from collections.abc import Mapping, Sequence
from typing import Any

import httpx
import numpy as np

_NUMPY = {"FP64": "<f8", "FP32": "<f4", "INT64": "<i8", "INT32": "<i4", "BOOL": "?", "UINT8": "u1"}


def tensor(name: str, datatype: str, values: Sequence[Any], shape: Sequence[int] | None = None) -> dict[str, Any]:
    return {"name": name, "datatype": datatype, "shape": list(shape or (len(values), 1)), "data": list(values)}


def packed(datatype: str, values: Sequence[Any]) -> bytes:
    if datatype == "BYTES":
        encoded = [str(value).encode() for value in values]
        return b"".join(struct.pack("<I", len(value)) + value for value in encoded)
    return np.array(values, dtype=_NUMPY[datatype]).tobytes()


def body(tensors: Sequence[Mapping[str, Any]], *, binary: bool = False, **more: Any) -> tuple[bytes, dict[str, str]]:
    """Content and headers of an infer request."""
    inputs, blocks = [dict(one) for one in tensors], list[bytes]()
    for one in inputs if binary else ():
        blocks.append(packed(one["datatype"], one.pop("data")))
        one["parameters"] = {"binary_data_size": len(blocks[-1])}
    head = json.dumps({"inputs": inputs, **more}).encode()
    headers = {"inference-header-content-length": str(len(head))} if binary else {}
    return head + b"".join(blocks), headers


def outputs(answer: httpx.Response) -> dict[str, list[Any]]:
    """Values of each output tensor, row after row."""
    assert answer.status_code == 200, answer.text
    length = answer.headers.get("inference-header-content-length")
    document = json.loads(answer.content[: int(length)] if length else answer.content)
    at, found = int(length or 0), dict[str, list[Any]]()
    for one in document["outputs"]:
        if "data" in one:
            found[one["name"]] = one["data"]
            continue
        size = one["parameters"]["binary_data_size"]
        block = answer.content[at : at + size]
        at += size
        found[one["name"]] = _strings(block) if one["datatype"] == "BYTES" else _numbers(block, one["datatype"])
    return found


def document(answer: httpx.Response) -> dict[str, Any]:
    length = answer.headers.get("inference-header-content-length")
    made: dict[str, Any] = json.loads(answer.content[: int(length)] if length else answer.content)
    return made


def _numbers(block: bytes, datatype: str) -> list[Any]:
    made: list[Any] = np.frombuffer(block, dtype=_NUMPY[datatype]).tolist()
    return made


def _strings(block: bytes) -> list[str]:
    found: list[str] = []
    while block:
        (length,) = struct.unpack_from("<I", block)
        found.append(block[4 : 4 + length].decode())
        block = block[4 + length :]
    return found
