import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.multitest import multipletests

from control_plane.domain.experiments import multiplicity

p_values = st.lists(st.one_of(st.floats(0, 1), st.sampled_from([0.0, 0.01, 0.05, 1.0])), min_size=1, max_size=20)
log_e = st.lists(st.floats(-20, 20), min_size=1, max_size=20)


@settings(max_examples=50)
@given(p_values)
def test_holm_and_benjamini_hochberg_agree_with_statsmodels_and_scipy(p: list[float]) -> None:
    assert multiplicity.holm(p) == pytest.approx(multipletests(p, method="holm")[1], abs=1e-12)
    assert multiplicity.benjamini_hochberg(p) == pytest.approx(stats.false_discovery_control(p), abs=1e-12)


@given(log_e, st.floats(0.001, 0.5))
def test_e_bh_rejects_what_its_definition_says(values: list[float], alpha: float) -> None:
    """Brute force: the largest k with at least k e-values of at least n / (alpha k)."""
    n = len(values)
    sizes = [k for k in range(1, n + 1) if sum(e >= math.log(n / (alpha * k)) for e in values) >= k]
    chosen = multiplicity.e_bh(values, alpha=alpha)
    kept = max(sizes, default=0)
    assert sum(chosen) == kept
    rejected = [e for e, c in zip(values, chosen, strict=True) if c]
    spared = [e for e, c in zip(values, chosen, strict=True) if not c]
    assert min(rejected, default=math.inf) >= max(spared, default=-math.inf)


@given(log_e)
def test_the_average_e_value_is_the_average(values: list[float]) -> None:
    assert multiplicity.log_mean_e(values) == pytest.approx(math.log(np.exp(values).mean()), abs=1e-9)


def test_huge_evidence_does_not_overflow() -> None:
    assert multiplicity.log_mean_e([5_000.0, 0.0]) == pytest.approx(5_000 - math.log(2))
    assert multiplicity.log_mean_e([math.inf, 0.0]) == math.inf


def test_what_is_no_probability_or_evidence_is_refused() -> None:
    for bad in ([math.nan], [-0.1], [1.1]):
        with pytest.raises(ValueError, match="p-values"):
            multiplicity.holm(bad)
        with pytest.raises(ValueError, match="p-values"):
            multiplicity.benjamini_hochberg(bad)
    with pytest.raises(ValueError, match="NaN"):
        multiplicity.e_bh([math.nan], alpha=0.05)
    with pytest.raises(ValueError, match="alpha"):
        multiplicity.e_bh([1.0], alpha=1.0)
    for none in ([], [math.nan]):
        with pytest.raises(ValueError, match="at least one"):
            multiplicity.log_mean_e(none)
