import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.proportion import confint_proportions_2indep, proportion_confint, proportions_ztest
from statsmodels.stats.weightstats import CompareMeans, DescrStatsW

from control_plane.domain.experiments import fixed
from control_plane.domain.experiments.samples import Mean

samples = st.lists(st.floats(-100, 100), min_size=3, max_size=40)
alphas = st.floats(0.001, 0.5)


@given(samples, samples, alphas)
def test_welch_agrees_with_scipy_and_statsmodels(a: list[float], b: list[float], alpha: float) -> None:
    assume(np.var(a) > 1e-6 and np.var(b) > 1e-6)
    ours = fixed.welch_t(Mean.of(a), Mean.of(b), alpha=alpha)
    theirs = stats.ttest_ind(a, b, equal_var=False)
    assert ours.statistic == pytest.approx(theirs.statistic, rel=1e-9, abs=1e-9)
    assert ours.p == pytest.approx(theirs.pvalue, rel=1e-9)
    assert ours.dof == pytest.approx(theirs.df, rel=1e-9)
    low, high = CompareMeans(DescrStatsW(a), DescrStatsW(b)).tconfint_diff(alpha=alpha, usevar="unequal")
    scale = max(1.0, abs(low), abs(high))
    assert [ours.interval.low, ours.interval.high] == pytest.approx([low, high], rel=1e-9, abs=1e-9 * scale)


tables = st.tuples(st.integers(0, 400), st.integers(0, 400), st.integers(0, 400), st.integers(0, 400))


@given(tables, alphas)
def test_two_proportions_agree_with_statsmodels(table: tuple[int, int, int, int], alpha: float) -> None:
    a, b, c, d = table
    assume(a + b > 0 and c + d > 0)
    pooled = (a + c) / sum(table)
    t, s = Mean.of_events(a, a + b), Mean.of_events(c, c + d)
    if min(a + b, c + d) * min(pooled, 1 - pooled) < 5:
        with pytest.raises(ValueError, match="fisher"):
            fixed.two_proportion_z(t, s, alpha=alpha)
        return
    ours = fixed.two_proportion_z(t, s, alpha=alpha)
    z, p = proportions_ztest([a, c], [a + b, c + d])
    assert ours.statistic == pytest.approx(z, rel=1e-9, abs=1e-9)
    assert ours.p == pytest.approx(p, rel=1e-9, abs=1e-300)
    low, high = confint_proportions_2indep(a, a + b, c, c + d, method="newcomb", compare="diff", alpha=alpha)
    assert [ours.interval.low, ours.interval.high] == pytest.approx([low, high], abs=1e-9)


small = st.tuples(st.integers(0, 30), st.integers(0, 30), st.integers(0, 30), st.integers(0, 30))


@settings(max_examples=40)  # scipy's interval takes long
@given(small, st.floats(0.01, 0.5))
def test_fisher_agrees_with_scipy(table: tuple[int, int, int, int], alpha: float) -> None:
    a, b, c, d = table
    assume(a + b > 0 and c + d > 0)
    t, s = Mean.of_events(a, a + b), Mean.of_events(c, c + d)
    if 0 in (a + c, b + d):
        with pytest.raises(ValueError, match="no test"):
            fixed.fisher(t, s, alpha=alpha)
        return
    ours = fixed.fisher(t, s, alpha=alpha)
    counted = np.array([[a, b], [c, d]])
    theirs = stats.fisher_exact(counted)
    assert ours.p == pytest.approx(theirs.pvalue, rel=1e-9)
    assert ours.statistic == pytest.approx(theirs.statistic, rel=1e-9)
    interval = stats.contingency.odds_ratio(counted).confidence_interval(1 - alpha)
    assert ours.interval.low == pytest.approx(interval.low, rel=1e-9)
    assert ours.interval.high == pytest.approx(interval.high, rel=1e-9)


ranked = st.lists(st.one_of(st.integers(0, 5).map(float), st.floats(-10, 10)), min_size=8, max_size=40)


@given(ranked, ranked)
def test_mann_whitney_agrees_with_scipy(a: list[float], b: list[float]) -> None:
    assume(len({*a, *b}) > 1)
    ours = fixed.mann_whitney(a, b, alpha=0.05)
    theirs = stats.mannwhitneyu(a, b, method="asymptotic", use_continuity=True)
    assert ours.statistic == pytest.approx(theirs.statistic, rel=1e-12)
    assert ours.p == pytest.approx(theirs.pvalue, rel=1e-9)
    wins = np.mean([(x > y) + (x == y) / 2 for x in a for y in b])
    assert ours.interval.effect == pytest.approx(float(wins), abs=1e-12)
    assert 0 <= ours.interval.low <= ours.interval.effect <= ours.interval.high <= 1


def test_the_mann_whitney_interval_has_the_standard_error_of_brunner_and_munzel() -> None:
    rng = np.random.default_rng(1)
    a, b = rng.normal(0.3, 1, 60), rng.normal(0, 2, 50)
    ours = fixed.mann_whitney(a, b, alpha=0.05)
    theirs = stats.brunnermunzel(a, b)
    effect = ours.interval.effect
    error = abs((effect - 0.5) / theirs.statistic)
    logit = math.log(effect / (1 - effect))
    half = -float(stats.norm.ppf(0.025)) * error / (effect * (1 - effect))
    assert ours.interval.low == pytest.approx(1 / (1 + math.exp(half - logit)), rel=1e-9)
    apart = fixed.mann_whitney(np.arange(10.0), np.arange(10.0) + 100, alpha=0.05)
    assert (apart.interval.effect, apart.interval.low, apart.interval.high) == (0.0, 0.0, 1.0)


@given(st.integers(0, 500), st.integers(1, 500), alphas)
def test_wilson_agrees_with_statsmodels(events: int, more: int, alpha: float) -> None:
    low, high = fixed.wilson(events, events + more, fixed.normal_quantile(alpha))
    theirs = proportion_confint(events, events + more, alpha=alpha, method="wilson")
    assert [low, high] == pytest.approx(list(theirs), abs=1e-9)


def test_a_test_that_is_not_defined_is_refused_never_p_one() -> None:
    flat, one, empty, real = Mean.of([2.0, 2.0]), Mean.of([1.0]), Mean(), Mean.of([0.3, 0.7, 5.0])
    calls: list[Callable[[], object]] = [
        lambda: fixed.welch_t(flat, flat, alpha=0.05),
        lambda: fixed.welch_t(one, real, alpha=0.05),
        lambda: fixed.welch_t(real, real, alpha=0.0),
        lambda: fixed.two_proportion_z(real, real, alpha=0.05),
        lambda: fixed.two_proportion_z(empty, Mean.of_events(50, 100), alpha=0.05),
        lambda: fixed.fisher(empty, Mean.of_events(1, 2), alpha=0.05),
        lambda: fixed.mann_whitney([1.0] * 10, [1.0] * 10, alpha=0.05),
        lambda: fixed.mann_whitney([1.0] * 7, [2.0] * 10, alpha=0.05),
        lambda: fixed.mann_whitney([math.nan] * 10, [2.0] * 10, alpha=0.05),
    ]
    for call in calls:
        with pytest.raises(ValueError, match=r"\w"):
            call()
