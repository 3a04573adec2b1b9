import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics

from control_plane.domain.model_config import Problem
from training.common import evaluation

seeds = st.integers(0, 10_000)


@given(seeds, st.integers(2, 60), st.sampled_from([1, 2, 7]))
def test_ranking_metrics_equal_scikit_learn_with_ties_and_weights(seed: int, rows: int, levels: int) -> None:
    rng = np.random.default_rng(seed)
    label = np.r_[0.0, 1.0, rng.integers(0, 2, rows - 2)]
    score = rng.integers(0, levels, rows) / levels
    weight = np.r_[1, 1, rng.integers(0, 3, rows - 2)].astype(float)
    assert evaluation.roc_auc(label, score, weight) == pytest.approx(
        metrics.roc_auc_score(label, score, sample_weight=weight)
    )
    assert evaluation.average_precision(label, score, weight) == pytest.approx(
        metrics.average_precision_score(label, score, sample_weight=weight)
    )


@given(seeds, st.integers(3, 50))
def test_multiclass_metrics_equal_scikit_learn(seed: int, rows: int) -> None:
    rng = np.random.default_rng(seed)
    label, probability = rng.integers(0, 3, rows), rng.dirichlet([1, 1, 1], rows)
    weight = rng.integers(0, 3, rows).astype(float) + 0.5
    guess = probability.argmax(axis=1)
    found = evaluation.everything(Problem.MULTICLASS, label.astype(float), probability, None)
    assert found["accuracy"] == pytest.approx(metrics.accuracy_score(label, guess))
    assert found["log_loss"] == pytest.approx(metrics.log_loss(label, probability, labels=[0, 1, 2]))
    there = sorted({*label, *guess})
    assert evaluation.macro_f1(label, guess, 3, weight) == pytest.approx(
        metrics.f1_score(label, guess, labels=there, average="macro", sample_weight=weight, zero_division=0)
    )


def test_regression_metrics_equal_scikit_learn() -> None:
    rng = np.random.default_rng(3)
    label, said = rng.normal(size=50), rng.normal(size=50)
    found = evaluation.everything(Problem.REGRESSION, label, said, None)
    assert found["rmse"] == pytest.approx(metrics.root_mean_squared_error(label, said))
    assert found["mae"] == pytest.approx(metrics.mean_absolute_error(label, said))
    assert found["r2"] == pytest.approx(metrics.r2_score(label, said))


def test_a_metric_without_a_meaning_is_not_a_number() -> None:
    ones = np.ones(5)
    assert np.isnan(evaluation.roc_auc(ones, np.arange(5.0)))
    assert np.isnan(evaluation.average_precision(ones * 0, np.arange(5.0)))
    assert evaluation.average_precision(ones, np.arange(5.0)) == 1.0


def test_a_class_the_model_does_not_know_is_never_right() -> None:
    label, probability = np.array([0.0, -1.0]), np.array([[0.9, 0.1], [0.5, 0.5]])
    found = evaluation.everything(Problem.MULTICLASS, label, probability, None)
    assert found["accuracy"] == 0.5
    assert found["log_loss"] > 15


@settings(max_examples=5)
@given(seeds)
def test_the_bootstrap_interval_is_as_wide_as_the_binomial_one(seed: int) -> None:
    rng = np.random.default_rng(seed)
    label = np.zeros(2_000)
    said = (rng.random(2_000) < 0.3).astype(float)
    found = evaluation.bootstrap(
        evaluation.measure(Problem.BINARY, "accuracy", label, said), 2_000, rng=rng, resamples=300
    )
    half = 1.96 * np.sqrt(0.3 * 0.7 / 2_000)
    assert found.high - found.low == pytest.approx(2 * half, rel=0.25)
    assert found.low < found.value < found.high


def test_rows_of_one_unit_count_as_one_observation() -> None:
    rng = np.random.default_rng(0)
    wrong = (rng.random(100) < 0.3).astype(float)
    label, said, units = np.zeros(2_000), np.repeat(wrong, 20), np.repeat(np.arange(100), 20)
    metric = evaluation.measure(Problem.BINARY, "accuracy", label, said)
    by_row = evaluation.bootstrap(metric, 2_000, rng=np.random.default_rng(1))
    by_unit = evaluation.bootstrap(metric, 2_000, rng=np.random.default_rng(1), units=units)
    assert by_unit.high - by_unit.low > 3 * (by_row.high - by_row.low)


def test_an_interval_that_could_not_be_computed_says_so() -> None:
    found = evaluation.bootstrap(lambda weight: float("nan"), 10, rng=np.random.default_rng(0), resamples=10)
    assert np.isnan(found.low)
    assert np.isnan(found.high)


def test_an_unknown_metric_is_a_mistake_of_the_programmer() -> None:
    with pytest.raises(ValueError, match="no metric of a binary problem"):
        evaluation.measure(Problem.BINARY, "rmse", np.zeros(1), np.zeros(1))
