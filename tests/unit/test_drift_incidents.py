"""One incident per episode."""

from datetime import UTC, datetime, timedelta

from control_plane.domain.drift import incidents
from control_plane.domain.drift.incidents import Action, Episode, Step
from control_plane.domain.drift.monitor import Kind, Reading, Severity
from control_plane.domain.rollouts import Verdict

NOW = datetime(2026, 3, 2, 12, tzinfo=UTC)
CALM = (Reading(Kind.DATA, Verdict.PASS, False, 0.01, "calm"),)
DRIFTED = (Reading(Kind.DATA, Verdict.FAIL, True, 0.4, "amount drifted", ("amount",)),)
STALE = (Reading(Kind.PERFORMANCE, Verdict.FAIL, True, 0.1, "worse"),)
OPENED = Episode("3", NOW - timedelta(hours=30), Severity.LOW, (Kind.DATA,), ("amount",))


def step(
    episode: Episode | None,
    readings: tuple[Reading, ...],
    severity: Severity = Severity.LOW,
    *,
    version: str = "3",
    calm: bool = False,
) -> Step:
    return incidents.step(episode, readings, severity, version=version, calm=calm, now=NOW)


def test_the_first_alarm_opens_one_and_the_next_looks_open_no_other() -> None:
    assert step(None, CALM).action is Action.NONE
    opened = step(None, DRIFTED)
    assert (opened.action, opened.features, opened.kinds) == (Action.OPEN, ("amount",), (Kind.DATA,))
    assert step(OPENED, DRIFTED).action is Action.NONE


def test_it_grows_but_its_severity_never_falls() -> None:
    grown = step(OPENED, (*DRIFTED, *STALE), Severity.HIGH)
    assert (grown.action, grown.severity, grown.kinds) == (
        Action.CHANGE,
        Severity.HIGH,
        (Kind.DATA, Kind.PERFORMANCE),
    )
    high = Episode("3", OPENED.opened_at, Severity.HIGH, grown.kinds, grown.features)
    assert step(high, DRIFTED, Severity.LOW).action is Action.NONE


def test_it_closes_after_a_calm_day_and_not_before() -> None:
    assert step(OPENED, DRIFTED, calm=True).action is Action.CLOSE  # the evidence of past days still stands
    assert step(OPENED, CALM).action is Action.NONE
    young = Episode("3", NOW - timedelta(hours=2), Severity.LOW, (Kind.DATA,), ("amount",))
    assert step(young, CALM, calm=True).action is Action.NONE
    assert step(OPENED, (*CALM, *STALE), calm=True).action is Action.CHANGE


def test_a_new_version_that_is_not_drifting_closes_it() -> None:
    assert step(OPENED, CALM, version="4").action is Action.CLOSE
    unknown = (Reading(Kind.DATA, Verdict.INCONCLUSIVE, False, None, "too early"),)
    assert step(OPENED, unknown, version="4").action is Action.NONE
    assert step(OPENED, unknown, version="4", calm=True).action is Action.CLOSE  # never enough rows to say PASS
    assert step(OPENED, STALE, version="4", calm=True).action is Action.CHANGE
    assert step(OPENED, DRIFTED, version="4").action is Action.CHANGE
