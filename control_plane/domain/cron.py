"""When a schedule of five fields was last due: minute, hour, day of month, month, day of week; in UTC. Pure.

A field is *, a number, a range (1-5), a list (1,15) or any of these in steps (*/10). Sunday is 0 or 7. Where both days
are given, either makes a day match, as cron has always done.
"""

from datetime import UTC, datetime, timedelta
from typing import Final

_FIELDS: Final = (("minute", 0, 59), ("hour", 0, 23), ("day of month", 1, 31), ("month", 1, 12), ("day of week", 0, 7))
_FURTHEST: Final = 4 * 366 + 1  # days back: a 29 February comes within them, but for the turn of most centuries


def parse(expression: str) -> tuple[frozenset[int], ...]:
    """The values of the five fields. Raises ValueError naming the field that cannot be read."""
    words = expression.split()
    if len(words) != len(_FIELDS):
        raise ValueError(f"{expression!r} has {len(words)} fields, not minute, hour, day of month, month, day of week")
    found = [_values(word, *field) for word, field in zip(words, _FIELDS, strict=True)]
    found[4] = frozenset(0 if day == 7 else day for day in found[4])
    return tuple(found)


def last_due(expression: str, now: datetime) -> datetime | None:
    """The newest minute not after `now` (aware) that matches; None if none of the last four years does."""
    minutes, hours, days, months, weekdays = parse(expression)
    either = not {expression.split()[2][0], expression.split()[4][0]} & {"*"}
    at = now.astimezone(UTC).replace(second=0, microsecond=0)
    day = at.replace(hour=0, minute=0)
    for _ in range(_FURTHEST):
        of_month, of_week = day.day in days, (day.weekday() + 1) % 7 in weekdays
        if day.month in months and (of_month or of_week if either else of_month and of_week):
            times = [day.replace(hour=hour, minute=minute) for hour in hours for minute in minutes]
            if due := [time for time in times if time <= at]:
                return max(due)
        day -= timedelta(days=1)
    return None


def _values(word: str, name: str, low: int, high: int) -> frozenset[int]:
    found: set[int] = set()
    for part in word.split(","):
        span, slash, every = part.partition("/")
        first, dash, last = span.partition("-")
        try:
            step = int(every) if slash else 1
            begin = low if span == "*" else int(first)
            end = high if span == "*" or (slash and not dash) else int(last) if dash else begin
        except ValueError:
            raise ValueError(f"{name}: {part!r} is no number, range or step") from None
        if step < 1 or not low <= begin <= end <= high:
            raise ValueError(f"{name}: {part!r} is not within {low} to {high}")
        found.update(range(begin, end + 1, step))
    return frozenset(found)
