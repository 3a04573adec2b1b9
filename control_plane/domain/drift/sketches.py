"""Two small sketches over 64-bit hashes: how many distinct values, and whether a value was in the reference.

Both are plain bytes that merge exactly (maximum, or), so one replica or fifty end at the same bytes.
"""

import math
from collections.abc import Iterable
from functools import lru_cache
from hashlib import blake2b

REGISTERS = 1024  # of a distinct sketch, one byte each
DISTINCT_ERROR = 1.04 / math.sqrt(REGISTERS)  # relative standard error of `distinct`: 3.25 %
_INDEX_BITS = REGISTERS.bit_length() - 1
_VALUE_BITS = 64 - _INDEX_BITS

_PROBES = 4  # bits set per member
_BITS_PER_MEMBER = 10
_MAX_BITS = 1 << 17  # 16 KiB; above about 13,000 members the error grows, see `false_member_rate`


@lru_cache(maxsize=1 << 16)  # the same values come again with every batch
def hash64(value: str) -> int:
    """Hash of a value, the same in every process and release. Changing it makes stored sketches useless."""
    return int.from_bytes(blake2b(value.encode(errors="surrogatepass"), digest_size=8).digest(), "big")


def empty_distinct() -> bytes:
    return bytes(REGISTERS)


def add_distinct(sketch: bytes, hashes: Iterable[int]) -> bytes:
    """The sketch after seeing `hashes`; seeing one twice changes nothing."""
    registers = bytearray(sketch)
    mask = (1 << _VALUE_BITS) - 1
    for value in hashes:
        index = value >> _VALUE_BITS
        rank = _VALUE_BITS - (value & mask).bit_length() + 1
        if rank > registers[index]:
            registers[index] = rank
    return bytes(registers)


def merge_distinct(left: bytes, right: bytes) -> bytes:
    """The sketch of both streams together. Raises ValueError on sketches of different size."""
    if len(left) != len(right):
        raise ValueError(f"distinct sketches of {len(left)} and {len(right)} registers cannot be merged")
    return bytes(map(max, left, right))


def distinct(sketch: bytes) -> float:
    """Estimated number of distinct values; relative standard error `DISTINCT_ERROR`, nearly exact below 100.

    Source: Flajolet et al., "HyperLogLog" (2007), with the estimator of Ertl, "New cardinality estimation algorithms
    for HyperLogLog sketches" (2017), arXiv:1702.01284, algorithm 6: no bias between the small and the large range.
    """
    if len(sketch) != REGISTERS:
        raise ValueError(f"a distinct sketch has {REGISTERS} registers, got {len(sketch)}")
    histogram = [0] * (_VALUE_BITS + 2)
    for register in sketch:
        histogram[register] += 1
    z = REGISTERS * _tau(1 - histogram[_VALUE_BITS + 1] / REGISTERS)
    for rank in range(_VALUE_BITS, 0, -1):
        z = 0.5 * (z + histogram[rank])
    z += REGISTERS * _sigma(histogram[0] / REGISTERS)
    return 0.0 if math.isinf(z) else REGISTERS**2 / (2 * math.log(2) * z)


def members(hashes: Iterable[int]) -> bytes:
    """A filter that knows every one of `hashes`. No hashes: the empty filter, which knows nothing.

    It never denies a member; a stranger passes with probability `false_member_rate`.
    Source: Bloom (1970); two halves of one hash as probes: Kirsch & Mitzenmacher (2006).
    """
    known = list(hashes)
    if not known:
        return b""
    wanted = max(64, _BITS_PER_MEMBER * len(known))
    size = min(_MAX_BITS, 1 << (wanted - 1).bit_length())
    bits = bytearray(size // 8)
    for value in known:
        for at in _probes(value, size):
            bits[at >> 3] |= 1 << (at & 7)
    return bytes(bits)


def is_member(sketch: bytes, value: int) -> bool:
    return bool(sketch) and all(sketch[at >> 3] >> (at & 7) & 1 for at in _probes(value, len(sketch) * 8))


def false_member_rate(sketch: bytes) -> float:
    """Probability that a value never seen is taken for a member, from how full the filter is."""
    if not sketch:
        return 0.0
    return (int.from_bytes(sketch, "big").bit_count() / (len(sketch) * 8)) ** _PROBES


def _probes(value: int, size: int) -> list[int]:
    first, second = value >> 32, value & 0xFFFFFFFF | 1
    return [(first + i * second) % size for i in range(_PROBES)]


def _sigma(x: float) -> float:
    if x == 1.0:
        return math.inf
    y, z = 1.0, x
    while True:
        x *= x
        previous = z
        z += x * y
        y += y
        if z == previous:
            return z


def _tau(x: float) -> float:
    if x in (0.0, 1.0):
        return 0.0
    y, z = 1.0, 1 - x
    while True:
        x = math.sqrt(x)
        previous = z
        y *= 0.5
        z -= (1 - x) ** 2 * y
        if z == previous:
            return z / 3
