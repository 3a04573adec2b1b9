"""How records lie in a spool segment and travel on the bus: one frame after the other.

A frame is a header of twelve bytes (magic, length, CRC-32 of the payload; little-endian) and the payload, one JSON
object. What a crash leaves behind is told apart by `scan`: a torn tail can only be the last thing in a segment, while
damage has whole frames after it, and reading goes on with the first of them.
"""

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from zlib import crc32

MAGIC = b"\xf6MR1"  # no byte of it begins a JSON text in UTF-8
HEADER = struct.Struct("<4sII")
MAX_PAYLOAD = 64 * 2**20  # a longer length in a header is damage


def frame(payload: bytes) -> bytes:
    """The payload with its header."""
    return HEADER.pack(MAGIC, len(payload), crc32(payload)) + payload


def whole_at(data: bytes | memoryview, at: int) -> int | None:
    """Where the frame that begins at `at` ends; None where no whole, intact frame begins there."""
    begin = at + HEADER.size
    if begin > len(data):
        return None
    magic, length, crc = HEADER.unpack_from(data, at)
    end = begin + length
    if magic != MAGIC or length > MAX_PAYLOAD or end > len(data) or crc32(memoryview(data)[begin:end]) != crc:
        return None
    return int(end)


@dataclass(frozen=True, slots=True)
class Scan:
    """`ends[i]` is where the i-th frame ends. The bytes from `damaged_at` to `resumes_at` are no frame."""

    ends: tuple[int, ...]
    damaged_at: int | None = None  # None: the data ends with a whole frame
    resumes_at: int | None = None  # the next whole frame after the damage; None: a torn tail


def scan(data: bytes) -> Scan:
    """Walk whole frames from the start of `data` until its end or the first byte that is not one."""
    at, ends = 0, list[int]()
    while at < len(data):
        end = whole_at(data, at)
        if end is None:
            return Scan(tuple(ends), at, _next_whole(data, at + 1))
        ends.append(end)
        at = end
    return Scan(tuple(ends))


def payloads(data: bytes) -> Iterator[bytes]:
    """The payloads of data that `scan` has found whole."""
    at = 0
    while at < len(data):
        _, length, _ = HEADER.unpack_from(data, at)
        at += HEADER.size
        yield data[at : at + length]
        at += length


def joined(items: Sequence[bytes]) -> bytes:
    """Many payloads framed into one write."""
    parts = list[bytes]()
    for item in items:
        parts.append(HEADER.pack(MAGIC, len(item), crc32(item)))
        parts.append(item)
    return b"".join(parts)


def _next_whole(data: bytes, at: int) -> int | None:
    while (at := data.find(MAGIC, at)) >= 0:
        if whole_at(data, at) is not None:
            return at
        at += 1
    return None
