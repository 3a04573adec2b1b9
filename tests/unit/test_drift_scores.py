import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy import integrate, spatial, stats

from control_plane.domain.drift import scores

counts = st.lists(st.integers(0, 500), min_size=2, max_size=30)
pairs = counts.flatmap(lambda a: st.tuples(st.just(a), st.lists(st.integers(0, 500), min_size=len(a), max_size=len(a))))
filled = pairs.filter(lambda pair: sum(pair[0]) > 0 and sum(pair[1]) > 0)
samples = st.lists(st.one_of(st.integers(-3, 3), st.floats(-50, 50)), min_size=1, max_size=60).map(sorted)


@given(filled, st.floats(0.01, 5))
def test_psi_is_the_sum_of_both_relative_entropies(pair: tuple[list[int], list[int]], smoothing: float) -> None:
    p, q = (np.array(side) + smoothing for side in pair)
    expected = stats.entropy(p, q) + stats.entropy(q, p)
    assert scores.psi(*pair, smoothing=smoothing) == pytest.approx(expected, rel=1e-9, abs=1e-12)
    assert scores.psi(pair[1], pair[0], smoothing=smoothing) == pytest.approx(expected, rel=1e-9, abs=1e-12)


def test_psi_of_a_known_table_by_hand() -> None:
    by_hand = (0.3 - 0.5) * math.log(0.3 / 0.5) + (0.7 - 0.5) * math.log(0.7 / 0.5)
    assert scores.psi([50, 50], [30, 70], smoothing=0) == pytest.approx(by_hand, rel=1e-12)


def test_psi_without_smoothing_is_infinite_where_only_one_side_has_rows() -> None:
    assert scores.psi([1, 1], [2, 0], smoothing=0) == math.inf
    assert scores.psi([1, 0], [2, 0], smoothing=0) == 0  # a cell nobody fills carries nothing


@given(filled)
def test_jensen_shannon_agrees_with_scipy(pair: tuple[list[int], list[int]]) -> None:
    expected = float(np.nan_to_num(spatial.distance.jensenshannon(*pair, base=2)))  # scipy: NaN at distance zero
    assert scores.jensen_shannon(*pair) == pytest.approx(expected, abs=1e-7)
    assert scores.jensen_shannon(*pair) ** 2 == pytest.approx(expected**2, abs=1e-12)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # about scipy's p-value, which is not looked at
@given(samples, samples)
def test_exact_ks_agrees_with_scipy(a: list[float], b: list[float]) -> None:
    assert scores.ks_exact(a, b) == pytest.approx(stats.ks_2samp(a, b, method="auto").statistic, abs=1e-12)


@given(samples, samples)
def test_exact_wasserstein_agrees_with_scipy(a: list[float], b: list[float]) -> None:
    assert scores.wasserstein_exact(a, b) == pytest.approx(stats.wasserstein_distance(a, b), rel=1e-9, abs=1e-9)


@given(samples, samples, st.lists(st.floats(-20, 20), min_size=1, max_size=8, unique=True).map(sorted))
def test_binned_ks_bounds_the_exact_one(a: list[float], b: list[float], edges: list[float]) -> None:
    inside = [np.nextafter(-np.inf, 0), *edges, np.nextafter(np.inf, 0)]
    binned = scores.ks_binned(*(np.histogram(side, inside)[0] for side in (a, b)))
    exact = scores.ks_exact(a, b)
    assert binned.value - 1e-12 <= exact <= binned.value + binned.resolution + 1e-12


@given(filled)
def test_binned_wasserstein_is_the_area_between_evenly_filled_cells(pair: tuple[list[int], list[int]]) -> None:
    p, q = (np.array(side) / sum(side) for side in pair)
    edges = [float(i * i) for i in range(1, len(p))]
    points = [0.0, *edges, edges[-1] + 3.0]
    distance = scores.wasserstein_binned(*pair, edges=edges, low=points[0], high=points[-1])
    grid = np.concatenate([np.linspace(a, b, 400, endpoint=False) for a, b in pairwise(points)])
    grid = np.append(grid, points[-1])
    gap = np.interp(grid, points, np.concatenate(([0], np.cumsum(p - q))))
    assert distance == pytest.approx(float(integrate.trapezoid(np.abs(gap), grid)), rel=1e-3, abs=1e-3)


