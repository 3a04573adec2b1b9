"""What a version was judged by, as places on a line: the template only draws."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

_FROM, _TO = 20.0, 580.0  # of a picture 600 wide


@dataclass(frozen=True, slots=True)
class Mark:
    """`x` in the picture's units; `low`, `high`: ends of its interval there."""

    label: str
    value: float
    x: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True, slots=True)
class Bars:
    title: str
    better: str
    marks: tuple[Mark, ...]


def judged(given: Mapping[str, Any] | None) -> list[Bars]:
    """The metric with its interval, its minimum and Production beside it; the cost beside the trivial answer's."""
    if not given:
        return []
    same: Mapping[str, Any] = given.get("same_holdout") or {}
    metric: list[tuple[str, Any, Any, Any]] = [
        ("this version", given.get("value"), given.get("low"), given.get("high")),
        ("minimum", given.get("minimum"), None, None),
        ("this version, on Production's hold-out", same.get("candidate"), None, None),
        ("Production, on the same", same.get("stable"), None, None),
    ]
    cost: list[tuple[str, Any, Any, Any]] = [
        ("this version", given.get("cost"), None, None),
        ("always the same answer", given.get("trivial_cost"), None, None),
    ]
    better = "more is better" if given.get("higher_is_better") else "less is better"
    drawn = [_bars(str(given.get("metric")), better, metric), _bars("cost", "less is better", cost)]
    return [bars for bars in drawn if bars.marks]


def _bars(title: str, better: str, rows: list[tuple[str, Any, Any, Any]]) -> Bars:
    known = [row for row in rows if row[1] is not None]
    numbers = [float(number) for row in known for number in row[1:] if number is not None]
    if not numbers:
        return Bars(title, better, ())
    low, high = min(numbers), max(numbers)
    room = (high - low) * 0.1 or abs(high) * 0.1 or 1.0

    def place(number: float | None) -> float | None:
        if number is None:
            return None
        return round(_FROM + (_TO - _FROM) * (number - low + room) / (high - low + 2 * room), 1)

    marks = [Mark(label, value, place(value) or 0.0, place(least), place(most)) for label, value, least, most in known]
    return Bars(title, better, tuple(marks))
