"""What Postgres keeps as JSON, and what of a stranger's document it does not."""

import math
from collections.abc import Iterator
from typing import Any

Place = tuple[str | int, ...]
_DEEPEST = 100  # levels; what we have to say needs a tenth of it


def problems(value: Any) -> Iterator[tuple[Place, str]]:
    """Places and reasons, without recursion: how deep a document goes is its sender's choice."""
    waiting: list[tuple[Place, Any]] = [((), value)]
    while waiting:
        place, found = waiting.pop()
        members: dict[str, Any] = found
        items: list[Any] | tuple[Any, ...] = found
        match found:
            case dict() | list() | tuple() if len(place) >= _DEEPEST:
                yield place[:3], f"must not be nested deeper than {_DEEPEST} levels"
            case dict():
                waiting += [((*place, name), item) for name, item in members.items()]
                waiting += [(place, name) for name in members]
            case list() | tuple():
                waiting += [((*place, number), item) for number, item in enumerate(items)]
            case str() if "\0" in found:
                yield place, "must not contain the character U+0000"
            case str() if not found.isascii() and any("\ud800" <= letter <= "\udfff" for letter in found):
                yield place, "must be whole Unicode characters, not half a surrogate pair"
            case float() if not math.isfinite(found):
                yield place, "must be a finite number"
            case _:
                pass


def reasons(value: Any) -> list[str]:
    """`problems` as sentences that begin with the place."""
    return [f"{'.'.join(map(str, place)) or 'document'}: {why}" for place, why in problems(value)]
