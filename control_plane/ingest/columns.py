"""The JSON of many answers as columns: what profiles are counted from.

A batch whose features all have the reference's types is decoded into structs made for that reference, a fifth of the
work of dictionaries. Anything else takes the slow way, on which every oddity is counted for what it is.
"""

from collections.abc import Callable, Mapping, Sequence
from itertools import compress
from typing import Any, Final, cast

import msgspec
import numpy as np
from numpy.typing import NDArray

from control_plane.domain.drift import fold
from control_plane.domain.drift.profiles import Feature, Numeric, Profile
from control_plane.domain.model_config import FeatureType

_JSON_TYPES: Final = {
    FeatureType.NUMBER: float,
    FeatureType.INTEGER: float,
    FeatureType.BOOLEAN: bool,
    FeatureType.CATEGORY: str,
    FeatureType.TEXT: str,
}
_decode_rows = msgspec.json.Decoder(list[dict[str, Any]]).decode
_decode_any = msgspec.json.Decoder(list[Any]).decode
_as_tuple = msgspec.structs.astuple


class _Output(msgspec.Struct, gc=False):
    """What our own servers answer; a stranger's answer may not fit and is read more slowly."""

    probability: float | None = None
    value: float | None = None
    label: str | None = None


_decode_outputs = msgspec.json.Decoder(list[_Output | None]).decode


class Reader:
    """Of the answers of one version; made once per reference."""

    def __init__(self, grid: Profile) -> None:
        self.grid = grid
        self._typed = _decoder(grid.features)

    def columns(self, features: Sequence[str | None]) -> dict[str, fold.Column]:
        """By feature, from the `features` of each row as JSON text; numbers as arrays where nothing is odd in them."""
        if not self.grid.features:
            return {}
        joined = f"[{','.join([text or '{}' for text in features])}]"
        try:
            turned = list(zip(*map(_as_tuple, self._typed(joined)), strict=True))
        except msgspec.ValidationError:  # a value of another type, or no object at all
            untyped = _untyped(joined, tuple(self.grid.features))
            return {name: _numbers(feature, untyped[name]) for name, feature in self.grid.features.items()}
        named = zip(self.grid.features.items(), turned, strict=True)
        return {name: _floats(column) if isinstance(feature, Numeric) else column for (name, feature), column in named}

    def answers(self, outputs: Sequence[str | None]) -> fold.Column | None:
        """Score, value or class of each row, from its `output` as JSON text; None without predictions to compare."""
        return None if self.grid.prediction is None else _answers(outputs, self.grid.prediction)


def chosen(column: fold.Column, mine: NDArray[np.bool_]) -> fold.Column:
    return column[mine] if isinstance(column, np.ndarray) else tuple(compress(column, mine))


def _decoder(features: Mapping[str, Feature]) -> Callable[[str], list[Any]]:
    """Of a list of objects, each a struct with the features in their order; a key that is not there is MISSING."""
    names = {f"f{at}": name for at, name in enumerate(features)}
    fields = [(at, _JSON_TYPES[features[name].type] | None, fold.MISSING) for at, name in names.items()]
    row = msgspec.defstruct("Row", fields, rename=names, gc=False)
    return msgspec.json.Decoder(list[row]).decode  # type: ignore[valid-type]


def _untyped(joined: str, names: tuple[str, ...]) -> dict[str, Sequence[object]]:
    try:
        rows = _decode_rows(joined)
    except msgspec.ValidationError:  # somebody sent a list or a number for features
        rows = [cast("dict[str, Any]", row) if isinstance(row, dict) else {} for row in _decode_any(joined)]
    return {name: [row.get(name, fold.MISSING) for row in rows] for name in names}


def _floats(column: Sequence[object]) -> fold.Column:
    """Of floats and None an array, NaN for null; with a key missing somewhere the column as it is."""
    try:
        return np.array(column, dtype=np.float64)
    except TypeError:
        return column


def _numbers(feature: Feature, column: Sequence[object]) -> fold.Column:
    """As `_floats`, of values of any type."""
    if not isinstance(feature, Numeric):
        return column
    values, absent = fold.numbers(column)
    return values if not absent.total else column


def _answers(texts: Sequence[str | None], prediction: Feature) -> fold.Column:
    """None where there is none."""
    joined = f"[{','.join([text or 'null' for text in texts])}]"
    members = ("probability", "value") if isinstance(prediction, Numeric) else ("label",)
    try:
        outputs = _decode_outputs(joined)
    except msgspec.ValidationError:
        return _numbers(prediction, [_of_stranger(output, members) for output in _decode_any(joined)])
    if isinstance(prediction, Numeric):
        return _floats([None if o is None else o.value if o.probability is None else o.probability for o in outputs])
    return [None if o is None else o.label for o in outputs]


def _of_stranger(output: object, members: tuple[str, ...]) -> object:
    if not isinstance(output, dict):
        return output
    known = cast("dict[str, object]", output)
    return next((known[name] for name in members if known.get(name) is not None), None)
