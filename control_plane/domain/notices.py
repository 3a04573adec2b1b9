"""Who is told of what, and when it is tried again. Pure; sending is `adapters.notify`."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from fnmatch import fnmatchcase

from control_plane.domain.governance.policy import Severity

GIVEN_UP = timedelta(days=7)
_FIRST_S, _LONGEST_S = 5.0, 900.0
_RANK = {Severity.INFO: 0, Severity.WARNING: 1, Severity.CRITICAL: 2}


@dataclass(frozen=True, slots=True)
class Notice:
    """Something people are told. `key`: what happened, so that the same is told once. No personal data in any of it.

    `event`: signal.notify, approval.asked, report.made, ... `path`: where to look, below the API's address.
    """

    key: str
    event: str
    severity: Severity
    model: str | None
    title: str
    lines: tuple[str, ...] = ()
    path: str | None = None


@dataclass(frozen=True, slots=True)
class Route:
    """What a receiver is told of: `severity` and above, of models and events that match a pattern (fnmatch).

    What is about no model matches every pattern of models.
    """

    receiver: str
    severity: Severity
    models: tuple[str, ...] = ("*",)
    events: tuple[str, ...] = ("*",)


def receivers(routes: Sequence[Route], *, event: str, severity: Severity, model: str | None) -> list[str]:
    """Names of those to be told, each once, in the order of the routes."""
    found = [
        route.receiver
        for route in routes
        if _RANK[severity] >= _RANK[route.severity]
        and any(fnmatchcase(event, pattern) for pattern in route.events)
        and (model is None or any(fnmatchcase(model, pattern) for pattern in route.models))
    ]
    return list(dict.fromkeys(found))


def again(attempt: int, *, since: datetime, now: datetime, jitter: float) -> datetime | None:
    """When to try after the `attempt`-th failure (from 1): 5 s later, doubling to a quarter of an hour; None: no more.

    `jitter` in 0..1 spreads it by a fifth up and down. `since`: when it was first wanted.
    """
    if now - since > GIVEN_UP:
        return None
    wait = min(_FIRST_S * 2.0 ** min(attempt - 1, 20), _LONGEST_S)
    return now + timedelta(seconds=wait * (0.8 + 0.4 * jitter))
