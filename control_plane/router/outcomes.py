"""POST /ml/{model}/outcomes: what really happened, on this host's disk before it is acknowledged.

Taken with Postgres, Redis and the API dead. One outcome, a list, or {"outcomes": [...]}; all of them or none.
"""

import re
import time
from collections.abc import Callable
from datetime import datetime
from typing import cast
from uuid import UUID

import msgspec

from control_plane.contracts.records import Outcome
from control_plane.errors import Unavailable
from control_plane.router.auth import Keys
from control_plane.router.body import UNIT_LIMIT
from control_plane.router.problems import Refused
from control_plane.router.request import Request
from control_plane.router.spool import Spool

LIMIT = 10_000  # outcomes in one body
MAX_BODY = 8 * 2**20
_MEMBERS = {"outcome_id", "model", "name", "value", "observed_at", "prediction_id", "unit_id", "currency"}
_NAME = re.compile(r"[a-z][a-z0-9_.-]{0,63}")
_CURRENCY = re.compile(r"[A-Z]{3}")
_LONGEST_VALUE = 1000  # characters
_YEAR_10000_US = 253_402_300_800_000_000


class ReceivedOutcome(Outcome, frozen=True, kw_only=True, omit_defaults=True):
    """An outcome as it lies in the spool."""

    received_at_us: int


class Outcomes:
    """The route of one model."""

    max_body = MAX_BODY
    streams = False

    def __init__(self, model: str, keys: Keys, spool: Spool, fresh_id: Callable[[], bytes]) -> None:
        self._model, self._keys, self._spool, self._fresh_id = model, keys, spool, fresh_id

    def handle(self, request: Request) -> None:
        self._keys.grant(request.headers.get(b"authorization"), self._model)
        outcomes = parse(request.body, self._model, fresh_id=self._fresh_id, now_us=time.time_ns() // 1000)
        waiting, stored = len(outcomes), 0

        def written(logged: bool) -> None:
            nonlocal waiting, stored
            waiting -= 1
            stored += logged
            if waiting:
                return
            if stored == len(outcomes):
                request.respond(202, b'{"accepted":%d}' % stored)
            else:  # ids make sending all of them again harmless only where the client gave them; say so
                detail = "The disk takes no outcomes now; send them again."
                request.refuse(Refused.of(Unavailable, detail, stored=stored))

        for outcome in outcomes:
            self._spool.append(msgspec.json.encode(outcome), written)


def parse(body: bytes, model: str, *, fresh_id: Callable[[], bytes], now_us: int) -> list[ReceivedOutcome]:
    """Read and check every outcome.

    Raises:
        Refused: 422 with everything that is wrong, each reason beginning with the outcome's place.
    """
    try:
        body.decode()
        document: object = msgspec.json.decode(body)
    except (UnicodeDecodeError, msgspec.DecodeError, RecursionError) as exc:
        raise Refused.invalid([f"body: {exc}"]) from None
    if isinstance(document, dict) and "outcomes" in document:
        document = cast("dict[str, object]", document)["outcomes"]
    entries: list[object] = cast("list[object]", document) if isinstance(document, list) else [document]
    if not 0 < len(entries) <= LIMIT:
        raise Refused.invalid([f"outcomes: expected 1 to {LIMIT}, got {len(entries)}"])
    reasons, outcomes = list[str](), list[ReceivedOutcome]()
    for index, entry in enumerate(entries):
        found, outcome = _read(entry, model, fresh_id, now_us)
        reasons += [f"outcomes[{index}]{reason}" for reason in found]
        if outcome is not None:
            outcomes.append(outcome)
    if reasons:
        raise Refused.invalid(reasons[:1000])
    return outcomes


def _read(
    entry: object, model: str, fresh_id: Callable[[], bytes], now_us: int
) -> tuple[list[str], ReceivedOutcome | None]:
    if not isinstance(entry, dict):
        return [": expected an object"], None
    given = cast("dict[str, object]", entry)
    reasons = [f".{name}: unknown" for name in sorted(given.keys() - _MEMBERS)]

    def text(name: str, fits: Callable[[str], bool], expected: str) -> str | None:
        value = given.get(name)
        if value is None:
            return None
        if isinstance(value, str) and "\0" not in value and fits(value):
            return value
        reasons.append(f".{name}: expected {expected}")
        return None

    name = text("name", lambda v: _NAME.fullmatch(v) is not None, "a name such as label or chargeback_amount")
    prediction = text("prediction_id", _is_uuid, "a UUID")
    unit = text("unit_id", lambda v: 0 < len(v.encode()) <= UNIT_LIMIT, f"1 to {UNIT_LIMIT} bytes of UTF-8")
    currency = text("currency", lambda v: _CURRENCY.fullmatch(v) is not None, "three capital letters")
    outcome_id = text("outcome_id", _is_uuid, "a UUID")
    text("model", lambda v: v == model, f"{model}, as in the path")
    if (given.get("prediction_id") is None) == (given.get("unit_id") is None):
        reasons.append(": expected exactly one of prediction_id and unit_id")
    value = given.get("value")
    fits = isinstance(value, bool | int | float) or (isinstance(value, str) and len(value) <= _LONGEST_VALUE)
    if "value" not in given:
        reasons.append(".value: missing")
    elif not fits or (isinstance(value, str) and "\0" in value) or (isinstance(value, int) and abs(value) >= 2**63):
        reasons.append(f".value: expected a number, true, false, or text of at most {_LONGEST_VALUE} characters")
    observed = _observed(given.get("observed_at"), now_us)
    if observed is None:
        reasons.append(".observed_at: expected a time with its zone, such as 2026-11-01T12:00:00Z")
    if reasons or observed is None:
        return reasons, None
    outcome = ReceivedOutcome(
        outcome_id=outcome_id or fresh_id().decode(),
        model=model,
        name=name or "label",
        value=cast("float | bool | str", value),
        observed_at_us=observed,
        prediction_id=prediction,
        unit_id=unit,
        currency=currency,
        received_at_us=now_us,
    )
    return [], outcome


def _observed(value: object, now_us: int) -> int | None:
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


def _is_uuid(value: str) -> bool:
    try:
        return str(UUID(value)) == value.lower()
    except ValueError:
        return False