@given(filled)
def test_chi_square_agrees_with_scipy(pair: tuple[list[int], list[int]]) -> None:
    table = np.array(pair)[:, np.array(pair).sum(axis=0) > 0]
    assume(table.shape[1] >= 2)
    expected = stats.chi2_contingency(table, correction=False)
    if expected.expected_freq.min() < 5:
        with pytest.raises(ValueError, match="expected count"):
            scores.chi_square(*pair)
        return
    ours = scores.chi_square(*pair)
    assert ours.dof == expected.dof
    assert ours.statistic == pytest.approx(expected.statistic, rel=1e-9, abs=1e-9)
    assert ours.p == pytest.approx(expected.pvalue, rel=1e-9, abs=1e-300)
    assert ours.cramers_v == pytest.approx(stats.contingency.association(table, method="cramer"), rel=1e-9, abs=1e-9)


def test_rare_cells_are_pooled_until_the_test_holds() -> None:
    a, b = scores.merge_rare([1000, 2, 1, 1, 800], [900, 1, 3, 9, 700])
    assert (a.tolist(), b.tolist()) == ([1000, 800, 4], [900, 700, 13])
    assert scores.chi_square(a, b).dof == 2


@given(filled)
def test_pooling_keeps_every_row(pair: tuple[list[int], list[int]]) -> None:
    a, b = scores.merge_rare(*pair)
    assert (a.sum(), b.sum()) == (sum(pair[0]), sum(pair[1]))


def test_a_quarter_sigma_shift_is_about_its_square_in_psi() -> None:
    edges = stats.norm.ppf(np.linspace(0, 1, 17)[1:-1])
    p, q = (np.diff(np.concatenate(([0], stats.norm.cdf(edges, shift), [1]))) for shift in (0.0, 0.25))
    assert scores.psi(p * 1e6, q * 1e6, smoothing=0) == pytest.approx(0.0625, rel=0.05)


@pytest.mark.parametrize(
    ("a", "b", "why"),
    [
        ([0, 0], [1, 1], "no rows"),
        ([1, 1], [0, 0], "no rows"),
        ([1, math.nan], [1, 1], "finite"),
        ([1, -1], [1, 1], "at least 0"),
        ([1, 1], [1, 1, 1], "different cells"),
        ([[1, 1]], [[1, 1]], "different cells"),
    ],
)
def test_counts_that_cannot_be_compared_are_refused_not_scored(a: list[float], b: list[float], why: str) -> None:
    for score in (
        lambda: scores.psi(a, b, smoothing=0.5),
        lambda: scores.jensen_shannon(a, b),
        lambda: scores.ks_binned(a, b),
        lambda: scores.chi_square(a, b),
        lambda: scores.merge_rare(a, b),
        lambda: scores.wasserstein_binned(a, b, edges=[0.0], low=0, high=1),
    ):
        with pytest.raises(ValueError, match=why):
            score()


@pytest.mark.parametrize("bad", [[], [math.nan], [1.0, math.nan, 2.0], [2.0, 1.0], [math.inf]])
def test_samples_that_are_empty_unsorted_or_not_finite_are_refused(bad: list[float]) -> None:
    for score in (scores.ks_exact, scores.wasserstein_exact):
        for pair in ((bad, [1.0]), ([1.0], bad)):
            with pytest.raises(ValueError, match="sample"):
                score(*pair)


@pytest.mark.parametrize("smoothing", [-0.1, math.nan, math.inf])
def test_a_smoothing_that_is_no_count_is_refused(smoothing: float) -> None:
    with pytest.raises(ValueError, match="smoothing"):
        scores.psi([1], [1], smoothing=smoothing)


@pytest.mark.parametrize(("edges", "low", "high"), [([0.0], 2.0, 1.0), ([0.0, 1.0], 0, 1), ([0.0], 0, math.nan)])
def test_edges_that_do_not_fit_are_refused(edges: list[float], low: float, high: float) -> None:
    with pytest.raises(ValueError, match=r"edges|finite"):
        scores.wasserstein_binned([1, 1], [1, 1], edges=edges, low=low, high=high)
