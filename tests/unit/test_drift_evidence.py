import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from control_plane.domain.drift import evidence, fold, profiles
from control_plane.domain.drift.evidence import Baseline, Day, Settings, State
from control_plane.domain.drift.fold import Cells
from control_plane.domain.model_config import FeatureType
from tests.support import drift_streams as streams
from tests.support.drift_streams import Stream

SETTINGS = Settings()
SCORES = evidence.scores_of(streams.reference())
TYPES = {"x": FeatureType.NUMBER, "c": FeatureType.CATEGORY, "b": FeatureType.BOOLEAN, "t": FeatureType.TEXT}
RNG = np.random.default_rng(9)


def columns(n: int, shift: float = 0.0) -> dict[str, fold.Column]:
    return {
        "x": RNG.normal(shift, 1, n),
        "c": RNG.choice(["a", "b", "c", "d"], n, p=[0.4, 0.3, 0.2, 0.1]).tolist(),
        "b": (RNG.random(n) < 0.2).tolist(),
        "t": ["w" * k for k in RNG.integers(1, 30, n)],
    }


REFERENCE = fold.reference(columns(50_000), TYPES, cells=Cells())
SMALL = evidence.scores_of(REFERENCE)


def day(n: int, shift: float = 0.0) -> Day:
    return evidence.measure(SMALL, fold.fold(REFERENCE, columns(n, shift)))


def test_scores_are_standardised_on_the_reference() -> None:
    own = evidence.measure(SMALL, REFERENCE)
    assert own.mean == pytest.approx(0, abs=1e-9)
    assert (own.variance <= 1 + 1e-9).all()
    by_name = dict(zip(SMALL.names, own.variance, strict=True))
    assert by_name["x", "location"] == pytest.approx(1)
    assert by_name["x", "absent"] == 0  # never absent in the reference
    assert {name for name, _ in SMALL.names} == set(TYPES)
    for feature in TYPES:
        stake = [w for (f, _), w in zip(SMALL.names, SMALL.log_weights, strict=True) if f == feature]
        assert sum(map(math.exp, stake)) == pytest.approx(1)


def test_a_location_is_the_shift_in_standard_deviations() -> None:
    moved = dict(zip(SMALL.names, day(200_000, 0.25).mean, strict=True))
    exact = math.sqrt(12) * (float(stats.norm.cdf(0.25 / math.sqrt(2))) - 0.5)
    assert moved["x", "location"] == pytest.approx(exact, abs=0.01)
    assert moved["x", "location"] == pytest.approx(0.25, abs=0.02)
    assert moved["b", "false"] == pytest.approx(0, abs=0.01)


def test_parts_of_a_day_merge_to_the_day() -> None:
    parts = [fold.fold(REFERENCE, columns(500)) for _ in range(2)]
    whole = evidence.measure(SMALL, profiles.merge(*parts))
    left, right = (evidence.measure(SMALL, part) for part in parts)
    assert whole.mean == pytest.approx((left.mean + right.mean) / 2)
    assert whole.blocks == pytest.approx(1_000)


def _usual(n_days: int, blocks: int, s: Settings = SETTINGS) -> Baseline:
    return evidence.baseline([day(blocks) for _ in range(n_days)], [0] * n_days, s)


def test_the_baseline_recovers_centre_and_spread_of_days() -> None:
    stream, rng = Stream(season=0.3, day_sd=0.05), np.random.default_rng(2)
    usual = streams.usual(SCORES, stream, rng, count=140, blocks=100_000, s=SETTINGS)
    at = SCORES.names.index(("x0", "location"))
    for season in range(7):
        expected = 0.3 * math.sin(2 * math.pi * season / 7) * 0.95
        assert usual.centre[season, at] == pytest.approx(expected, abs=4 * usual.error[season, at] + 0.01)
    places = [i for i, (name, score) in enumerate(SCORES.names) if name[0] == "x" and score == "location"]
    assert usual.day_sd[places].min() > 0.04  # upper limits of 0.05 * 0.97, from 133 degrees of freedom each
    assert usual.day_sd[places].max() < 0.065
    assert 0.048 < usual.day_sd[places].mean() < 0.055
    assert usual.error[0, at] == pytest.approx(usual.day_sd[at] / math.sqrt(20), rel=0.05)


