"""Attributions in words: "contract is month-to-month (raises the score)"."""

from collections.abc import Sequence
from typing import Final

_SHOWN: Final = 40  # characters of a text value


def top(names: Sequence[str], row: Sequence[object], contributions: Sequence[float], most: int = 3) -> list[str]:
    """The `most` features that moved the score furthest, strongest first; those that moved nothing are left out.

    `contributions`: one per feature, in any additive space; only sign and size are read.
    """
    order = sorted(range(len(names)), key=lambda i: (-abs(contributions[i]), i))[:most]
    return [_sentence(names[i], row[i], contributions[i]) for i in order if contributions[i] != 0]


def _sentence(name: str, value: object, contribution: float) -> str:
    direction = "raises" if contribution > 0 else "lowers"
    return f"{name.replace('_', ' ')} {_is(value)} ({direction} the score)"


def _is(value: object) -> str:
    match value:
        case None:
            return "is not given"
        case bool():
            return "is true" if value else "is false"
        case float():
            return f"is {value:.6g}"
        case str() if len(value) > _SHOWN:
            return f"is {value[:_SHOWN]}..."
        case _:
            return f"is {value}"
