"""Which days of a model's traffic are measured, when again, and which of them may teach what is usual. Pure.

A day is measured whole once it is over, and up to each full hour while it lasts.
"""

from collections.abc import Collection, Iterable, Mapping
from datetime import UTC, date, datetime, timedelta
from typing import Final

from control_plane.domain.drift import evidence, monitor
from control_plane.domain.drift.evidence import Baseline, Day, Scores, Settings
from control_plane.domain.drift.monitor import Course

WHOLE: Final = 23  # the hour whose end is the day's
_CATCH_UP: Final = 7  # days back whose end the worker may have slept through
_LATE: Final = 3  # hours into a day what came late still counts for the day before

Span = tuple[datetime, datetime | None]  # an incident's opening and close, None while it is open


def last_hour(now: datetime) -> int:
    """The last hour of today that is over; -1 in the first one."""
    return now.astimezone(UTC).hour - 1


def to_close(known: Collection[date], now: datetime) -> list[date]:
    """Past days that are to be measured whole, oldest first. `known`: those that have been."""
    today = now.astimezone(UTC).date()
    past = [today - timedelta(days=back) for back in range(_CATCH_UP, 0, -1)]
    still_comes = {past[-1]} if now.astimezone(UTC).hour < _LATE else set[date]()
    return [day for day in past if day not in known or day in still_comes]


def course(closed: Mapping[date, Day], same_hour: Mapping[date, Day], today: Day | None, *, early: bool) -> Course:
    """The days that count. The first one is never whole, and teaches nothing unless an `early` answer is asked for."""
    ordered = dict(sorted(closed.items()))
    if ordered and not early:
        del ordered[next(iter(ordered))]
    return Course(ordered, same_hour, today)


def of_incidents(spans: Iterable[Span], now: datetime) -> list[date]:
    """Every day of these incidents, the day before each included: drift begins before it is noticed."""
    found: list[date] = []
    for opened, closed in spans:
        first, last = opened.date() - timedelta(days=1), (closed or now).date()
        found += [first + timedelta(days=n) for n in range((last - first).days + 1)]
    return found


def since(closed: datetime | None) -> date:
    """From when on evidence counts: anew with the day after an incident was over."""
    return date.min if closed is None else closed.astimezone(UTC).date()


def is_calm(
    scores: Scores,
    course: Course,
    prior: Baseline,
    opened: datetime,
    features: Collection[str],
    *,
    excluded: Collection[date],
    settings: Settings,
) -> bool:
    """Whether the newest whole day, one after the incident's opening, was as usual in these features; none: in all."""
    if not course.closed or (last := max(course.closed)) <= opened.date():
        return False
    usual, season = monitor.usual_day(course, last, prior, excluded=excluded, settings=settings)
    named = set(features) or {name for name, _ in scores.names}
    return evidence.is_calm(scores, course.closed[last], usual, named, season=season, settings=settings)
