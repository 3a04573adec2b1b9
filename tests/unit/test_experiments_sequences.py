import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import integrate, optimize, stats

from control_plane.domain.experiments import sequences
from control_plane.domain.experiments.samples import Estimate, Interval, Mean

effects = st.floats(-5, 5)
sds = st.floats(0.05, 5)
alphas = st.floats(0.001, 0.4)


def mixture(effect: float, sd: float, tau: float, *, half: bool = False) -> float:
    """The likelihood ratio against 0, averaged over N(0, tau^2) (or its positive half) by numerical integration."""
    centre = effect * tau**2 / (sd**2 + tau**2)
    width = 12 * sd * tau / math.hypot(sd, tau)
    peak = effect**2 * tau**2 / (2 * sd**2 * (sd**2 + tau**2))

    def integrand(theta: float) -> float:
        log_density = float(stats.norm.logpdf(theta, 0, tau)) + (math.log(2) if half else 0.0)
        return math.exp((effect * theta - theta**2 / 2) / sd**2 + log_density - peak)

    low = max(0.0, centre - width) if half else centre - width
    mass, _ = integrate.quad(integrand, low, max(centre + width, low + width), limit=200)
    return math.log(mass) + peak


@settings(max_examples=40)
@given(effects, sds, sds)
def test_evidence_is_the_mixture_integral(effect: float, sd: float, tau: float) -> None:
    estimate = Estimate(effect, sd**2)
    assert sequences.log_e(estimate, null=0.0, tau=tau) == pytest.approx(mixture(effect, sd, tau), abs=1e-6)


@given(effects, sds, sds, alphas)
def test_the_interval_holds_exactly_what_the_evidence_does_not_exclude(
    effect: float, sd: float, tau: float, alpha: float
) -> None:
    estimate = Estimate(effect, sd**2)
    interval = sequences.confidence_sequence(estimate, alpha=alpha, tau=tau)
    for end in (interval.low, interval.high):
        assert sequences.log_e(estimate, null=end, tau=tau) == pytest.approx(-math.log(alpha), abs=1e-9)
    p = sequences.always_valid_p(estimate, null=0.0, tau=tau)
    assert (p < alpha * (1 - 1e-9)) <= (not interval.low < 0 < interval.high)
    assert sequences.always_valid_p(estimate, null=0.0, tau=tau, previous=p / 2) == p / 2


@given(st.integers(2, 10**6), st.floats(0.01, 2), st.floats(0.01, 10), alphas)
def test_it_is_the_published_formula_of_one_mean(t: int, rho: float, sigma: float, alpha: float) -> None:
    published = sigma * math.sqrt(2 * (t * rho**2 + 1) / (t**2 * rho**2) * math.log(math.sqrt(t * rho**2 + 1) / alpha))
    assert sequences.half_width(sigma**2 / t, alpha=alpha, tau=sigma * rho) == pytest.approx(published, rel=1e-9)


@given(sds, alphas)
def test_the_tuned_tau_is_the_tightest(sd: float, alpha: float) -> None:
    best = optimize.minimize_scalar(
        lambda log_tau: sequences.half_width(sd**2, alpha=alpha, tau=math.exp(log_tau)),
        bounds=(math.log(sd) - 3, math.log(sd) + 4),
        method="bounded",
        options={"xatol": 1e-9},
    )
    tau = sequences.tau_for(sd**2, alpha=alpha)
    assert sequences.half_width(sd**2, alpha=alpha, tau=tau) == pytest.approx(float(best.fun), rel=1e-9)


@settings(max_examples=40)
@given(effects, sds, sds, st.floats(0.001, 0.2))
def test_beyond_the_one_sided_bound_the_half_mixture_has_its_evidence(
    effect: float, sd: float, tau: float, alpha: float
) -> None:
    bound = sequences.upper_bound(Estimate(effect, sd**2), alpha=alpha, tau=tau)
    assert mixture(bound - effect, sd, tau, half=True) >= -math.log(alpha) - 1e-6
    two_sided = sequences.confidence_sequence(Estimate(effect, sd**2), alpha=alpha, tau=tau)
    assert bound < two_sided.high + 0.5 * (two_sided.high - effect)


