"""Which days are measured and which count: none is missed, none but the newest is measured twice."""

from datetime import UTC, date, datetime, timedelta

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from control_plane.domain.drift import days, evidence, fold, monitor
from control_plane.domain.drift.evidence import Day
from control_plane.domain.drift.monitor import Course, Kind
from control_plane.domain.model_config import Drift, FeatureType

moments = st.integers(10**9, 4 * 10**9).map(lambda seconds: datetime.fromtimestamp(seconds, UTC))
TODAY = date(2026, 11, 10)
MEASURED = Day(np.full(1, 100.0), np.zeros(1), np.ones(1))


def at(hour: int) -> datetime:
    return datetime(TODAY.year, TODAY.month, TODAY.day, hour, 30, tzinfo=UTC)


@given(moments, st.sets(st.integers(1, 10)))
def test_every_day_of_the_last_week_is_measured_whole_and_only_yesterday_again(now: datetime, back: set[int]) -> None:
    known = {now.date() - timedelta(days=n) for n in back}
    found = days.to_close(known, now)
    week = {now.date() - timedelta(days=n) for n in range(1, 8)}
    assert week - known <= set(found) <= week
    assert found == sorted(found)
    assert set(found) & known <= {now.date() - timedelta(days=1)}
    assert now.date() not in found


def test_yesterday_is_measured_again_until_what_comes_late_is_there() -> None:
    yesterday = TODAY - timedelta(days=1)
    week = {TODAY - timedelta(days=n) for n in range(1, 8)}
    assert [days.to_close(week, at(hour)) for hour in (0, 2, 3)] == [[yesterday], [yesterday], []]
    assert [days.last_hour(at(hour)) for hour in (0, 1, 23)] == [-1, 0, 22]


@given(st.dictionaries(st.dates(date(2026, 1, 1), date(2026, 12, 31)), st.just(MEASURED)), st.booleans())
def test_the_first_day_counts_only_where_an_early_answer_is_asked_for(closed: dict[date, Day], early: bool) -> None:
    found = days.course(closed, {}, None, early=early)
    assert list(found.closed) == sorted(closed)[0 if early else 1 :]


@given(moments, st.timedeltas(timedelta(), timedelta(days=60)), st.booleans())
def test_days_of_an_incident_have_no_gap_and_begin_the_day_before(
    opened: datetime, lasted: timedelta, over: bool
) -> None:
    closed = opened + lasted
    found = days.of_incidents([(opened, closed if over else None)], closed)
    assert found[0] == opened.date() - timedelta(days=1)
    assert found[-1] == closed.date()
    assert len(found) == len(set(found)) == (found[-1] - found[0]).days + 1
    assert days.since(closed) == found[-1]
    assert days.since(None) == date.min


def test_calm_is_a_whole_day_after_the_opening_that_was_as_usual_in_the_features_of_the_incident() -> None:
    rng = np.random.default_rng(2)
    types = {"a": FeatureType.NUMBER, "b": FeatureType.NUMBER}
    grid = fold.reference({name: rng.normal(0, 1, 5_000) for name in types}, types, cells=fold.Cells())
    scores = evidence.scores_of(grid)
    settings = monitor.settings_for(0.01, Kind.DATA)
    prior = evidence.prior(scores, grid, settings)

    def measured(shift: float) -> Day:
        given_ = {"a": rng.normal(shift, 1, 2_000), "b": rng.normal(0, 1, 2_000)}
        return evidence.measure(scores, fold.fold(grid, given_))

    def calm(shift: float, opened: datetime, *features: str) -> bool:
        course = Course({TODAY - timedelta(days=2): measured(0), TODAY: measured(shift)}, {}, None)
        return days.is_calm(scores, course, prior, opened, features, excluded=(), settings=settings)

    before = at(12) - timedelta(days=1)
    assert calm(0.0, before, "a")
    assert not calm(0.0, at(1), "a"), "the day of the opening is no whole day after it"
    assert not calm(2.0, before, "a")
    assert not calm(2.0, before), "no feature named: all of them"
    assert calm(2.0, before, "b")
    nothing = Course({}, {}, None)
    assert not days.is_calm(scores, nothing, prior, before, (), excluded=(), settings=settings)


@given(st.integers(0, 10**6), st.integers(0, 10**4))
def test_rows_of_one_customer_count_as_one_together_and_never_as_more(rows: int, blocks: int) -> None:
    policy = monitor.policy_for(Drift(psi=0.2, alpha=0.05), rows=rows, blocks=blocks)
    assert (policy.psi, policy.alpha) == (0.2, 0.05)
    assert policy.rows_per_unit == (max(1.0, rows / blocks) if blocks else 1.0)


def test_an_early_answer_takes_the_first_days_for_alike_and_spends_no_more_alpha() -> None:
    usual, early = (monitor.settings_for(0.01, Kind.DATA, early=early) for early in (False, True))
    assert early.prior_day_sd < usual.prior_day_sd
    assert early.alpha == usual.alpha == pytest.approx(0.01 * monitor.ALPHAS[Kind.DATA])
    assert sum(monitor.ALPHAS.values()) == pytest.approx(1)
