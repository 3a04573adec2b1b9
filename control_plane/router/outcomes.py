"""POST /ml/{model}/outcomes: what really happened, on this host's disk before it is acknowledged.

Taken with Postgres, Redis and the API dead. One outcome, a list, or {"outcomes": [...]}; all of them or none.
"""

import time
from collections.abc import Callable
from typing import Any, cast

import msgspec

from control_plane.contracts import outcome_rules
from control_plane.contracts.records import Outcome
from control_plane.errors import Unavailable
from control_plane.router.auth import Keys
from control_plane.router.problems import Refused
from control_plane.router.request import Request
from control_plane.router.spool import Spool

LIMIT = 10_000  # outcomes in one body
MAX_BODY = 8 * 2**20


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
    if reasons := outcome_rules.reasons(entry, model):
        return reasons, None
    given = cast("dict[str, Any]", entry)
    outcome = ReceivedOutcome(
        outcome_id=given.get("outcome_id") or fresh_id().decode(),
        model=model,
        name=given.get("name") or "label",
        value=given["value"],
        observed_at_us=outcome_rules.observed_us(given.get("observed_at"), now_us=now_us) or 0,
        prediction_id=given.get("prediction_id"),
        unit_id=given.get("unit_id"),
        currency=given.get("currency"),
        received_at_us=now_us,
    )
    return [], outcome
