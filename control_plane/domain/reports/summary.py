"""The executive summary: sentences made from the facts, or a language model's, held against them."""

import re
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from datetime import datetime
from typing import Any, cast

from control_plane.domain.reports.facts import Facts, Kind

_NUMBER = re.compile(r"(?<![\w.])[-+]?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?(?:[eE][-+]?\d+)?")
_LEVEL = re.compile(r"\b95 ?% (?:confidence )?interval")  # of every interval here, and no fact
_LONGEST = 2_000  # characters of a summary
_ENDED = {"succeeded": "is complete", "aborted": "was taken back", "baking": "answers all customers and is watched"}


def sentences(facts: Facts) -> tuple[str, ...]:
    """The same facts always make the same sentences."""
    return tuple(part for part in (_subject(facts), _score(facts), _release(facts), _service(facts), _drift(facts),
                                   _review(facts), _approved(facts)) if part)  # fmt: skip


def _subject(facts: Facts) -> str:
    inventory, version = facts.inventory, facts.lineage.version if facts.lineage else None
    named = f"version {version} of {inventory.model}" if version else inventory.model
    purpose = f" ({inventory.purpose.rstrip('.')})" if inventory.purpose else ""
    match facts.kind:
        case Kind.DEPLOYMENT:
            return f"This report documents the deployment of {named}{purpose}."
        case Kind.ROLLBACK:
            return f"This report documents a rollback of {inventory.model}{purpose} to {_to(facts)}."
        case Kind.RETRAINING:
            return f"This report documents the retraining that made {named}{purpose}."
        case Kind.DRIFT:
            return f"This report documents the drift of {named}{purpose} as of {facts.at:%Y-%m-%d}."
        case Kind.INCIDENT:
            return f"This report documents the incidents of {inventory.model}{purpose} {_period(facts)}."
        case Kind.MONTHLY:
            return f"This report documents {inventory.model}{purpose} {_period(facts)}."


def _to(facts: Facts) -> str:
    return f"version {facts.inventory.production_version}" if facts.inventory.production_version else "no version"


def _period(facts: Facts) -> str:
    return f"from {facts.since:%Y-%m-%d} to {facts.until:%Y-%m-%d}"


def _score(facts: Facts) -> str | None:
    if not facts.scores or facts.kind in {Kind.DRIFT, Kind.INCIDENT}:
        return None
    first = facts.scores[0]
    said = f"Its {first.name} on the hold-out is {first.value:g}"
    if first.low is not None and first.high is not None:
        said += f" (95 % interval {first.low:g} to {first.high:g})"
    if first.reference is not None:
        said += f"; version {first.reference_version}, in Production at the time, reaches {first.reference:g}"
        return f"{said} on the same rows."
    return f"{said}; no version in Production was judged on the same rows."


def _release(facts: Facts) -> str | None:
    release = facts.release
    if release is None:
        return None
    ended = _ENDED.get(release.phase, f"is {release.phase}")
    looks = f" after {len(release.looks)} analyses" if release.looks else ""
    return f"The {release.strategy.replace('_', ' ')} {release.kind} {ended}{looks}: {release.reason.rstrip('.')}."


def _service(facts: Facts) -> str | None:
    found = facts.service
    if found is None or not found.predictions:
        return None
    were = "prediction was" if found.predictions == 1 else "predictions were"
    said = f"In the period {found.predictions:,} {were} answered"
    if found.availability is not None:
        said += f" with an availability of {found.availability * 100:g} %"
    if found.objective is not None and found.met is not None:
        said += f", which {'meets' if found.met else 'misses'} its objective of {found.objective * 100:g} %"
    return f"{said}."


def _drift(facts: Facts) -> str | None:
    found = facts.drift
    if found is None or found.looked_at is None:
        return None
    alarms = [reading.kind for reading in found.readings if reading.alarm]
    if alarms:
        return f"Drift alarms are open: {', '.join(alarms)}."
    still = sum(incident.closed_at is None for incident in found.incidents)
    return "A drift incident is open." if still else "No drift alarm is open."


def _review(facts: Facts) -> str | None:
    inventory = facts.inventory
    if inventory.next_review is None:
        return "Its next review cannot be dated: there is no version of it."
    if inventory.review_overdue:
        return f"Its review has been overdue since {inventory.next_review:%Y-%m-%d}."
    counted = f"With {inventory.materiality} materiality" if inventory.materiality else "With no materiality declared"
    return f"{counted} its next review is due on {inventory.next_review:%Y-%m-%d}."


def _approved(facts: Facts) -> str | None:
    if not facts.approvals:
        return None
    names = sorted({approval.approved_by for approval in facts.approvals})
    return f"Approved by {', '.join(names)}."


# --- what a language model wrote ---


def unsupported(text: str, facts: Facts) -> list[str]:
    """Numbers in `text` that the facts do not hold, as they are written; empty: it may be used.

    A number counts as held when a fact, or a fact as a percentage, rounds to it at the precision it is written with. So
    a text cannot round 0.8449 up to 0.85 and say 0.851.
    """
    held, words = set[float](), set[str]()
    for value in _values(facts):
        if isinstance(value, str):
            words.update(_NUMBER.findall(value))
        else:
            held |= {value, value * 100}
    return [
        said
        for said in _NUMBER.findall(_LEVEL.sub("", text))
        if said not in words and not _held(said.replace(",", ""), held)
    ]


def usable(text: str, facts: Facts) -> str | None:
    """Why a summary is not taken; None: it is."""
    if not text.strip():
        return "it was empty"
    if len(text) > _LONGEST:
        return f"it was longer than {_LONGEST:,} characters"
    wrong = unsupported(text, facts)
    return f"it names numbers the facts do not hold: {', '.join(wrong[:5])}" if wrong else None


def _held(said: str, held: set[float]) -> bool:
    try:
        number = float(said)
    except ValueError:
        return False
    mantissa, _, exponent = said.lower().partition("e")
    digits = len(mantissa.partition(".")[2]) - int(exponent or 0)
    near = 0.5 * 10.0**-digits * (1 + 1e-9)
    exact = digits <= 0  # a whole number below ten rounds from too much to prove anything
    signed = held if number < 0 else {abs(value) for value in held}  # a loss of 0.3 may be a fact of -0.3
    return any(abs(value - number) <= (1e-9 if exact and abs(value) < 10 else near) for value in signed)


def _values(value: object) -> Iterator[str | float]:
    """Every number of the facts, the lengths of its lists, and the text numbers may be quoted from."""
    match value:
        case bool() | None:
            return
        case int() | float():
            yield float(value)
        case str():
            yield value
        case datetime():
            yield from (float(part) for part in (value.year, value.month, value.day))
            yield value.strftime("%Y-%m-%d")
        case tuple() | list():
            items = cast("tuple[Any, ...]", value)
            yield float(len(items))
            for item in items:
                yield from _values(item)
        case _ if is_dataclass(value):
            for part in fields(value):
                yield from _values(getattr(value, part.name))
        case _:
            return
