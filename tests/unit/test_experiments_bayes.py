import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import integrate, special, stats

from control_plane.domain.experiments import bayes
from control_plane.domain.experiments.bayes import Prior
from control_plane.domain.experiments.samples import Estimate, Mean

counts = st.integers(0, 200)


@settings(max_examples=40)
@given(counts, counts, counts, counts)
def test_the_chance_to_be_better_is_the_closed_sum_for_whole_counts(a: int, b: int, c: int, d: int) -> None:
    """Independent route for integer parameters: P(T > C) = sum over i < a_T of beta-function ratios."""
    t, s = Mean.of_events(a, a + b), Mean.of_events(c, c + d)
    posterior = bayes.beta_binomial(t, s, prior=Prior(), alpha=0.05)
    at, bt, ac, bc = a + 1, b + 1, c + 1, d + 1
    closed = sum(
        math.exp(
            special.betaln(ac + i, bt + bc) - math.log(bt + i) - special.betaln(1 + i, bt) - special.betaln(ac, bc)
        )
        for i in range(at)
    )
    assert posterior.better == pytest.approx(closed, abs=1e-9)


def test_loss_and_interval_agree_with_draws() -> None:
    rng = np.random.default_rng(5)
    t, s = Mean.of_events(60, 1_000), Mean.of_events(48, 1_000)
    posterior = bayes.beta_binomial(t, s, prior=Prior(2, 30), alpha=0.1)
    n = 2_000_000
    gap = rng.beta(62, 970, n) - rng.beta(50, 982, n)
    assert posterior.better == pytest.approx(float((gap > 0).mean()), abs=0.002)
    assert posterior.loss == pytest.approx(float(np.maximum(-gap, 0).mean()), rel=0.02)
    assert [posterior.interval.low, posterior.interval.high] == pytest.approx(np.quantile(gap, [0.05, 0.95]), abs=1e-4)
    assert posterior.interval.effect == pytest.approx(62 / 1032 - 50 / 1032, rel=1e-12)


def test_swapping_the_arms_swaps_the_answer_and_equal_arms_tie() -> None:
    t, s = Mean.of_events(5, 60), Mean.of_events(9, 50)
    one, other = (bayes.beta_binomial(*pair, prior=Prior(), alpha=0.05) for pair in ((t, s), (s, t)))
    assert one.better + other.better == pytest.approx(1, abs=1e-9)
    assert one.loss - other.loss == pytest.approx(-one.interval.effect, abs=1e-9)
    assert one.interval.low == pytest.approx(-other.interval.high, abs=1e-8)
    assert bayes.beta_binomial(t, t, prior=Prior(), alpha=0.05).better == pytest.approx(0.5, abs=1e-9)
    assert bayes.beta_binomial(Mean(), Mean(), prior=Prior(), alpha=0.05).better == pytest.approx(0.5, abs=1e-9)


def test_a_million_units_are_no_harder() -> None:
    posterior = bayes.beta_binomial(
        Mean.of_events(50_500, 1_000_000), Mean.of_events(50_000, 1_000_000), prior=Prior(), alpha=0.05
    )
    z = 0.0005 / math.sqrt(0.0505 * 0.9495 / 1e6 + 0.05 * 0.95 / 1e6)
    assert posterior.better == pytest.approx(float(stats.norm.cdf(z)), abs=1e-3)


@settings(max_examples=25)
@given(st.floats(-3, 3), st.floats(0.01, 4), st.floats(-1, 1), st.floats(0.1, 5))
def test_the_normal_report_is_the_posterior_integral(effect: float, variance: float, mean: float, sd: float) -> None:
    posterior = bayes.normal(Estimate(effect, variance), prior_mean=mean, prior_sd=sd, alpha=0.05)
    centre, spread = (
        posterior.interval.effect,
        (posterior.interval.high - posterior.interval.low) / 2 / 1.959963984540054,
    )

    def density(x: float) -> float:
        return float(stats.norm.pdf(x, effect, math.sqrt(variance)) * stats.norm.pdf(x, mean, sd))

    span = (centre - 12 * spread, centre + 12 * spread)
    total = integrate.quad(density, *span, limit=200)[0]
    first = integrate.quad(lambda x: x * density(x), *span, limit=200)[0] / total
    below = integrate.quad(density, span[0], max(span[0], min(0, span[1])), limit=200)[0] / total
    lost = integrate.quad(lambda x: -x * density(x), span[0], max(span[0], min(0, span[1])), limit=200)[0] / total
    assert centre == pytest.approx(first, abs=1e-6)
    assert 1 - posterior.better == pytest.approx(below, abs=1e-6)
    assert posterior.loss == pytest.approx(lost, abs=1e-6)


def test_a_flat_prior_gives_the_estimate_itself() -> None:
    posterior = bayes.normal(Estimate(1.0, 0.25), prior_mean=0.0, prior_sd=math.inf, alpha=0.05)
    assert posterior.interval.effect == 1.0
    assert posterior.better == pytest.approx(float(stats.norm.cdf(2)), rel=1e-12)


def test_priors_that_mean_nothing_are_refused() -> None:
    for yes, no in ((0.0, 1.0), (1.0, math.inf), (math.nan, 1.0)):
        with pytest.raises(ValueError, match="prior"):
            Prior(yes, no)
    for mean, sd in ((math.nan, 1.0), (0.0, 0.0)):
        with pytest.raises(ValueError, match="prior"):
            bayes.normal(Estimate(0, 1), prior_mean=mean, prior_sd=sd, alpha=0.05)
