import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import special

from control_plane.domain.experiments import betting
from control_plane.domain.experiments.betting import Bounds
from control_plane.domain.experiments.samples import Interval, Mean

YES_NO = Bounds(yes_no=True)
units = st.lists(st.floats(0, 1), min_size=1, max_size=60)
BETS = 0.5 ** np.arange(1, 16)


def bet_by_bet(values: list[float], m: float) -> float:
    """Log of the average stake after betting on every unit in turn."""
    log_stakes = [sum(math.log(1 + bet * (x / m - 1)) for x in values) for bet in BETS]
    return float(special.logsumexp(log_stakes)) - math.log(len(BETS))


@given(st.integers(0, 200), st.integers(0, 200), st.floats(0.01, 0.99))
def test_the_capital_of_a_yes_no_metric_is_what_betting_unit_by_unit_gives(yes: int, no: int, m: float) -> None:
    stake = bet_by_bet([1.0] * yes + [0.0] * no, m)
    capital = betting.log_capital(Mean.of_events(yes, yes + no), np.array([m]), yes_no=True)[0]
    assert capital == pytest.approx(stake, abs=1e-9)


@given(units, st.floats(0.05, 1))
def test_the_capital_from_sums_never_exceeds_what_betting_unit_by_unit_gives(values: list[float], m: float) -> None:
    capital = betting.log_capital(Mean.of(values), np.array([m]), yes_no=False)[0]
    assert capital <= bet_by_bet(values, m) + 1e-9


def test_the_expected_capital_is_one_under_the_hypothesis() -> None:
    """Over all outcomes of n units with mean m, weighted by their probability: a martingale from 1."""
    n, m = 30, 0.3
    chances = [math.comb(n, k) * m**k * (1 - m) ** (n - k) for k in range(n + 1)]
    capital = [betting.log_capital(Mean.of_events(k, n), np.array([m]), yes_no=True)[0] for k in range(n + 1)]
    assert sum(p * math.exp(c) for p, c in zip(chances, capital, strict=True)) == pytest.approx(1, rel=1e-9)


@given(st.floats(-1, 20), st.floats(0.001, 0.999))
def test_the_inequality_under_the_bound_holds(y: float, k: float) -> None:
    assert 1 + k * y >= math.exp(k * y - (-math.log1p(-k) - k) * y * y) - 1e-12


@settings(max_examples=30)
@given(st.integers(0, 400), st.integers(0, 400), st.floats(0.01, 0.3))
def test_a_mean_outside_the_interval_is_excluded_and_one_inside_is_not(yes: int, no: int, alpha: float) -> None:
    arm = Mean.of_events(yes, yes + no)
    interval = betting.interval(arm, YES_NO, alpha=alpha)
    if not arm.count:
        assert (interval.low, interval.high) == (0, 1)
        return
    wanted = math.log(2 / alpha)
    inside, outside = np.array([interval.low + 1e-4, arm.mean]), np.array([interval.low - 1e-4])
    if inside[0] < arm.mean:
        assert (betting.log_capital(arm, np.sort(inside), yes_no=True) < wanted).all()
    if interval.low > 1e-4:
        assert (betting.log_capital(arm, outside, yes_no=True) >= wanted).all()


@settings(max_examples=20)
@given(units, st.floats(0.01, 0.3))
def test_the_interval_follows_the_units_of_the_metric(values: list[float], alpha: float) -> None:
    plain = betting.interval(Mean.of(values), Bounds(), alpha=alpha)
    scaled = betting.interval(Mean.of([10 + 4 * v for v in values]), Bounds(10, 14), alpha=alpha)
    assert [scaled.low, scaled.high] == pytest.approx([10 + 4 * plain.low, 10 + 4 * plain.high], abs=1e-4)
    flipped = betting.interval(Mean.of([1 - v for v in values]), Bounds(), alpha=alpha)
    assert [1 - flipped.high, 1 - flipped.low] == pytest.approx([plain.low, plain.high], abs=1e-4)


@settings(max_examples=10)
@given(st.integers(0, 60), st.integers(1, 60), st.integers(0, 60), st.integers(1, 60))
def test_an_excluded_difference_is_excluded_for_every_control_mean(a: int, b: int, c: int, d: int) -> None:
    """Brute force over control means, without the grid's rounding."""
    t, s = Mean.of_events(a, a + b), Mean.of_events(c, c + d)
    interval = betting.difference(t, s, YES_NO, alpha=0.1)
    flipped = Mean(s.count, 1 - s.mean, s.m2)

    def product(effect: float) -> float:
        means = np.linspace(max(0.0, -effect), min(1.0, 1 - effect), 81)
        more = [betting.log_capital(t, np.array([m + effect]), yes_no=True)[0] for m in means]
        less = [betting.log_capital(flipped, np.array([1 - m]), yes_no=True)[0] for m in means]
        return float(np.min(np.array(more) + np.array(less)))

    if interval.low > -1:
        assert product(interval.low) >= math.log(2 / 0.1) - 1e-9
        assert product(min(interval.effect, interval.low + 0.02)) < math.log(2 / 0.1) + 1
    mirrored = betting.difference(s, t, YES_NO, alpha=0.1)
    assert [-mirrored.high, -mirrored.low] == pytest.approx([interval.low, interval.high], abs=1e-9)


