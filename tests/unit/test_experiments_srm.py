import math
from itertools import product

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy import integrate, stats

from control_plane.domain.experiments import srm
from control_plane.domain.experiments.srm import Stage


@settings(max_examples=40)
@given(st.integers(0, 60), st.integers(0, 60), st.floats(0.05, 0.95), st.floats(1, 300))
def test_the_evidence_of_two_arms_is_the_beta_integral(a: int, b: int, share: float, concentration: float) -> None:
    first, second = concentration * share, concentration * (1 - share)
    assume(first > 1 and second > 1)  # else the density is infinite at an end, and quad is not precise
    prior = stats.beta(first, second)
    ratio, _ = integrate.quad(
        lambda q: (q / share) ** a * ((1 - q) / (1 - share)) ** b * float(prior.pdf(q)), 0, 1, limit=500, points=[share]
    )
    result = srm.check([Stage((a, b), (share, 1 - share))], alpha=0.05, concentration=concentration)
    assert result.log_e == pytest.approx(math.log(ratio), abs=1e-5)


@given(
    st.lists(st.tuples(st.integers(0, 2_000), st.floats(0.01, 1)), min_size=2, max_size=5),
    st.sampled_from([1.0, 300.0, srm.CONCENTRATION]),
)
def test_the_evidence_is_scipys_dirichlet_multinomial_over_its_multinomial(
    arms: list[tuple[int, float]], concentration: float
) -> None:
    counts, weights = tuple(count for count, _ in arms), tuple(weight for _, weight in arms)
    shares, n = np.array(weights) / math.fsum(weights), sum(counts)
    assume(n > 0)
    mixed = stats.dirichlet_multinomial.logpmf(counts, concentration * shares, n)
    result = srm.check([Stage(counts, weights)], alpha=0.05, concentration=concentration)
    expected = mixed - stats.multinomial.logpmf(counts, n, shares / math.fsum(shares))
    assert result.log_e == pytest.approx(float(expected), rel=1e-9, abs=1e-9)


def test_the_expected_evidence_is_one_while_the_assignment_works() -> None:
    n, shares = 12, (0.5, 0.3, 0.2)
    total = 0.0
    for a, b in product(range(n + 1), repeat=2):
        if a + b <= n:
            counts = (a, b, n - a - b)
            chance = float(stats.multinomial.pmf(counts, n, shares))
            total += chance * math.exp(srm.check([Stage(counts, shares)], alpha=0.05, concentration=20).log_e)
    assert total == pytest.approx(1, rel=1e-9)


def test_stages_multiply_and_each_is_held_against_its_own_weights() -> None:
    ramp = [Stage((100, 9_900), (1, 99)), Stage((5_000, 5_000), (50, 50))]
    both = srm.check(ramp, alpha=0.001)
    assert both.log_e == pytest.approx(sum(srm.check([s], alpha=0.001).log_e for s in ramp))
    assert not both.mismatch
    assert "100 for 100 / 9900 for 9900; 5000 for 5000" in both.why
    pooled = Stage((5_100, 14_900), (50, 50))  # what a look at the totals would see
    assert srm.check([pooled], alpha=0.001).mismatch


def test_a_unit_in_an_arm_without_weight_is_a_mismatch_for_certain() -> None:
    assert srm.check([Stage((10, 1), (1, 0))], alpha=0.001).mismatch
    fine = srm.check([Stage((10, 0), (1, 0))], alpha=0.001)
    assert fine.log_e == pytest.approx(0, abs=1e-9)
    assert not fine.mismatch
    assert srm.check([], alpha=0.001).why.startswith("units fit the weights: no units yet")


def test_what_is_no_stage_is_refused() -> None:
    for counts, weights in (((1,), (1.0,)), ((1, 2), (1.0,)), ((-1, 2), (1.0, 1.0)), ((1, 2), (0.0, 0.0))):
        with pytest.raises(ValueError, match=r"stage|counts"):
            Stage(counts, weights)
    with pytest.raises(ValueError, match="counts"):
        Stage((1, 2), (math.nan, 1.0))
    for alpha, concentration in ((0.0, 1.0), (1.0, 1.0), (0.05, 0.0), (0.05, math.inf)):
        with pytest.raises(ValueError, match="alpha"):
            srm.check([], alpha=alpha, concentration=concentration)


def _found(runs: int, share: float, *, looks: int, units: int, seed: int) -> float:
    rng = np.random.default_rng(seed)
    arrived = rng.binomial(units // looks, share, (runs, looks)).cumsum(axis=1)
    n = units // looks * np.arange(1, looks + 1)
    ever = 0
    for run in arrived:
        stages = (Stage((int(a), int(m - a)), (1, 1)) for a, m in zip(run, n, strict=True))
        ever += any(srm.check([stage], alpha=0.001).mismatch for stage in stages)
    return ever / runs


def test_fifty_one_to_forty_nine_is_found_within_a_hundred_thousand_units() -> None:
    assert _found(200, 0.51, looks=20, units=100_000, seed=1) >= 0.9


@pytest.mark.slow
def test_five_hundred_looks_raise_no_more_than_one_false_alarm_in_a_thousand() -> None:
    assert _found(1_000, 0.5, looks=500, units=100_000, seed=2) <= 0.001 + 3 * math.sqrt(0.001 * 0.999 / 1_000)
