import math
from collections.abc import Callable
from itertools import accumulate

import numpy as np
import pytest
import statsmodels.api as sm
from hypothesis import given
from hypothesis import strategies as st

from control_plane.domain.experiments import samples
from control_plane.domain.experiments.samples import Estimate, Interval, Mean, Pair

values = st.lists(st.floats(-1e4, 1e4), max_size=40)
RNG = np.random.default_rng(3)


def close(a: Mean, b: Mean) -> bool:
    scale = max(1.0, abs(a.mean), abs(b.mean))
    same_mean = math.isclose(a.mean, b.mean, rel_tol=1e-9, abs_tol=1e-9 * scale)
    return a.count == b.count and same_mean and math.isclose(a.m2, b.m2, rel_tol=1e-9, abs_tol=1e-6)


@given(values, values, values)
def test_adding_arms_in_any_order_is_the_arm_of_all_units(a: list[float], b: list[float], c: list[float]) -> None:
    x, y, z = Mean.of(a), Mean.of(b), Mean.of(c)
    assert x + y == y + x
    assert close((x + y) + z, x + (y + z))
    assert close(x + y + z, Mean.of([*a, *b, *c]))
    assert Mean() + x == x


@given(st.lists(st.tuples(st.floats(-1e3, 1e3), st.floats(-1e3, 1e3)), max_size=40), st.integers(0, 40))
def test_adding_pairs_is_the_pair_of_all_units(pairs: list[tuple[float, float]], cut: int) -> None:
    def pair(part: list[tuple[float, float]]) -> Pair:
        return Pair.of([p[0] for p in part], [p[1] for p in part])

    merged, whole = pair(pairs[:cut]) + pair(pairs[cut:]), pair(pairs)
    assert close(merged.y, whole.y)
    assert close(merged.x, whole.x)
    assert merged.c == pytest.approx(whole.c, rel=1e-9, abs=1e-5)


@given(st.lists(st.floats(-1e4, 1e4), min_size=2, max_size=40))
def test_the_variance_is_numpys(units: list[float]) -> None:
    one_by_one = list(accumulate((Mean.of([v]) for v in units), lambda a, b: a + b))[-1]
    assert one_by_one.variance == pytest.approx(float(np.var(units, ddof=1)), rel=1e-9, abs=1e-6)


@given(st.integers(0, 300), st.integers(0, 300))
def test_a_yes_no_arm_is_the_arm_of_its_zeros_and_ones(yes: int, no: int) -> None:
    assert close(Mean.of_events(yes, yes + no), Mean.of([1.0] * yes + [0.0] * no))
    assert Mean.of_events(yes, yes + no).events == yes


def test_a_ratio_agrees_with_the_bootstrap_of_its_units() -> None:
    sessions = RNG.poisson(4, 4_000) + 1.0
    spend = sessions * RNG.lognormal(0, 0.5, 4_000)
    estimate = samples.ratio(Pair.of(spend, sessions))
    assert estimate.value == pytest.approx(spend.sum() / sessions.sum(), rel=1e-12)
    picks = RNG.integers(0, 4_000, (2_000, 4_000))
    resampled = spend[picks].sum(axis=1) / sessions[picks].sum(axis=1)
    assert math.sqrt(estimate.variance) == pytest.approx(float(resampled.std()), rel=0.06)  # 3.8 sd of the bootstrap


def test_a_ratio_by_one_is_the_mean() -> None:
    spend = RNG.lognormal(size=50)
    with_noise = RNG.normal(1, 1e-9, 50)
    plain = samples.mean(Mean.of(spend))
    assert samples.ratio(Pair.of(spend, np.ones(50))).variance == pytest.approx(plain.variance, rel=1e-9)
    assert samples.ratio(Pair.of(spend, with_noise)).value == pytest.approx(plain.value, rel=1e-6)


@given(st.floats(0.5, 10), st.floats(0.5, 10), st.floats(1e-6, 1e-3), st.floats(1e-6, 1e-3))
def test_a_relative_difference_agrees_with_the_numeric_gradient(t: float, c: float, vt: float, vc: float) -> None:
    lift = samples.relative_difference(Estimate(t, vt), Estimate(c, vc))
    step = 1e-6
    dt = ((t + step) / c - (t - step) / c) / (2 * step)
    dc = (t / (c + step) - t / (c - step)) / (2 * step)
    assert lift.value == pytest.approx(t / c - 1, rel=1e-12, abs=1e-12)
    assert lift.variance == pytest.approx(dt**2 * vt + dc**2 * vc, rel=1e-6)


def test_cuped_is_the_covariance_adjusted_regression() -> None:
    """Independent route: the treatment coefficient of y ~ treatment + x by least squares."""
    n, m = 400, 300
    before = RNG.normal(10, 3, n + m)
    treated = np.concatenate((np.ones(n), np.zeros(m)))
    after = 0.8 * before + 0.3 * treated + RNG.normal(0, 1, n + m)
    t, c = Pair.of(after[:n], before[:n]), Pair.of(after[n:], before[n:])
    adjusted = samples.cuped(t, c)
    effect = adjusted[0].mean - adjusted[1].mean
    fit = sm.OLS(after, sm.add_constant(np.column_stack((treated, before)))).fit()
    assert effect == pytest.approx(float(fit.params[1]), rel=1e-9)
    residual = adjusted[0].m2 + adjusted[1].m2
    assert residual == pytest.approx(float(fit.ssr), rel=1e-9)
    assert adjusted[0].variance < t.y.variance * 0.3


def test_cuped_of_arms_in_parts_is_cuped_of_the_whole() -> None:
    x, y = RNG.normal(size=100), RNG.normal(size=100)
    whole, parts = Pair.of(y, x), Pair.of(y[:30], x[:30]) + Pair.of(y[30:], x[30:])
    other = Pair.of(y[::-1], x)
    for a, b in zip(samples.cuped(whole, other), samples.cuped(parts, other), strict=True):
        assert close(a, b)


@pytest.mark.parametrize("bad", [[1.0, math.nan], [math.inf], [[1.0], [2.0]]])
def test_units_without_a_finite_value_are_refused(bad: list[float]) -> None:
    with pytest.raises(ValueError, match=r"NaN or infinite|one number per unit"):
        Mean.of(bad)


def test_what_cannot_be_estimated_is_refused() -> None:
    calls: list[Callable[[], object]] = [
        lambda: Mean(1, 0.0, -1.0),
        lambda: Mean(-1),
        lambda: Mean(1, math.nan),
        lambda: Mean.of_events(3, 2),
        lambda: Mean.of([1.0]).variance,
        lambda: samples.mean(Mean()),
        lambda: samples.mean(Mean.of([2.0, 2.0])),
        lambda: Pair.of([1.0], [1.0, 2.0]),
        lambda: Pair(Mean(2, 0.0, 1.0), Mean(2, 0.0, 1.0), 2.0),
        lambda: Pair.of([1.0], [1.0]).covariance,
        lambda: samples.ratio(Pair.of([1.0, 2.0], [1.0, -1.0])),
        lambda: samples.relative_difference(Estimate(1, 1), Estimate(0, 1)),
        lambda: samples.cuped(Pair.of([1.0, 2.0], [1.0, 1.0]), Pair.of([1.0, 2.0], [1.0, 1.0])),
        lambda: Estimate(math.nan, 1.0),
        lambda: Estimate(0.0, 0.0),
        lambda: Interval(0.0, 1.0, -1.0),
        lambda: Interval(math.nan, 0.0, 1.0),
    ]
    for call in calls:
        with pytest.raises(ValueError, match=r"\w"):
            call()
