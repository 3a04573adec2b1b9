"""What the monitor takes for usual, what it calls an alarm, and how bad it says it is."""

import math
from datetime import date, timedelta

import numpy as np
import pytest

from control_plane.domain.drift import decide, evidence, fold, monitor
from control_plane.domain.drift.estimate import Estimate
from control_plane.domain.drift.evidence import Day
from control_plane.domain.drift.monitor import Course, Kind, Reading, Severity, Weighed
from control_plane.domain.model_config import FeatureType
from control_plane.domain.rollouts import Verdict

TYPES = {"amount": FeatureType.NUMBER, "age": FeatureType.NUMBER}
RNG = np.random.default_rng(4)
REFERENCE = fold.reference(
    {"amount": RNG.normal(0, 1, 20_000), "age": RNG.normal(0, 1, 20_000)}, TYPES, cells=fold.Cells()
)
SCORES = evidence.scores_of(REFERENCE)
SETTINGS = monitor.settings_for(0.01, Kind.DATA)
PRIOR = evidence.prior(SCORES, REFERENCE, SETTINGS)
START = date(2026, 3, 2)


def measured(shift: float, rows: int = 1_000) -> Day:
    rng = np.random.default_rng([int(shift * 1_000) + 10_000, rows])
    given = {"amount": rng.normal(shift, 1, rows), "age": rng.normal(0, 1, rows)}
    return evidence.measure(SCORES, fold.fold(REFERENCE, given))


def course(shifts: list[float], today: Day | None = None, hours: list[float] | None = None) -> Course:
    days = {START + timedelta(days=n): measured(shift + n * 1e-3) for n, shift in enumerate(shifts)}
    same = {START + timedelta(days=n): measured(shift + n * 1e-3) for n, shift in enumerate(hours or [])}
    return Course(days, same, today)


def weigh(given: Course, *, day: int, excluded: tuple[date, ...] = (), early: bool = False, since: int = 0) -> Weighed:
    when = START + timedelta(days=day)
    begun = START + timedelta(days=since)
    return monitor.weigh(SCORES, PRIOR, given, when, since=begun, excluded=excluded, settings=SETTINGS, early=early)


def test_before_a_day_is_known_there_is_no_evidence_unless_asked_for() -> None:
    night = course([], measured(1.5))
    assert weigh(night, day=0).evidence is None
    early = weigh(night, day=0, early=True).evidence
    assert early is not None
    assert early.alarm
    assert weigh(course([]), day=0, early=True).evidence is None


def test_the_course_of_a_day_is_no_drift_once_it_is_known() -> None:
    mornings = [0.8] * 10  # every morning is like that, the whole day is not
    found = weigh(course([0.0] * 10, measured(0.81), mornings), day=10)
    assert found.basis == "10 usual days"
    assert found.evidence is not None
    assert not found.evidence.alarm
    moved = weigh(course([0.0] * 10, measured(1.2), mornings), day=10).evidence
    assert moved is not None
    assert monitor.leading(moved) == ("amount",)


def test_weekdays_are_seasons_once_there_are_enough() -> None:
    weekends = [0.0, 0.0, 0.0, 0.0, 0.0, 0.6, 0.6]
    found = weigh(course(weekends * 4), day=28)
    assert found.basis == "28 usual days by weekday"
    assert found.evidence is not None
    assert not found.evidence.alarm


def test_days_of_an_incident_teach_nothing_and_evidence_starts_anew_after_it() -> None:
    days = [0.0] * 10 + [1.0] * 3 + [0.0] * 2
    drifted = tuple(START + timedelta(days=n) for n in (10, 11, 12))
    found = weigh(course(days), day=15, excluded=drifted).evidence
    assert found is not None
    assert found.alarm
    anew = weigh(course(days), day=15, excluded=drifted, since=13)
    assert anew.evidence is not None
    assert not anew.evidence.alarm
    assert anew.basis == "12 usual days"


