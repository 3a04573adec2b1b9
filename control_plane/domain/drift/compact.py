"""A window as few bytes: its counts in the order of its reference's cells, everything else left to the reference.

What the ingest stores for every batch and the roll-ups for hours, days and months. Read back with the same reference;
with another one it is a ValueError, as merging would be.
"""

import base64
import json
import zlib
from dataclasses import replace
from typing import Any, cast

from control_plane.domain.drift import sketches
from control_plane.domain.drift.profiles import Absent, Categorical, Feature, Moments, Numeric, Profile, Text

_SPARSE = 256  # a distinct sketch with fewer registers set is listed
_SHIFT = 64  # above any rank of a register


def pack(profile: Profile) -> bytes:
    """Deflated JSON; about 1 kB for 30 features."""
    features = [_pack(feature) for feature in profile.features.values()]
    extra = [None if f is None else _pack(f) for f in (profile.prediction, profile.label)]
    return zlib.compress(json.dumps([profile.rows, features, *extra], separators=(",", ":")).encode(), 1)


def unpack(grid: Profile, data: bytes) -> Profile:
    """The window on the cells of `grid`, its reference. ValueError if it was not folded on it."""
    try:
        rows, features, *extra = cast("list[Any]", json.loads(zlib.decompress(data)))
        named = zip(grid.features.items(), features, strict=True)
        read = {name: _unpack(feature, packed) for (name, feature), packed in named}
        answers = zip((grid.prediction, grid.label), extra, strict=True)
        answer = [None if f is None or packed is None else _unpack(f, packed) for f, packed in answers]
    except (zlib.error, TypeError, IndexError, KeyError) as exc:
        raise ValueError(f"not a window of this reference: {exc!r}") from exc
    return Profile(int(rows), read, *answer)


def _pack(feature: Feature) -> list[Any]:
    match feature:
        case Numeric():
            m = feature.moments
            moments = [m.count, m.mean, m.m2, m.low, m.high] if m.count else []
            return [_absent(feature.absent), feature.counts, moments, feature.huge, feature.outside]
        case Categorical():
            return [_absent(feature.absent), feature.counts, _sketch(feature.distinct)]
        case Text():
            return [_pack(feature.words), _pack(feature.length)]


def _unpack(grid: Feature, packed: list[Any]) -> Feature:
    match grid:
        case Numeric():
            absent, counts, moments, huge, outside = packed
            given = Moments(*moments) if moments else Moments()
            return replace(
                grid, counts=tuple(counts), absent=Absent(*absent), moments=given, huge=huge, outside=outside
            )
        case Categorical():
            absent, counts, sketch = packed
            named, tail = len(grid.categories), len(grid.tail)
            if len(counts) != named + tail + 1:
                raise ValueError(f"{len(counts)} cells, the reference has {named + tail + 1}")
            return replace(
                grid,
                categories=dict(zip(grid.categories, counts, strict=False)),
                tail=tuple(counts[named : named + tail]),
                unseen=counts[-1],
                absent=Absent(*absent),
                distinct=_registers(sketch),
            )
        case Text():
            words, length = packed
            return Text(cast(Categorical, _unpack(grid.words, words)), cast(Numeric, _unpack(grid.length, length)))


def _absent(absent: Absent) -> list[int]:
    return [absent.nulls, absent.missing, absent.mistyped]


def _sketch(registers: bytes) -> str | list[int]:
    filled = [at for at, rank in enumerate(registers) if rank]
    if len(filled) > _SPARSE:
        return base64.b64encode(registers).decode()
    return [at * _SHIFT + registers[at] for at in filled]


def _registers(packed: str | list[int]) -> bytes:
    if isinstance(packed, str):
        return base64.b64decode(packed)
    registers = bytearray(sketches.REGISTERS)
    for entry in packed:
        registers[entry // _SHIFT] = entry % _SHIFT
    return bytes(registers)
