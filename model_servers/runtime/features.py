"""Predict body -> one row of values in the model's order; or every reason why it cannot be one.

Three passes, each taken only when the one before refuses:

    strict    a struct generated from the declared features, ranges and categories included: what nearly all bodies fit
    lenient   the same struct without ranges and categories: such customers are served, and counted
    reasons   the standard library's parser, slow, which finds everything that is wrong
"""

from collections.abc import Callable, Mapping
from typing import Annotated, Any, Final, Literal
from urllib.parse import unquote

import msgspec

from model_servers.runtime import reasons
from model_servers.runtime.spec import Feature, decodable

Row = tuple[object, ...]  # values in feature order; None for null
_Pair = tuple[Callable[[bytes], Any], Callable[[bytes], Any]]  # strict, lenient
Warn = Callable[[str, str], None]  # feature, "unseen" or "out_of_range"

LARGEST: Final = 3.4028234e38  # of a 32-bit float, which is what the models compute in
_INT64: Final = msgspec.Meta(ge=-(2**63), le=2**63 - 1)
_SIBLING_SETS: Final = 32  # decoders kept; routed siblings change only with a rollout

_astuple = msgspec.structs.astuple


class Decoder:
    """Turns bodies into rows. Holds one generated decoder per set of routed siblings' features."""

    def __init__(self, features: Mapping[str, Feature], warn: Warn) -> None:
        self._features = dict(features)
        self._warn = warn
        self._plain = _decoders(features, ())
        self._by_siblings: dict[bytes, _Pair] = {}
        self._colons = len(features) + 1  # one per feature and one for "features" itself
        self._texts = [i for i, f in enumerate(features.values()) if f.type in {"text", "category"}]
        self._width = len(features)

    def row(self, body: bytes, siblings: bytes = b"") -> Row:
        """Raises Refused: 400 for what is no JSON, 422 with all reasons for what does not fit."""
        decoders = (self._by_siblings.get(siblings) or self._with_siblings(siblings)) if siblings else self._plain
        try:
            row: Row = _astuple(decoders[0](body).features)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            return self._lenient(decoders[1], body, siblings)
        if siblings:
            row = row[: self._width]
        if body.count(b":") != self._colons:
            self._refuse_duplicates(body, row)
        return row

    def _with_siblings(self, siblings: bytes) -> _Pair:
        if len(self._by_siblings) >= _SIBLING_SETS:
            self._by_siblings.clear()
        pair = self._by_siblings[siblings] = _decoders(self._features, _names(siblings))
        return pair

    def _lenient(self, decode: Callable[[bytes], Any], body: bytes, siblings: bytes) -> Row:
        try:
            row: Row = _astuple(decode(body).features)[: self._width]
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as exc:
            raise reasons.of_body(body, self._features, _names(siblings), str(exc)) from None
        self._refuse_duplicates(body, row)
        for (name, feature), value in zip(self._features.items(), row, strict=True):
            if kind := outside(feature, value):
                self._warn(name, kind)
        return row

    def _refuse_duplicates(self, body: bytes, row: Row) -> None:
        """A key given twice is refused: two parsers may read two different customers into it.

        Every key needs a colon, so a body with as many colons as distinct keys has no key twice. Members and values
        we know are counted first; only what is still unexplained pays for a real look.
        """
        expected = self._colons + (b'"unit_id"' in body) + (b'"request_id"' in body) + (b'"model_version"' in body)
        for i in self._texts:
            expected += str(row[i]).count(":")
        if body.count(b":") != expected and (found := reasons.duplicates(body)):
            raise reasons.of_duplicates(found)


def outside(feature: Feature, value: object) -> str | None:
    """ "out_of_range" or "unseen" when `value` fits the type but not what was declared about it."""
    if value is None:
        return None
    if feature.range and isinstance(value, int | float) and not feature.range[0] <= value <= feature.range[1]:
        return "out_of_range"
    if feature.categories is not None and value not in feature.categories:
        return "unseen"
    return None


def _decoders(features: Mapping[str, Feature], siblings: tuple[str, ...]) -> _Pair:
    return _decoder(features, siblings, strict=True), _decoder(features, siblings, strict=False)


def _decoder(features: Mapping[str, Feature], siblings: tuple[str, ...], *, strict: bool) -> Callable[[bytes], Any]:
    body = msgspec.defstruct("Body", [("features", row_type(features, siblings, strict=strict))], gc=False)
    return msgspec.json.Decoder(body).decode


def row_type(features: Mapping[str, Feature], siblings: tuple[str, ...], *, strict: bool) -> type[msgspec.Struct]:
    """A struct with one field per feature, in order, then one ignored field per sibling that is no feature here."""
    fields: list[tuple[str, Any] | tuple[str, Any, Any]] = []
    names: dict[str, str] = {}
    for i, (name, feature) in enumerate(features.items()):
        fields.append((f"f{i}", _type(feature, strict=strict)))
        names[f"f{i}"] = name
    for i, name in enumerate(s for s in siblings if s not in features):
        fields.append((f"s{i}", msgspec.Raw | msgspec.UnsetType, msgspec.UNSET))
        names[f"s{i}"] = name
    return msgspec.defstruct("Features", fields, rename=names.get, forbid_unknown_fields=True, gc=False)


def _type(feature: Feature, *, strict: bool) -> Any:
    kind: Any
    match feature.type:
        case "number":
            low, high = feature.range if strict and feature.range else (-LARGEST, LARGEST)
            kind = Annotated[float, msgspec.Meta(ge=max(low, -LARGEST), le=min(high, LARGEST))]
        case "integer":
            kind = Annotated[int, _INT64]
            if strict and feature.range:
                low, high = feature.range
                bounds = msgspec.Meta(ge=_ceil(low), le=-_ceil(-high))
                kind = Annotated[int, bounds]
        case "boolean":
            kind = bool
        case "category":
            kind = Literal[feature.categories] if strict and feature.categories else str
        case "text":
            kind = str
    return kind | None if feature.nullable else kind


def _ceil(number: float) -> int:
    """Smallest 64-bit integer that is not below `number`."""
    whole = int(max(-(2.0**63), min(number, 2.0**63 - 1024)))
    return whole + (whole < number and number < 2.0**63 - 1024)


def _names(siblings: bytes) -> tuple[str, ...]:
    """Names of a comma-separated header; percent-encoded where they are not plain."""
    parts = siblings.decode("utf-8", "replace").split(",")
    return tuple(dict.fromkeys(name for part in parts if (name := unquote(part.strip())) and decodable(name)))