def test_a_calm_day_is_one_whose_features_are_back_where_they_were() -> None:
    given = course([0.0] * 10)
    usual, season = monitor.usual_day(given, START + timedelta(days=10), PRIOR, excluded=(), settings=SETTINGS)
    facts = {"season": season, "settings": SETTINGS}
    assert evidence.is_calm(SCORES, measured(0.004), usual, {"amount"}, **facts)  # type: ignore[arg-type]
    assert not evidence.is_calm(SCORES, measured(0.4), usual, {"amount"}, **facts)  # type: ignore[arg-type]
    assert evidence.is_calm(SCORES, measured(0.4), usual, {"age"}, **facts)  # type: ignore[arg-type]
    assert not evidence.is_calm(SCORES, measured(0.0, 20), usual, {"amount"}, **facts)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("value", "sd", "verdict"), [(0.84, 0.01, "pass"), (0.70, 0.01, "fail"), (0.70, 0.2, "inconclusive")]
)
def test_performance_is_worse_only_beyond_doubt(value: float, sd: float, verdict: str) -> None:
    found = monitor.read_performance(
        "roc_auc", Estimate(value, sd, 500), 0.85, 0.84, drop=0.05, alpha=1e-6, how="realised"
    )
    assert found.verdict == verdict
    assert found.alarm is (verdict == "fail")
    assert found.score == pytest.approx(0.85 - value)


def test_of_an_error_metric_more_is_worse() -> None:
    worse = monitor.read_performance("mae", Estimate(9.0, 0.1, 500), 5.0, 5.2, drop=1.0, alpha=1e-6, how="realised")
    better = monitor.read_performance("mae", Estimate(1.0, 0.1, 500), 5.0, 5.2, drop=1.0, alpha=1e-6, how="realised")
    assert (worse.verdict, better.verdict) == (Verdict.FAIL, Verdict.PASS)


def test_performance_of_no_number_is_inconclusive() -> None:
    for value, usual in ((math.nan, 0.85), (0.84, math.nan), (math.inf, 0.85)):
        found = monitor.read_performance(
            "roc_auc", Estimate(value, 0.01, 500), usual, None, drop=0.05, alpha=1e-6, how="realised"
        )
        assert (found.verdict, found.alarm, found.score) == (Verdict.INCONCLUSIVE, False, None)


def test_features_explain_a_shift_by_distance_and_importance() -> None:
    window = fold.fold(REFERENCE, {"amount": RNG.normal(0.8, 1, 5_000), "age": RNG.normal(0.8, 1, 5_000)})
    report = decide.compare(REFERENCE, window, decide.Policy())
    shares = monitor.attribute(report, {"amount": 0.9, "age": 0.1}, ("amount", "age"))
    assert [share.name for share in shares] == ["amount", "age"]
    assert sum(share.share for share in shares) == pytest.approx(1)
    assert shares[0].share == pytest.approx(0.9, abs=0.05)
    assert monitor.attribute(report, {}, ("amount",)) == ()


def test_an_incident_is_as_bad_as_what_it_does_to_the_answers() -> None:
    def alarm(kind: Kind) -> Reading:
        return Reading(kind, Verdict.FAIL, True, 0.5, "")

    assert monitor.severity([alarm(Kind.DATA)], (), {}) is Severity.LOW
    assert monitor.severity([alarm(Kind.QUALITY)], (), {}) is Severity.MEDIUM
    assert monitor.severity([alarm(Kind.DATA), alarm(Kind.PREDICTION)], (), {}) is Severity.HIGH
    assert monitor.severity([alarm(Kind.PERFORMANCE)], (), {}) is Severity.HIGH
    heard = (monitor.Share("amount", 0.4, 0.9, 1.0),)
    assert monitor.severity([alarm(Kind.DATA)], heard, {"amount": 0.9, "age": 0.1}) is Severity.MEDIUM


def test_a_measured_day_comes_back_as_it_was() -> None:
    day = measured(0.3)
    back = monitor.measured_from(monitor.measured_json(day))
    assert np.allclose(back.mean, day.mean, rtol=1e-8)
    assert back.blocks.tolist() == day.blocks.tolist()


def test_days_taken_one_by_one_are_the_days_taken_together() -> None:
    given = course([0.0] * 12 + [0.4] * 2, measured(0.4), [0.0] * 14)
    drifted = (START + timedelta(days=12),)
    facts = {"since": START + timedelta(days=1), "excluded": drifted, "settings": SETTINGS}
    past = monitor.begin(SCORES)
    for day, one in given.closed.items():
        past = monitor.advance(past, given.closed, day, one, PRIOR, **facts)
    today = START + timedelta(days=14)
    together = monitor.weigh(SCORES, PRIOR, given, today, early=False, **facts)
    one_by_one = monitor.weigh(SCORES, PRIOR, given, today, early=False, past=past, learnt={}, **facts)
    assert together.evidence is not None
    assert together.evidence.alarm
    assert one_by_one == together