def test_more_units_narrow_the_interval_around_the_truth() -> None:
    widths = []
    for n in (100, 1_000, 10_000, 100_000):
        interval = betting.difference(Mean.of_events(n // 10, n), Mean.of_events(n // 20, n), YES_NO, alpha=0.05)
        assert interval.low < 0.05 < interval.high
        widths.append(interval.high - interval.low)
    assert all(wide > 2 * narrow for wide, narrow in pairwise(widths))
    assert betting.difference(Mean.of_events(200, 2_000), Mean.of_events(100, 2_000), YES_NO, alpha=0.05).low > 0


def test_no_units_say_nothing() -> None:
    assert betting.interval(Mean(), Bounds(2, 4), alpha=0.05) == Interval(3, 2, 4)
    assert betting.difference(Mean(), Mean.of_events(1, 2), YES_NO, alpha=0.05) == Interval(0, -1, 1)
    assert betting.log_e(Mean(), Mean.of_events(1, 2), YES_NO, null=0.1) == 0


def test_the_evidence_and_the_interval_agree_on_what_is_excluded() -> None:
    t, c = Mean.of_events(200, 2_000), Mean.of_events(100, 2_000)
    interval = betting.difference(t, c, YES_NO, alpha=0.05)
    for end, inward in ((interval.low, 1e-3), (interval.high, -1e-3)):
        assert betting.log_e(t, c, YES_NO, null=end) >= math.log(1 / 0.05)
        assert betting.log_e(t, c, YES_NO, null=end + inward) < math.log(2 / 0.05)
        assert betting.excludes(t, c, YES_NO, null=end, alpha=0.05)
        assert not betting.excludes(t, c, YES_NO, null=end + inward, alpha=0.05)
    assert not betting.excludes(Mean(), c, YES_NO, null=0.0, alpha=0.05)


def test_an_arm_outside_its_bounds_is_refused() -> None:
    with pytest.raises(ValueError, match="impossible"):
        betting.log_e(Mean(), Mean(), Bounds(), null=1.5)
    for arm in (Mean.of([2.0, 3.0]), Mean(10, 0.5, 9.0), Mean.of([-0.5, 0.5])):
        with pytest.raises(ValueError, match="cannot lie within"):
            betting.interval(arm, Bounds(), alpha=0.05)
    for low, high in ((1.0, 1.0), (0.0, math.inf), (math.nan, 1.0)):
        with pytest.raises(ValueError, match="bounds"):
            Bounds(low, high)


def _ever_wrong(runs: int, *, share: float, yes_no: bool, seed: int) -> float:
    rng = np.random.default_rng(seed)
    wrong = 0
    for _ in range(runs):
        x = rng.random((2, 2_000)) < share if yes_no else rng.beta(share, 1 - share, (2, 2_000))
        for n in np.unique(np.geomspace(1, 2_000, 25).astype(int)):
            t, c = (Mean.of(side[:n].astype(float)) for side in x)
            if betting.log_e(t, c, Bounds(yes_no=yes_no), null=0.0) >= math.log(1 / 0.1):
                wrong += 1
                break
    return wrong / runs


@pytest.mark.slow
@pytest.mark.parametrize("share", [0.02, 0.3])
@pytest.mark.parametrize("yes_no", [True, False])
def test_looking_from_the_first_unit_on_keeps_the_error_rate(share: float, yes_no: bool) -> None:
    assert _ever_wrong(150, share=share, yes_no=yes_no, seed=4) <= 0.1 + 3 * math.sqrt(0.1 * 0.9 / 150)


def test_arms_that_never_had_anything_narrow_to_nothing_whether_or_not_values_are_yes_and_no() -> None:
    """The bound of a bounded metric's capital is weak far from its mean: what a larger mean reaches has to count."""
    for yes_no in (True, False):
        found = betting.difference(Mean(10_000), Mean(10_000), Bounds(yes_no=yes_no), alpha=0.05)
        assert -0.003 < found.low <= 0 <= found.high < 0.003
