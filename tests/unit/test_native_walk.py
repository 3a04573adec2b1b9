"""Walked trees answer, bit by bit, what the library answers."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xgboost
from numpy.typing import NDArray

from model_servers.native import walk
from model_servers.native.trees import XGBoost

RNG = np.random.default_rng(11)
X = np.where(RNG.random((3_000, 6)) < 0.1, np.nan, RNG.normal(size=(3_000, 6))).astype(np.float32)
SCORE = np.nan_to_num(X[:, 0]) + np.nan_to_num(X[:, 1]) * np.nan_to_num(X[:, 2]) + RNG.normal(size=3_000) / 2
KINDS: dict[str, tuple[dict[str, Any], NDArray[Any]]] = {
    "binary": ({"objective": "binary:logistic", "base_score": 0.3}, SCORE > 0.3),
    "intercept": ({"objective": "binary:logistic"}, SCORE > 1.5),
    "multiclass": ({"objective": "multi:softprob", "num_class": 3}, np.digitize(SCORE, [-0.5, 0.5])),
    "regression": ({"objective": "reg:squarederror"}, SCORE),
    "forest": ({"objective": "binary:logistic", "num_parallel_tree": 30, "subsample": 0.6, "eta": 1}, SCORE > 0),
    "weighted": ({"objective": "binary:logistic", "booster": "dart", "rate_drop": 0.5}, SCORE > 0),
    "deep": ({"objective": "binary:logistic", "max_depth": 14}, SCORE > 0),
}


def trained(kind: str, rounds: int) -> xgboost.Booster:
    given, y = KINDS[kind]
    return xgboost.train({"max_depth": 5, "nthread": 1, **given}, xgboost.DMatrix(X, y), rounds)


def library(booster: xgboost.Booster) -> Any:
    def margins(matrix: NDArray[np.float32]) -> NDArray[np.float64]:
        found = booster.inplace_predict(matrix, predict_type="margin", missing=np.nan)
        return np.asarray(found, np.float64).reshape(len(matrix), -1)

    return margins


@pytest.mark.parametrize("rounds", [1, 40])
@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "weighted"])
def test_every_bit_is_the_librarys_missing_and_infinite_values_included(kind: str, rounds: int) -> None:
    booster = trained(kind, rounds)
    margins = library(booster)
    walked = walk.of_xgboost(json.loads(booster.save_raw("json")), X.shape[1], margins)
    rows = X.copy()
    rows[::7, 0], rows[1::7, 1] = np.inf, -np.inf
    for matrix in (X[:1], X[:2], rows):
        assert np.array_equal(walked.margins(matrix), margins(matrix))


@pytest.mark.parametrize("seed", range(12))
def test_random_ensembles_are_the_librarys_bit_by_bit_at_every_number_of_rows(seed: int) -> None:
    """Ties, decimals no float32 holds, magnitudes at its ends, the smallest and the largest numbers there are."""
    rng = np.random.default_rng(seed)
    columns, scale = int(rng.integers(1, 9)), float(rng.choice([1.0, 1.0, 1e-30, 1e30]))
    x = (np.round(rng.normal(size=(400, columns)), int(rng.integers(1, 4))) * scale).astype(np.float32)
    score = x[:, 0] / np.float32(scale) + rng.normal(size=400) / 3
    x[rng.random(x.shape) < rng.choice([0, 0.2])] = np.nan
    classes = int(rng.choice([0, 1, 2, 4]))  # 0: regression
    given: dict[str, Any] = {"max_depth": int(rng.integers(1, 9)), "eta": float(rng.choice([0.1, 1.0])), "nthread": 1}
    if classes > 1:
        given |= {"objective": "multi:softprob", "num_class": classes}
        label = np.digitize(score, np.linspace(-0.7, 0.7, classes - 1))
    elif classes:
        given |= {"objective": "binary:logistic", "base_score": float(rng.choice([0.01, 0.3, 0.77]))}
        label = (score > 0).astype(int)
    else:
        label = score
    if seed % 3 == 0:
        given |= {"tree_method": "hist", "grow_policy": "lossguide", "max_leaves": 20, "max_depth": 0}
    booster = xgboost.train(given, xgboost.DMatrix(x, label, nthread=1), int(rng.integers(1, 50)))
    margins = library(booster)
    walked = walk.of_xgboost(json.loads(booster.save_raw("json")), columns, margins)
    rows = np.vstack([x[:150], walked.probe(150)])
    for value in (np.inf, -np.inf, np.nan, -0.0, 1e-45, 3.4028235e38):
        rows[rng.random(rows.shape) < 0.02] = value
    for count in range(1, 66):
        some = np.ascontiguousarray(rows[rng.integers(0, len(rows), count)])
        assert walked.margins(some).tobytes() == margins(some).tobytes()


@pytest.mark.parametrize("kind", ["no trees", "infinite", "nowhere", "shuffled", "cut", "bases", "empty"])
def test_a_document_that_holds_something_unknown_is_left_to_the_library(kind: str) -> None:
    booster = trained("binary", 3)
    document = json.loads(booster.save_raw("json"))
    ensemble = document["learner"]["gradient_booster"]["model"]
    match kind:
        case "no trees":
            ensemble["trees"], ensemble["tree_info"] = [], []
        case "infinite":
            ensemble["trees"][0]["split_conditions"][0] = float("inf")
        case "nowhere":
            ensemble["trees"][0]["split_indices"][0] = X.shape[1]
        case "shuffled":
            ensemble["tree_info"] = [1, 0, 1]
        case "cut":
            del ensemble["trees"][1]["default_left"]
        case "bases":
            document["learner"]["learner_model_param"]["base_score"] = "[1E0,2E0]"
        case _:
            document = {}
    with pytest.raises(walk.Unsuitable):
        walk.of_xgboost(document, X.shape[1], library(booster))


def test_the_scorer_walks_few_rows_and_asks_the_library_for_more_or_for_all(tmp_path: Path) -> None:
    trained("multiclass", 30).save_model(tmp_path / "walked.ubj")
    trained("weighted", 5).save_model(tmp_path / "asked.ubj")
    walked, asked = XGBoost(tmp_path / "walked.ubj", 1), XGBoost(tmp_path / "asked.ubj", 1)
    before = [walked.margins(X[:count]) for count in (1, 3, 64, 200)]
    for scorer in (walked, asked):
        scorer.prepare_margins(X.shape[1])
    assert [a.tobytes() for a in before] == [walked.margins(X[:count]).tobytes() for count in (1, 3, 64, 200)]
    assert asked.walks_up_to == 0
    assert walked.walks_up_to < 200


def test_a_document_that_does_not_say_what_the_library_does_is_not_used() -> None:
    booster = trained("binary", 5)
    document = json.loads(booster.save_raw("json"))
    leaves = document["learner"]["gradient_booster"]["model"]["trees"][3]["split_conditions"]
    leaves[-1] += 1e-3
    with pytest.raises(walk.Unsuitable, match="does not agree"):
        walk.of_xgboost(document, X.shape[1], library(booster))


def test_trees_that_split_categories_or_carry_weights_are_left_to_the_library() -> None:
    for change in ({"booster": "dart", "rate_drop": 0.5}, {"max_cat_to_onehot": 1}):
        frame = xgboost.DMatrix(np.abs(np.nan_to_num(X)).astype(np.int32), SCORE > 0, feature_types=["c"] * 6)
        data = frame if "max_cat_to_onehot" in change else xgboost.DMatrix(X, SCORE > 0)
        booster = xgboost.train({"objective": "binary:logistic", **change}, data, 5)
        with pytest.raises(walk.Unsuitable, match=r"weighted trees|splits of categories"):
            walk.of_xgboost(json.loads(booster.save_raw("json")), X.shape[1], lambda m: np.zeros((len(m), 1)))


def test_where_walking_pays_is_measured_and_bounded() -> None:
    booster = trained("binary", 40)
    walked = walk.of_xgboost(json.loads(booster.save_raw("json")), X.shape[1], library(booster))
    assert walk.faster_until(walked, walked.margins) <= 64
    assert walk.faster_until(walked, lambda matrix: np.zeros((len(matrix), 1))) == 0