@given(st.floats(0, 1e5), st.floats(0.001, 0.2))
def test_a_late_start_lowers_the_level_and_never_below_one_looks_chance(information: float, alpha: float) -> None:
    log_b = sequences.log_level(information, alpha=alpha)
    assert log_b <= -math.log(alpha) + 1e-9
    assert log_b >= sequences.log_level(information * 2, alpha=alpha) - 1e-9
    if information > 1e-3:  # the first look alone may not use up more than alpha
        first = math.sqrt(2 * (1 + information) / information * (0.5 * math.log1p(information) + log_b))
        assert 2 * float(stats.norm.sf(first)) < alpha


def test_looks_from_a_start_on_cross_with_probability_alpha() -> None:
    """A Gaussian walk looked at 3,000 times over four decades of time, without any effect."""
    rng, runs, alpha, tau, begun = np.random.default_rng(8), 2_000, 0.05, 1.0, 0.01
    times = np.geomspace(1 / begun, 1e4 / begun, 3_000)  # information: 1 / variance
    steps = np.sqrt(np.diff(times, prepend=0))
    ever = np.zeros(runs, dtype=bool)
    log_b = sequences.log_level(tau**2 / begun, alpha=alpha)
    line = np.sqrt(2 * (1 / times + tau**2) / tau**2 * (0.5 * np.log1p(tau**2 * times) + log_b))
    for at in range(0, runs, 500):
        walk = (rng.standard_normal((500, len(times))) * steps).cumsum(axis=1)
        ever[at : at + 500] = (np.abs(walk) / np.sqrt(times) > line).any(axis=1)
    spread = math.sqrt(alpha * (1 - alpha) / runs)
    assert alpha - 0.01 - 3 * spread <= ever.mean() <= alpha + 3 * spread  # a little is lost between two looks
    half = sequences.half_width(1 / times[100], alpha=alpha, tau=tau, start=begun)
    assert half * math.sqrt(times[100]) == pytest.approx(line[100], rel=1e-9)
    with pytest.raises(ValueError, match="before the start"):
        sequences.half_width(begun * 1.01, alpha=alpha, tau=tau, start=begun)


def test_intersecting_looks_keeps_what_all_allow_and_says_when_nothing_is_left() -> None:
    first, second = Interval(0.0, -1.0, 1.0), Interval(0.5, 0.2, 2.0)
    assert sequences.intersection(None, first) == first
    assert sequences.intersection(first, second) == Interval(0.5, 0.2, 1.0)
    assert sequences.intersection(first, Interval(3.0, 2.0, 4.0)) is None


def test_an_arm_is_ready_at_fifty_of_the_rarer_answer() -> None:
    assert not sequences.ready(Mean.of_events(49, 10_000), yes_no=True)
    assert not sequences.ready(Mean.of_events(9_951, 10_000), yes_no=True)
    assert sequences.ready(Mean.of_events(50, 10_000), yes_no=True)
    assert sequences.ready(Mean.of([1.0, 2.0] * 25), yes_no=False)


@pytest.mark.parametrize("bad", [0.0, -1.0, math.nan, math.inf])
def test_a_tau_variance_or_alpha_that_means_nothing_is_refused(bad: float) -> None:
    estimate = Estimate(0.0, 1.0)
    with pytest.raises(ValueError, match="tau"):
        sequences.confidence_sequence(estimate, alpha=0.05, tau=bad)
    with pytest.raises(ValueError, match="variance"):
        sequences.tau_for(bad, alpha=0.05)
    with pytest.raises(ValueError, match="alpha"):
        sequences.upper_bound(estimate, alpha=bad, tau=1.0)
    with pytest.raises(ValueError, match="previous"):
        sequences.always_valid_p(estimate, null=0, tau=1, previous=-1)
