"""AUC and average precision from counts, against brute force, scikit-learn and the bootstrap."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, roc_auc_score

from control_plane.domain.experiments import ranking
from control_plane.domain.experiments.ranking import Cells

units = st.lists(st.tuples(st.floats(0, 1), st.booleans()), max_size=30)


def counted(
    scores: "np.ndarray[tuple[int], np.dtype[np.float64]]", truth: "np.ndarray[tuple[int], np.dtype[np.bool_]]"
) -> Cells:
    total: Cells = ()
    cells, counts = np.unique(
        [ranking.cell(float(s), positive=bool(t)) for s, t in zip(scores, truth, strict=True)], return_counts=True
    )
    return ranking.added(total, tuple(zip(map(int, cells), map(int, counts), strict=True)))


@given(units, units)
def test_counts_of_two_sets_of_units_add(one: list[tuple[float, bool]], other: list[tuple[float, bool]]) -> None:
    def cells(of: list[tuple[float, bool]]) -> Cells:
        total: Cells = ()
        for score, truth in of:
            total = ranking.added(total, ((ranking.cell(score, positive=truth), 1),))
        return total

    assert ranking.added(cells(one), cells(other)) == cells([*one, *other])
    assert sum(ranking.classes(cells(one))) == len(one)


@pytest.mark.parametrize("apart", [0.0, 1.0, 3.0])
def test_values_are_scikit_learns_on_scores_told_apart_as_they_are_counted(apart: float) -> None:
    rng = np.random.default_rng(4)
    truth = rng.random(400) < 0.15
    scores = 1 / (1 + np.exp(-(np.rint(rng.normal(apart * truth, 1.0) * 20) / 20 - 3 + 0.02)))  # one value a step
    cells = counted(scores, truth)
    assert ranking.auc(cells).value == pytest.approx(roc_auc_score(truth, scores), abs=1e-12)
    assert ranking.average_precision(cells).value == pytest.approx(average_precision_score(truth, scores), abs=1e-12)


def test_the_variance_of_the_auc_is_delongs() -> None:
    rng = np.random.default_rng(5)
    positive, negative = rng.normal(1, 1, 60).round(1), rng.normal(0, 1, 90).round(1)
    scores = 1 / (1 + np.exp(-(np.concatenate([positive, negative]) - 2 + 0.02)))
    cells = counted(scores, np.arange(150) < 60)
    above = (positive[:, None] > negative) + 0.5 * (positive[:, None] == negative)
    expected = above.mean(axis=1).var(ddof=1) / 60 + above.mean(axis=0).var(ddof=1) / 90
    found = ranking.auc(cells)
    assert (found.value, found.variance) == pytest.approx((above.mean(), expected), rel=1e-9)


def test_the_variance_of_the_average_precision_is_what_samples_show() -> None:
    rng, found = np.random.default_rng(6), []
    for _ in range(300):
        truth = rng.random(1_500) < 0.2
        found.append(ranking.average_precision(counted(1 / (1 + np.exp(-rng.normal(truth * 1.5 - 2, 1))), truth)))
    spread = float(np.var([one.value for one in found], ddof=1))
    assert float(np.mean([one.variance for one in found])) == pytest.approx(spread, rel=0.25)


def test_what_cannot_be_ranked_is_refused() -> None:
    for cells in ((), ((3, 5),), ((ranking.BINS, 5),), ((0, 1), (2 * ranking.BINS, 1))):
        with pytest.raises(ValueError, match=r"classes|no such"):
            ranking.auc(cells)
    with pytest.raises(ValueError, match="two units"):
        ranking.auc(((0, 1), (ranking.BINS, 1)))
    for score in (-0.1, 1.1, math.nan):
        with pytest.raises(ValueError, match="within"):
            ranking.cell(score, positive=True)
