"""Threshold, calibration, selection, versions: the pure decisions of a training."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from control_plane.domain.model_config import Costs, Decision, Feature, FeatureType, Label, ModelConfig, Problem, Target
from training.common import calibration, evaluation, selection, semver, threshold
from training.common.selection import Score
from training.common.threshold import RowCosts

seeds = st.integers(0, 10_000)


def brute_force(probability: np.ndarray, rows: RowCosts) -> float:
    """The least cost over every threshold that makes a difference."""
    tried = [1.1, *np.unique(probability)]
    return min(rows.of(probability >= t) for t in tried)


@given(seeds, st.integers(1, 40), st.booleans())
def test_no_threshold_costs_less_than_the_chosen_one(seed: int, size: int, by_amount: bool) -> None:
    rng = np.random.default_rng(seed)
    label = rng.integers(0, 2, size).astype(float)
    probability = rng.integers(0, 9, size) / 10
    declared = Costs(false_positive=5, false_negative=30, true_positive=2, true_negative=-0.5)
    rows = threshold.costs(label, declared, rng.gamma(1, 40, size) if by_amount else None)
    chosen = threshold.choose(probability, rows)
    assert 0 <= chosen <= 1
    assert rows.of(probability >= chosen) == pytest.approx(brute_force(probability, rows))


def test_a_missed_positive_costs_its_own_amount() -> None:
    declared = Costs(false_positive=5, false_negative=100, true_positive=2)
    rows = threshold.costs(np.array([1.0, 1.0, 0.0]), declared, np.array([7.0, 900.0, 50.0]))
    assert rows.no.tolist() == [7, 900, 0]
    assert rows.yes.tolist() == [2, 2, 5]
    assert rows.trivial == 9
    assert rows.of(np.array([False, True, False])) == 9


def test_where_yes_never_pays_the_answer_is_never_yes() -> None:
    rows = threshold.costs(np.zeros(10), Costs(), None)
    assert threshold.choose(np.linspace(0, 0.9, 10), rows) == 1.0
    assert threshold.choose(np.array([]), threshold.costs(np.array([]), Costs(), None)) == 1.0


@given(seeds, st.integers(20, 400))
def test_calibration_never_turns_two_predictions_around(seed: int, size: int) -> None:
    rng = np.random.default_rng(seed)
    raw = rng.random(size).round(2)
    label = (rng.random(size) < raw**2).astype(float)
    for table in (calibration.isotonic(label, raw), calibration.platt(label, raw)):
        x, y = np.array(table.x), np.array(table.y)
        assert (np.diff(x) > 0).all()
        assert (np.diff(y) >= 0).all()
        assert y.min() > 0
        assert y.max() < 1
        assert (x[0], x[-1]) == (0, 1)


def test_the_isotonic_curve_finds_the_true_one_and_keeps_the_ranking() -> None:
    rng = np.random.default_rng(1)
    raw = rng.random(20_000)
    label = (rng.random(20_000) < raw**3).astype(float)
    table = calibration.fit(label, raw)
    assert table.method == "isotonic"
    said = np.interp(raw, table.x, table.y)
    assert np.abs(said - raw**3).mean() < 0.012
    assert evaluation.roc_auc(label, said) == pytest.approx(evaluation.roc_auc(label, raw), abs=0.003)
    assert evaluation.calibration_error(label, said) < 0.25 * evaluation.calibration_error(label, raw)


def test_few_positives_get_a_curve_of_two_parameters() -> None:
    rng = np.random.default_rng(2)
    odds = rng.normal(-4, 1.5, 2_000)
    raw = 1 / (1 + np.exp(-odds))
    label = (rng.random(2_000) < 1 / (1 + np.exp(-(0.5 * odds - 1.5)))).astype(float)
    assert label.sum() < 100
    table = calibration.fit(label, raw)
    assert table.method == "platt"
    said = np.interp(raw, table.x, table.y)
    assert np.abs(said - 1 / (1 + np.exp(-(0.5 * odds - 1.5)))).mean() < 0.02


@pytest.mark.parametrize("true_temperature", [0.5, 1.0, 3.0])
def test_the_temperature_that_made_the_labels_is_found(true_temperature: float) -> None:
    rng = np.random.default_rng(4)
    margins = rng.normal(0, 3, (8_000, 4))
    odds = np.exp(margins / true_temperature)
    label = np.array([rng.choice(4, p=row / row.sum()) for row in odds])
    assert calibration.temperature(label, margins) == pytest.approx(true_temperature, rel=0.07)


@pytest.mark.parametrize(
    ("scores", "margin", "winner"),
    [
        ([("linear", 0.80), ("xgboost", 0.805)], 0.01, "linear"),
        ([("linear", 0.80), ("xgboost", 0.811)], 0.01, "xgboost"),
        ([("linear", 0.80), ("xgboost", 0.805), ("forest", 0.812)], 0.01, "forest"),
        ([("linear", 0.80), ("xgboost", 0.82), ("forest", 0.825)], 0.01, "xgboost"),
        ([("xgboost", 0.7), ("lightgbm", 0.71), ("linear", float("nan"))], 0.05, "lightgbm"),
    ],
)
def test_a_slower_kind_wins_only_by_the_margin(scores: list[tuple[str, float]], margin: float, winner: str) -> None:
    found = [Score(kind, kind, value) for kind, value in scores]  # type: ignore[arg-type]
    assert selection.winner(found, higher_is_better=True, margin=margin).name == winner
    turned = [Score(kind, kind, -value) for kind, value in scores]  # type: ignore[arg-type]
    assert selection.winner(turned, higher_is_better=False, margin=margin).name == winner


def test_without_a_value_nobody_wins() -> None:
    with pytest.raises(ValueError, match="no candidate"):
        selection.winner([Score("a", "linear", float("nan"))], higher_is_better=True, margin=0.0)


def config(**features: Feature) -> ModelConfig:
    return ModelConfig("risk", Problem.REGRESSION, features or {"a": Feature(FeatureType.NUMBER)})


def test_versions_say_what_changed() -> None:
    first = semver.shape(config(), "code")
    assert semver.following(None, None, first) == "1.0.0"
    assert semver.following("1.4.2", first, first) == "1.4.3"
    assert semver.following("1.4.2", first, semver.shape(config(), "other code")) == "1.5.0"
    ranged = semver.shape(config(a=Feature(FeatureType.NUMBER, range=(0, 1))), "code")
    assert semver.following("1.4.2", first, ranged) == "1.5.0"
    nullable = semver.shape(config(a=Feature(FeatureType.NUMBER, nullable=True)), "code")
    assert semver.following("1.4.2", first, nullable) == "2.0.0"
    described = semver.shape(config(a=Feature(FeatureType.NUMBER, description="words")), "code")
    assert semver.following("1.4.2", first, described) == "1.4.3"
    assert semver.following("1.4.2", None, first) == "2.0.0"


@pytest.mark.parametrize(
    ("changes", "following"),
    [
        ({}, "1.4.3"),
        ({"label": Label(delay_s=86_400)}, "1.5.0"),  # features read labels of that age
        ({"label": Label(absence_means="negative")}, "1.5.0"),
        ({"target": Target("closed", positive=1)}, "2.0.0"),
        ({"target": Target("lost", positive=0)}, "2.0.0"),
        ({"target": Target("lost", positive=1, top=5)}, "2.0.0"),
        ({"target": Target("lost", positive=1, other="REST")}, "2.0.0"),
        ({"decision": Decision(positive="block")}, "2.0.0"),
        ({"decision": Decision(negative="let go")}, "2.0.0"),
        ({"decision": Decision(threshold=0.4)}, "1.4.3"),
    ],
)
def test_another_meaning_of_the_answer_is_a_major_and_another_label_delay_a_minor(
    changes: dict[str, Any], following: str
) -> None:
    declared = replace(config(), target=Target("lost", positive=1))
    before, now = (semver.shape(one, "code") for one in (declared, replace(declared, **changes)))
    assert semver.following("1.4.2", before, now) == following
