"""Performance without labels: right under covariate shift, and honest about how sure it is."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from control_plane.domain.drift import estimate
from control_plane.domain.model_config import Costs

RNG = np.random.default_rng(7)


def drawn(n: int, shift: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Calibrated probabilities of customers shifted by `shift`, with their labels."""
    rng = np.random.default_rng(seed)
    p = 1 / (1 + np.exp(-(rng.normal(-1 + shift, 1.2, n))))
    return p, (rng.random(n) < p).astype(float)


@pytest.mark.parametrize("shift", [0.0, 1.0, -1.0])
def test_under_covariate_shift_the_estimate_is_what_turns_out(shift: float) -> None:
    inside = errors = 0.0
    for seed in range(60):
        p, y = drawn(3_000, shift, seed)
        found = estimate.binary(p, threshold=0.3)
        assert found.auc is not None
        real = roc_auc_score(y, p)
        errors += abs(found.auc.value - real) / 60
        low, high = found.auc.interval(0.05)
        inside += (low <= real <= high) / 60
        low, high = found.accuracy.interval(0.05)
        assert abs(found.accuracy.value - np.mean((p >= 0.3) == y)) < 4 * found.accuracy.sd
    assert errors < 0.02
    assert inside >= 0.85  # 0.95 nominal; 60 runs


def test_the_realised_auc_is_scikit_learns_and_its_error_is_delongs() -> None:
    p, y = drawn(800, 0.0, 1)
    p = np.round(p, 2)  # ties
    found = estimate.realised_auc(p, y)
    assert found is not None
    assert found.value == pytest.approx(roc_auc_score(y, p), abs=1e-12)
    rng = np.random.default_rng(0)
    spread = []
    for _ in range(400):
        at = rng.integers(0, len(p), len(p))
        spread.append(roc_auc_score(y[at], p[at]))
    assert found.sd == pytest.approx(np.std(spread), rel=0.12)


def test_the_expected_cost_counts_each_cell_once() -> None:
    costs = Costs(false_positive=2, false_negative=30, true_positive=-5, true_negative=0.5)
    found = estimate.binary([0.9, 0.2], threshold=0.5, costs=costs)
    tp, fp, fn, tn = found.expected
    assert (tp, fp, fn, tn) == pytest.approx((0.9, 0.1, 0.2, 0.8))
    assert found.cost is not None
    assert found.cost.value == pytest.approx(0.9 * -5 + 0.1 * 2 + 0.2 * 30 + 0.8 * 0.5)
    assert estimate.binary([0.9], threshold=0.5, costs=Costs(false_negative_column="amount")).cost is None


def test_many_classes_are_estimated_from_their_probabilities() -> None:
    raw = RNG.dirichlet([2, 1, 0.5, 0.5], 4_000)
    labels = np.array([RNG.choice(4, p=row) for row in raw])
    found = estimate.multiclass(raw)
    assert abs(found.accuracy.value - np.mean(raw.argmax(axis=1) == labels)) < 4 * found.accuracy.sd
    assert found.macro_auc is not None
    real = roc_auc_score(labels, raw, multi_class="ovr")
    assert abs(found.macro_auc.value - real) < 4 * found.macro_auc.sd
    assert 0 < found.macro_f1 < 1


def test_what_cannot_be_computed_is_refused_not_guessed() -> None:
    for bad in ([], [np.nan], [1.2], [-0.1]):
        with pytest.raises(ValueError, match=r"probabilities|rows"):
            estimate.binary(bad, threshold=0.5)
    assert estimate.binary([0.0, 0.0], threshold=0.5).auc is None
    assert estimate.realised_auc([0.2, 0.4], [1, 1]) is None
    with pytest.raises(ValueError, match="sum to 1"):
        estimate.multiclass([[0.5, 0.2]])


@given(st.lists(st.floats(0.01, 0.99), min_size=2, max_size=40))
def test_the_order_of_rows_does_not_matter(values: list[float]) -> None:
    forwards, backwards = (estimate.binary(v, threshold=0.5) for v in (values, values[::-1]))
    assert forwards.auc is not None
    assert backwards.auc is not None
    assert forwards.auc.value == pytest.approx(backwards.auc.value, abs=1e-9)
    assert 0 <= forwards.auc.value <= 1
