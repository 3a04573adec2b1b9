"""Attributions by look-up are the library's own, at thresholds, beyond them and where values are missing."""

import json
from itertools import combinations
from math import factorial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xgboost

from model_servers.native import shap
from model_servers.native.trees import XGBoost


def trained(folder: Path, depth: int, *, rounds: int = 20, **parameters: Any) -> "tuple[Path, xgboost.Booster]":
    rng = np.random.default_rng(depth)
    matrix = rng.normal(size=(800, 5)).astype(np.float32)
    matrix[rng.random(matrix.shape) < 0.1] = np.nan
    label = (np.nan_to_num(matrix[:, 0] * matrix[:, 1]) + np.nan_to_num(matrix[:, 2]) > 0).astype(int)
    chosen = {"objective": "binary:logistic", "max_depth": depth, "nthread": 1, "seed": 1} | parameters
    booster = xgboost.train(chosen, xgboost.DMatrix(matrix, label, nthread=1), rounds)
    booster.save_model(folder / "booster.ubj")
    return folder / "booster.ubj", booster


def document(booster: "xgboost.Booster") -> Any:
    return json.loads(booster.save_raw("json"))


@pytest.mark.parametrize("depth", [1, 3, 5, 8])
def test_tables_answer_what_the_librarys_recursion_answers(tmp_path: Path, depth: int) -> None:
    _, booster = trained(tmp_path, depth)
    tables = shap.of_xgboost(document(booster), 5)
    rng = np.random.default_rng(0)
    rows = np.vstack([tables.probe(60), rng.normal(size=(60, 5)).astype(np.float32) * 3])
    rows[-1] = np.nan
    theirs = booster.predict(xgboost.DMatrix(rows, nthread=1), pred_contribs=True)
    assert tables.contributions(rows) == pytest.approx(theirs[:, :-1], abs=2e-5)


def test_they_are_shapley_values_of_the_tree_with_absent_features_weighted_by_cover(tmp_path: Path) -> None:
    """Brute force over all subsets, from the definition."""
    _, booster = trained(tmp_path, 3, rounds=1)
    found = document(booster)
    (tree,) = found["learner"]["gradient_booster"]["model"]["trees"]
    row = np.array([0.1, -0.2, 0.3, 0.0, 1.0], np.float32)

    def value(known: frozenset[int], node: int = 0) -> float:
        left, right = tree["left_children"][node], tree["right_children"][node]
        if left == -1:
            return float(tree["split_conditions"][node])
        if tree["split_indices"][node] in known:
            below = row[tree["split_indices"][node]] < np.float32(tree["split_conditions"][node])
            return value(known, left if below else right)
        cover = tree["sum_hessian"]
        return (value(known, left) * cover[left] + value(known, right) * cover[right]) / cover[node]

    def shapley(player: int) -> float:
        others = [column for column in range(5) if column != player]
        return sum(
            factorial(size)
            * factorial(4 - size)
            / factorial(5)
            * (value(frozenset({*some, player})) - value(frozenset(some)))
            for size in range(5)
            for some in combinations(others, size)
        )

    expected = [shapley(player) for player in range(5)]
    assert shap.of_xgboost(found, 5).contributions(row[None])[0] == pytest.approx(expected, abs=1e-6)


def test_numbers_beyond_all_thresholds_are_attributed_even_where_they_became_infinite(tmp_path: Path) -> None:
    """A number that a float32 cannot hold reaches the trees as infinity, which the library refuses."""
    tables = shap.of_xgboost(document(trained(tmp_path, 4)[1]), 5)
    largest = np.finfo(np.float32).max
    finite = np.array([[largest, 0.1, -largest, np.nan, largest]], np.float32)
    infinite = np.array([[np.inf, 0.1, -np.inf, np.nan, np.inf]], np.float32)
    assert tables.contributions(infinite).tolist() == tables.contributions(finite).tolist()


def test_a_node_that_no_training_row_reached_has_no_tables(tmp_path: Path) -> None:
    found = document(trained(tmp_path, 3)[1])
    found["learner"]["gradient_booster"]["model"]["trees"][0]["sum_hessian"][0] = 0.0
    with pytest.raises(shap.Unsuitable):
        shap.of_xgboost(found, 5)


@pytest.mark.parametrize(
    ("depth", "parameters"),
    [
        (10, {"min_child_weight": 0}),
        (3, {"booster": "dart", "rate_drop": 0.5}),
        (3, {"objective": "multi:softprob", "num_class": 2}),
    ],
)
def test_trees_that_tables_are_not_made_of_keep_the_librarys_recursion(
    tmp_path: Path, depth: int, parameters: dict[str, Any]
) -> None:
    path, booster = trained(tmp_path, depth, **parameters)
    if depth < 10:
        with pytest.raises(shap.Unsuitable):
            shap.of_xgboost(document(booster), 5)
    scorer = XGBoost(path, 1)
    rows = np.random.default_rng(0).normal(size=(4, 5)).astype(np.float32)
    before = scorer.contributions(rows)
    scorer.prepare_contributions(5)
    assert scorer.contributions(rows) == pytest.approx(before, abs=2e-5)


def test_a_prepared_scorer_answers_as_before_with_the_bias_last(tmp_path: Path) -> None:
    scorer = XGBoost(trained(tmp_path, 4)[0], 1)
    rows = np.random.default_rng(0).normal(size=(9, 5)).astype(np.float32)
    before, margins = scorer.contributions(rows), scorer.margins(rows)
    scorer.prepare_contributions(5)
    after = scorer.contributions(rows)
    assert after == pytest.approx(before, abs=2e-5)
    assert after.sum(axis=2) == pytest.approx(margins, abs=2e-5)
