"""Everything that is wrong with a body nobody could decode. Slow, exact, and only ever run on refused requests."""

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Final, cast

from model_servers.runtime.problems import Refused, invalid, malformed
from model_servers.runtime.schema import EXPECTED
from model_servers.runtime.spec import Feature

_MOST: Final = 100  # reasons named; the rest is counted
_SHOWN: Final = 40  # characters of a value quoted back
_LARGEST: Final = 3.4028234e38


class _Object(dict[str, object]):
    """A JSON object that remembers which keys it was given twice."""

    twice: tuple[str, ...] = ()


class _NotJson(float):
    """NaN, Infinity or -Infinity as written: floats, but no numbers of JSON."""

    text: str = ""


class _Beyond(float):
    """An integer of hundreds of digits."""


def of_body(body: bytes, features: Mapping[str, Feature], siblings: Iterable[str], otherwise: str) -> Refused:
    """The refusal that fits `body`. `otherwise`: what the fast decoder said, for what only it objects to."""
    parsed = _parse(body)
    if isinstance(parsed, Refused):
        return parsed
    found = _of_document(parsed, features, frozenset(siblings))
    return invalid(_capped(found)) if found else malformed(otherwise)


def of_batch(body: bytes, features: Mapping[str, Feature], otherwise: str) -> Refused:
    """The same for a batch; each reason is led by its row: `rows[3].amount: missing`."""
    parsed = _parse(body)
    if isinstance(parsed, Refused):
        return parsed
    rows = parsed.get("rows") if isinstance(parsed, _Object) else None
    if not isinstance(rows, list):
        return invalid(["rows: expected an array of objects, each with the model's features"])
    found: list[str] = []
    for i, row in enumerate(cast("list[object]", rows)):
        found += _of_features(row, features, frozenset(), at=f"rows[{i}]")
        if len(found) > _MOST:
            break
    return invalid(_capped(found)) if found else malformed(otherwise)


def of_row(line: bytes, features: Mapping[str, Feature], number: int, otherwise: str) -> list[str]:
    """The reasons of one row of a stream, each led by its number: `rows[3].amount: missing`."""
    parsed = _parse(line)
    at = f"rows[{number}]"
    if isinstance(parsed, Refused):
        return [f"{at}: {parsed.detail}"]
    return _of_features(parsed, features, frozenset(), at=at) or [f"{at}: {otherwise}"]


def of_values(values: Mapping[str, object], features: Mapping[str, Feature], number: int) -> list[str]:
    """The same of a table's row; `values` are plain Python, or the text of CSV cells."""
    at = f"rows[{number}]"
    found = [
        f"{at}.{name}: {reason}"
        for name, feature in features.items()
        if (reason := _of_value(feature, _read(feature, values[name])))
    ]
    return found or [f"{at}: does not fit the model"]


def _read(feature: Feature, value: object) -> object:
    """A cell's text as what it spells, where the feature is no text."""
    if not isinstance(value, str) or feature.type in {"category", "text"}:
        return value
    if feature.type == "boolean" and value in {"0", "1"}:
        return value == "1"
    try:
        return json.loads(value.lower(), parse_constant=_constant, parse_int=_integer)
    except ValueError:
        return value


def duplicates(body: bytes) -> list[str]:
    """Keys given twice, anywhere in `body`; empty too when it is no JSON."""
    parsed = _parse(body)
    return [] if isinstance(parsed, Refused) else [f"{path}: given twice" for path in _twice(parsed, "")]


def of_duplicates(found: list[str]) -> Refused:
    return invalid(_capped(found))


def _parse(body: bytes) -> object:
    """The document, or the refusal of bytes that are none."""
    if not body.strip():
        return malformed("empty")
    try:
        text = body.decode("utf-8")
    except UnicodeDecodeError as exc:
        return malformed(f"not UTF-8 (byte {exc.start})")
    try:
        return json.loads(
            text, object_pairs_hook=_object, parse_constant=_constant, parse_int=_integer, parse_float=float
        )
    except json.JSONDecodeError as exc:
        return malformed(f"{exc.msg} (line {exc.lineno}, column {exc.colno})")
    except RecursionError:
        return malformed("nested too deeply")


def _object(pairs: list[tuple[str, object]]) -> _Object:
    made = _Object(pairs)
    if len(made) != len(pairs):
        made.twice = tuple(key for key, count in Counter(key for key, _ in pairs).items() if count > 1)
    return made


def _constant(text: str) -> _NotJson:
    made = _NotJson(text)
    made.text = text
    return made


def _integer(text: str) -> int | float:
    """Python refuses to read thousands of digits; so many are infinite for our purpose."""
    return int(text) if len(text) < 310 else _Beyond("-inf" if text.startswith("-") else "inf")


def _twice(value: object, path: str) -> list[str]:
    found: list[str] = []
    if isinstance(value, _Object):
        found += [f"{path}.{key}".lstrip(".") for key in value.twice]
        for key, inner in value.items():
            found += _twice(inner, f"{path}.{key}")
    elif isinstance(value, list):
        for inner in cast("list[object]", value):
            found += _twice(inner, f"{path}[]")
    return found


def _of_document(document: object, features: Mapping[str, Feature], siblings: frozenset[str]) -> list[str]:
    if not isinstance(document, _Object):
        return [f"body: expected an object with a member features, got {_shown(document)}"]
    found = [f"{path}: given twice" for path in _twice(document, "")]
    if "features" not in document:
        return [*found, "features: missing"]
    return found + _of_features(document["features"], features, siblings)


def _of_features(
    given: object, features: Mapping[str, Feature], siblings: frozenset[str], *, at: str = "features"
) -> list[str]:
    if not isinstance(given, _Object):
        return [f"{at}: expected an object, got {_shown(given)}"]
    found: list[str] = []
    for name, feature in features.items():
        if name not in given:
            found.append(f"{at}.{name}: missing")
        elif reason := _of_value(feature, given[name]):
            found.append(f"{at}.{name}: {reason}")
    found += [f"{at}.{name}: unknown" for name in given if name not in features and name not in siblings]
    return found


def _of_value(feature: Feature, value: object) -> str | None:
    expected = EXPECTED[feature.type] + (" or null" if feature.nullable else "")
    if value is None:
        return None if feature.nullable else f"expected {expected}, got null"
    match feature.type:
        case "number":
            fits = isinstance(value, int | float) and not isinstance(value, bool | _NotJson)
            if isinstance(value, int | float) and fits and not -_LARGEST <= value <= _LARGEST:
                return f"expected {expected}, got one too large for the model"
        case "integer":
            fits = isinstance(value, int) and not isinstance(value, bool)
            if isinstance(value, int | _Beyond) and not -(2**63) <= value < 2**63:
                return f"expected {expected}, got one beyond 64 bits"
        case "boolean":
            fits = isinstance(value, bool)
        case "category" | "text":
            fits = isinstance(value, str)
    return None if fits else f"expected {expected}, got {_shown(value)}"


def _shown(value: object) -> str:
    match value:
        case _NotJson():
            return f"{value.text}, which JSON has no number for"
        case None | bool() | int() | float():
            text = json.dumps(value)
        case str():
            text = json.dumps(value[: _SHOWN + 1], ensure_ascii=False)
        case list():
            return "an array"
        case _:
            return "an object"
    return text if len(text) <= _SHOWN else text[:_SHOWN] + "..."


def _capped(found: list[str]) -> list[str]:
    return found if len(found) <= _MOST else [*found[:_MOST], f"and {len(found) - _MOST} more"]
