"""One incident per episode: it opens with the first alarm, grows while drift does, and closes when it is over.

Hysteresis: an alarm of an hour opens one, but it takes a day to close it; its severity never falls while it is open.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from control_plane.domain.drift.monitor import Kind, Reading, Severity
from control_plane.domain.rollouts import Verdict

_LEAST_OPEN = timedelta(hours=24)
_RANK = {severity: rank for rank, severity in enumerate(Severity)}


class Action(StrEnum):
    NONE = "none"
    OPEN = "open"
    CHANGE = "change"
    CLOSE = "close"


@dataclass(frozen=True, slots=True)
class Episode:
    """What an open incident says so far."""

    version: str
    opened_at: datetime
    severity: Severity
    kinds: tuple[Kind, ...]
    features: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Step:
    """What to do about it now. For CLOSE the other members are those of the episode."""

    action: Action
    severity: Severity
    kinds: tuple[Kind, ...]
    features: tuple[str, ...]
    why: str


def step(
    episode: Episode | None,
    readings: Sequence[Reading],
    severity: Severity,
    *,
    version: str,
    calm: bool,
    now: datetime,
) -> Step:
    """`calm`: a whole day after the incident's opening was as usual. `version`: the one that was looked at.

    A version that took over ends the incident of the one before when its traffic is as it was trained for. Where its
    reference has too few rows for that ever to be said, it does so by a whole day that the evidence finds as usual.
    """
    alarms = [reading for reading in readings if reading.alarm]
    kinds = tuple(reading.kind for reading in alarms)
    features = tuple(dict.fromkeys(name for reading in alarms for name in reading.features))
    why = " ".join(reading.why for reading in alarms)
    if episode is None:
        return Step(Action.OPEN if alarms else Action.NONE, severity, kinds, features, why)
    if not alarms and episode.version != version:
        passed = any(reading.kind is Kind.DATA and reading.verdict is Verdict.PASS for reading in readings)
        if passed:
            return _closed(episode, f"Version {version} answers now, and its traffic is as it was trained for.")
        if calm:
            return _closed(episode, f"Version {version} answers now, and a whole day of it was as usual.")
        return Step(Action.NONE, episode.severity, episode.kinds, episode.features, "")
    lasting = [kind for kind in kinds if kind not in {Kind.DATA, Kind.PREDICTION}]
    if episode.version == version and now - episode.opened_at >= _LEAST_OPEN:
        followed = {Kind.DATA, Kind.PREDICTION} & {*episode.kinds, *kinds}
        if not lasting and (calm or not followed):
            return _closed(episode, "A whole day was as usual.")
    grown = Step(
        Action.CHANGE,
        max(episode.severity, severity, key=_RANK.__getitem__) if alarms else episode.severity,
        tuple(dict.fromkeys((*episode.kinds, *kinds))),
        tuple(dict.fromkeys((*episode.features, *features))),
        why,
    )
    same = (grown.severity, grown.kinds, grown.features) == (episode.severity, episode.kinds, episode.features)
    if same and (episode.version == version or not alarms):
        return Step(Action.NONE, episode.severity, episode.kinds, episode.features, "")
    return grown


def _closed(episode: Episode, why: str) -> Step:
    return Step(Action.CLOSE, episode.severity, episode.kinds, episode.features, why)
