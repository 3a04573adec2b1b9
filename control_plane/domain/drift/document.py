"""Profiles as plain JSON, the format of a version's `profile.json` and of stored windows.

    {"format": 1, "rows": n, "features": {name: feature}, "prediction": feature, "label": feature}
    number, integer    {"type", "nulls", "edges": [...], "counts": [...], "moments": {...}, ...}
    category, boolean  {"type", "nulls", "categories": {value: count}, "other", "tail": [...], "unseen", ...}
    text               {"type", "nulls", "words": {a category}, "length": {a number}}

Everything after the first line's keys is optional when read, so a profile written by hand is enough to start from.
`counts` may leave out the two cells outside the edges.
"""

import base64
import binascii
import math
from collections.abc import Mapping, Sequence
from typing import Any, cast

from control_plane.domain.drift import sketches
from control_plane.domain.drift.profiles import (
    FORMAT,
    Absent,
    Categorical,
    Feature,
    Moments,
    Numeric,
    Profile,
    Text,
)
from control_plane.domain.model_config import FeatureType
from control_plane.errors import InvalidInput

Json = dict[str, Any]  # Any: a parse boundary


def to_json(profile: Profile) -> Json:
    """A document of dicts, lists, strings and finite numbers."""
    document: Json = {"format": FORMAT, "rows": profile.rows}
    document["features"] = {name: _dump(feature) for name, feature in profile.features.items()}
    if profile.prediction is not None:
        document["prediction"] = _dump(profile.prediction)
    if profile.label is not None:
        document["label"] = _dump(profile.label)
    return document


def from_json(document: Mapping[str, Any]) -> Profile:
    """Raises InvalidInput naming the member that cannot be read."""
    document = _mapping(document, "profile")
    if document.get("format") != FORMAT:
        raise InvalidInput(f"profile.format: expected {FORMAT}, got {document.get('format')!r}")
    features = _mapping(document.get("features", {}), "profile.features")
    optional = (document.get(name) for name in ("prediction", "label"))
    prediction, label = (None if value is None else _feature(value, "profile.prediction") for value in optional)
    return Profile(
        _count(document.get("rows"), "profile.rows"),
        {name: _feature(value, f"profile.features.{name}") for name, value in features.items()},
        prediction,
        label,
    )


def _dump(feature: Feature) -> Json:
    match feature:
        case Numeric():
            return _dump_numeric(feature)
        case Categorical():
            return _dump_categorical(feature)
        case Text():
            base = {"type": str(feature.type), **_dump_absent(feature.absent)}
            return base | {"words": _dump_categorical(feature.words), "length": _dump_numeric(feature.length)}


def _dump_absent(absent: Absent) -> Json:
    return {"nulls": absent.nulls, "missing": absent.missing, "mistyped": absent.mistyped}


def _dump_numeric(feature: Numeric) -> Json:
    m = feature.moments
    moments = {"count": m.count, "mean": m.mean, "m2": m.m2}
    if m.count:
        moments |= {"min": m.low, "max": m.high}
    out: Json = {"type": str(feature.type), **_dump_absent(feature.absent)}
    out |= {"edges": list(feature.edges), "counts": list(feature.counts), "moments": moments}
    out |= {"huge": feature.huge, "outside": feature.outside}
    return out if feature.range is None else out | {"range": list(feature.range)}


def _dump_categorical(feature: Categorical) -> Json:
    out: Json = {"type": str(feature.type), **_dump_absent(feature.absent)}
    out |= {"categories": dict(feature.categories), "other": feature.other, "tail": list(feature.tail)}
    out |= {"unseen": feature.unseen}
    if any(feature.distinct):
        out["distinct"] = base64.b64encode(feature.distinct).decode()
    out["known"] = None if feature.known is None else base64.b64encode(feature.known).decode()
    return out | {"once": feature.once} if feature.once else out


def _feature(value: object, at: str) -> Feature:
    document = _mapping(value, at)
    try:
        kind = FeatureType(str(document.get("type")))
    except ValueError:
        known = ", ".join(FeatureType)
        raise InvalidInput(f"{at}.type: {document.get('type')!r} is none of {known}") from None
    match kind:
        case FeatureType.NUMBER | FeatureType.INTEGER:
            return _numeric(kind, document, at)
        case FeatureType.BOOLEAN | FeatureType.CATEGORY:
            return _categorical(kind, document, at)
        case FeatureType.TEXT:
            words = _categorical(FeatureType.CATEGORY, _mapping(document.get("words"), f"{at}.words"), f"{at}.words")
            length = _numeric(FeatureType.INTEGER, _mapping(document.get("length"), f"{at}.length"), f"{at}.length")
            return Text(words, length)


