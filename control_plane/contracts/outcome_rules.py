"""What an outcome must look like: the router's door and the SDK's files hold it to the same rules. Needs nothing."""

import math
import re
from collections.abc import Callable
from datetime import datetime
from typing import Final, cast
from uuid import UUID

UNIT_LIMIT: Final = 128  # bytes of UTF-8
MEMBERS: Final = ("prediction_id", "unit_id", "name", "value", "currency", "observed_at", "outcome_id", "model")
_NAME: Final = re.compile(r"[a-z][a-z0-9_.-]{0,63}")
_CURRENCY: Final = re.compile(r"[A-Z]{3}")
_LONGEST_VALUE: Final = 1_000  # characters
_YEAR_10000_US: Final = 253_402_300_800_000_000


def reasons(entry: object, model: str) -> list[str]:
    """Everything that is wrong with an outcome of `model`, each ".member: expected ..."; empty: nothing is."""
    if not isinstance(entry, dict):
        return [": expected an object"]
    given = cast("dict[str, object]", entry)
    found = [f".{name}: unknown" for name in sorted(given.keys() - set(MEMBERS))]
    for name, fits, expected in _texts(model):
        value = given.get(name)
        if value is not None and not (isinstance(value, str) and "\0" not in value and fits(value)):
            found.append(f".{name}: expected {expected}")
    if (given.get("prediction_id") is None) == (given.get("unit_id") is None):
        found.append(": expected exactly one of prediction_id and unit_id")
    if "value" not in given:
        found.append(".value: missing")
    elif not _is_value(given["value"]):
        expected = f"a number, true, false, or text of at most {_LONGEST_VALUE} characters"
        found.append(f".value: expected {expected}")
    if observed_us(given.get("observed_at"), now_us=0) is None:
        found.append(".observed_at: expected a time with its zone, such as 2026-11-01T12:00:00Z")
    return found


def observed_us(value: object, *, now_us: int) -> int | None:
    """Unix microseconds of an RFC 3339 text or of Unix seconds; now where nothing is said, None where it is no time."""
    if value is None:
        return now_us
    if isinstance(value, int | float) and not isinstance(value, bool):
        seconds = float(value)
    elif isinstance(value, str):
        try:
            at = datetime.fromisoformat(value)
        except ValueError:
            return None
        if at.tzinfo is None:
            return None
        seconds = at.timestamp()
    else:
        return None
    micros = round(seconds * 1e6) if abs(seconds) < 1e12 else _YEAR_10000_US
    return micros if 0 <= micros < _YEAR_10000_US else None


def _texts(model: str) -> tuple[tuple[str, Callable[[str], bool], str], ...]:
    return (
        ("name", lambda v: _NAME.fullmatch(v) is not None, "a name such as label or chargeback_amount"),
        ("prediction_id", _is_uuid, "a UUID"),
        ("unit_id", _is_unit, f"1 to {UNIT_LIMIT} bytes of UTF-8"),
        ("currency", lambda v: _CURRENCY.fullmatch(v) is not None, "three capital letters"),
        ("outcome_id", _is_uuid, "a UUID"),
        ("model", lambda v: v == model, f"{model}, as in the path"),
    )


def _is_value(value: object) -> bool:
    match value:
        case bool():
            return True
        case int():
            return abs(value) < 2**63
        case float():
            return math.isfinite(value)
        case str():
            return len(value) <= _LONGEST_VALUE and "\0" not in value
        case _:
            return False


def _is_unit(value: str) -> bool:
    try:
        return 0 < len(value.encode()) <= UNIT_LIMIT
    except UnicodeEncodeError:  # half a character
        return False


def _is_uuid(value: str) -> bool:
    try:
        return str(UUID(value)) == value.lower()
    except ValueError:
        return False