@settings(max_examples=30)
@given(st.floats(-0.3, 0.3), st.floats(0.01, 0.2), st.integers(50, 10_000))
def test_the_expected_payoff_is_at_most_one_wherever_the_centre_is_within_delta(
    where: float, day_sd: float, blocks: int
) -> None:
    """Integral over the day's measured mean, every point of the grid a score of its own."""
    z = np.linspace(-40, 40, 8_001)  # the largest payoffs are far out: t / sqrt(v) standard deviations
    one = np.ones(len(z))
    usual = Baseline((0,), 0 * one[None, :], 0.02 * one[None, :], day_sd * one)
    s = replace(SETTINGS, horizon_days=1)
    delta = s.threshold + s.radius_z * 0.02
    centre = max(-delta, min(delta, where))
    sd = math.sqrt(day_sd**2 + 1 / blocks)
    measured = Day(blocks * one, centre + z * sd, one)
    closed = evidence.close(State(np.full((len(z), 2, 3), -np.inf)), measured, usual, season=0, settings=s)
    log_density = stats.norm.logpdf(z)[:, None, None]
    expected = np.exp(closed.log_stakes + log_density).sum(axis=0) * (z[1] - z[0])
    assert (expected <= 1 + 1e-9).all()
    if abs(where) >= delta:  # at the edge of H0 the bet is fair, not merely bounded
        assert expected[0 if centre > 0 else 1] == pytest.approx(1, abs=1e-9)


def test_a_shift_is_found_named_and_forgotten_after_it_ends() -> None:
    usual, state = _usual(30, 2_000), evidence.start(SMALL)
    log_e, whys = [], []
    for shift in [0.0] * 3 + [0.4] * 3 + [0.0] * 12:
        today = day(2_000, shift)
        seen = evidence.look(SMALL, state, today, usual, season=0, settings=SETTINGS)
        state = evidence.close(state, today, usual, season=0, settings=SETTINGS)
        log_e.append(seen.log_e)
        whys.append(seen.why)
        assert seen.alarm == (seen.log_e >= math.log(100))
        if shift:
            assert next(iter(seen.features)) == "x"
    assert max(log_e[:3]) < 0
    assert log_e[4] > math.log(100)
    assert whys[5].startswith("drift: evidence")
    assert "x (location)" in whys[5]
    assert log_e[-1] < log_e[5] - 20  # every calm day takes from the stake
    assert state.days == 18


def test_a_new_category_and_a_feature_that_goes_missing_are_found() -> None:
    usual, state = _usual(30, 2_000), evidence.start(SMALL)
    unseen = columns(2_000) | {"c": ["new"] * 100 + ["a"] * 1_900}
    absent = columns(2_000) | {"b": [None] * 200 + [True] * 360 + [False] * 1_440}
    for changed, name in ((unseen, "c"), (absent, "b")):
        today = evidence.measure(SMALL, fold.fold(REFERENCE, changed))
        seen = evidence.look(SMALL, state, today, usual, season=0, settings=SETTINGS)
        assert seen.alarm
        assert next(iter(seen.features)) == name


def test_too_few_blocks_bet_nothing() -> None:
    usual, state = _usual(30, 2_000), evidence.start(SMALL)
    few = evidence.look(SMALL, state, day(49, 3.0), usual, season=0, settings=SETTINGS)
    assert few.log_e == pytest.approx(-math.log(SETTINGS.horizon_days))
    assert evidence.look(SMALL, state, day(200, 3.0), usual, season=0, settings=SETTINGS).alarm


def test_looking_changes_nothing_and_closing_is_the_last_look() -> None:
    usual, state, today = _usual(30, 500), evidence.start(SMALL), day(500, 0.3)
    first, again = (evidence.look(SMALL, state, today, usual, season=0, settings=SETTINGS) for _ in range(2))
    assert first == again
    closed = evidence.close(state, today, usual, season=0, settings=SETTINGS)
    empty = Day(0 * today.blocks, today.mean, today.variance)
    after = evidence.look(SMALL, closed, empty, usual, season=0, settings=SETTINGS)
    assert after.log_e >= first.log_e  # plus the stake put in for the new day, which bets nothing yet


def test_what_cannot_be_measured_is_refused() -> None:
    usual, state = _usual(30, 500), evidence.start(SMALL)
    other = fold.reference({"x": [1.0, 2.0]}, {"x": FeatureType.NUMBER}, cells=Cells())
    calls: list[Callable[[], object]] = [
        lambda: evidence.measure(SMALL, other),
        lambda: evidence.look(SMALL, state, day(500), usual, season=3, settings=SETTINGS),
        lambda: evidence.baseline([day(100)] * 8, [0] * 8, SETTINGS),
        lambda: evidence.baseline([day(100)] * 20, [0] * 19 + [1], SETTINGS),
        lambda: evidence.baseline([day(100)] * 20, [0] * 19, SETTINGS),
        lambda: evidence.measure(evidence.scores_of(profiles.Profile(0, {})), REFERENCE),
        lambda: Settings(alpha=0.0),
        lambda: Settings(threshold=0.0),
    ]
    for call in calls:
        with pytest.raises(ValueError, match=r"\w"):
            call()


def test_calm_traffic_of_thirty_features_raises_no_alarm_in_a_month() -> None:
    for blocks in (200, 200_000):
        assert (
            streams.first_alarm(
                SCORES, Stream(), np.random.default_rng(1), count=30, looks=2, blocks=blocks, s=SETTINGS
            )
            is None
        )