def _absent(document: Mapping[str, Any], at: str) -> Absent:
    counted = (_count(document.get(name, 0), f"{at}.{name}") for name in ("nulls", "missing", "mistyped"))
    return Absent(*counted)


def _numeric(kind: FeatureType, document: Mapping[str, Any], at: str) -> Numeric:
    edges = tuple(_number(e, f"{at}.edges") for e in _list(document.get("edges"), f"{at}.edges"))
    counts = tuple(_count(c, f"{at}.counts") for c in _list(document.get("counts"), f"{at}.counts"))
    if len(counts) == len(edges) - 1:
        counts = (0, *counts, 0)
    declared = document.get("range")
    bounds = None
    if declared is not None:
        low, high = _list(declared, f"{at}.range")
        bounds = (_number(low, f"{at}.range"), _number(high, f"{at}.range"))
    try:
        return Numeric(
            kind,
            edges,
            counts,
            _absent(document, at),
            _moments(_mapping(document.get("moments", {}), f"{at}.moments"), f"{at}.moments"),
            _count(document.get("huge", 0), f"{at}.huge"),
            _count(document.get("outside", 0), f"{at}.outside"),
            bounds,
        )
    except ValueError as exc:
        raise InvalidInput(f"{at}: {exc}") from exc


def _moments(document: Mapping[str, Any], at: str) -> Moments:
    count = _count(document.get("count", 0), f"{at}.count")
    if count == 0:
        return Moments()
    mean, m2, low, high = (_number(document.get(name), f"{at}.{name}") for name in ("mean", "m2", "min", "max"))
    return Moments(count, mean, m2, low, high)


def _categorical(kind: FeatureType, document: Mapping[str, Any], at: str) -> Categorical:
    named = _mapping(document.get("categories"), f"{at}.categories")
    other = _count(document.get("other", 0), f"{at}.other")
    tail = tuple(_count(c, f"{at}.tail") for c in _list(document.get("tail", [other]), f"{at}.tail"))
    if not tail or sum(tail) != other:
        raise InvalidInput(f"{at}.tail: must sum to other ({other}), got {list(tail)}")
    # An "other" of which nothing is recorded: no value can be called unseen, unless the document says what is known.
    given = document.get("known", None if other else "")
    known = None if given is None else _bytes(given, f"{at}.known")
    sketch = _bytes(document["distinct"], f"{at}.distinct") if "distinct" in document else sketches.empty_distinct()
    if len(sketch) != sketches.REGISTERS:
        raise InvalidInput(f"{at}.distinct: expected {sketches.REGISTERS} bytes, got {len(sketch)}")
    categories = {name: _count(count, f"{at}.categories.{name}") for name, count in named.items()}
    unseen, once = (_count(document.get(name, 0), f"{at}.{name}") for name in ("unseen", "once"))
    return Categorical(kind, categories, tail, unseen, _absent(document, at), sketch, known, once)


def _mapping(value: object, at: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise InvalidInput(f"{at}: expected an object, got {value!r}")
    return cast(Mapping[str, Any], value)


def _list(value: object, at: str) -> Sequence[object]:
    if not isinstance(value, list | tuple):
        raise InvalidInput(f"{at}: expected an array, got {value!r}")
    return cast(Sequence[object], value)


def _count(value: object, at: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise InvalidInput(f"{at}: expected a count, got {value!r}")
    return value


def _number(value: object, at: str) -> float:
    try:
        number = math.nan if isinstance(value, bool) or not isinstance(value, int | float) else float(value)
    except OverflowError:  # an integer of more than 308 digits
        number = math.inf
    if not math.isfinite(number):
        raise InvalidInput(f"{at}: expected a finite number, got {str(value)[:40]!r}")
    return number


def _bytes(value: object, at: str) -> bytes:
    try:
        return base64.b64decode(str(value), validate=True)
    except binascii.Error as exc:
        raise InvalidInput(f"{at}: not base64") from exc
