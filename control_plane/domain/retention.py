"""When an hour of the prediction log is written to the archive, and when a day may leave Postgres. Pure."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

SETTLE: Final = timedelta(minutes=10)  # after an hour's end: the spools have it in Postgres by then
REWRITE: Final = timedelta(days=1)  # an hour whose outcomes come in is written again once a day
_FOLDED: Final = timedelta(days=1)  # that labels may take to be folded into performance, once they had their time


@dataclass(frozen=True, slots=True)
class Due:
    """Hours that began before `begun_before` are archived; again, if changed, once their file is `written_before`."""

    begun_before: datetime
    written_before: datetime


def due(now: datetime) -> Due:
    return Due(now - timedelta(hours=1) - SETTLE, now - REWRITE)


def ripe_at(day: datetime, delays: Iterable[timedelta]) -> datetime:
    """When every label of the day's predictions had its time, and a day more to count.

    `day`: its midnight. `delays`: label delays of the models that answered on it.
    """
    return day + timedelta(days=1) + max(delays, default=timedelta()) + _FOLDED
