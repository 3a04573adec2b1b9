"""Fits tree ensembles: XGBoost, LightGBM where installed, and a random forest in XGBoost's own forest mode."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from control_plane.domain.model_config import Feature, Problem
from model_servers.native.encode import Encoder
from training.common import encoding
from training.common.artifact import Fitted

_PATIENCE = 30  # rounds without progress on the validation part
_XGB_OBJECTIVE = {
    Problem.BINARY: "binary:logistic",
    Problem.MULTICLASS: "multi:softprob",
    Problem.REGRESSION: "reg:squarederror",
}
_LGB_OBJECTIVE = {Problem.BINARY: "binary", Problem.MULTICLASS: "multiclass", Problem.REGRESSION: "regression"}


class Table:
    """The rows of a fit as trees read them, encoded once."""

    def __init__(
        self, features: Mapping[str, Feature], arrays: list[NDArray[Any]], target: NDArray[np.float64], outputs: int
    ) -> None:
        self.columns = encoding.plan(features, arrays, "trees", target if outputs == 1 else None)
        self.encoder = Encoder(encoding.native_features(features, arrays), self.columns)
        self.matrix = self.encoder.column_matrix(arrays)
        self.target = target


def fit_xgboost(
    table: Table,
    check: tuple[list[NDArray[Any]], NDArray[np.float64]] | None,
    weight: NDArray[np.float64] | None,
    *,
    problem: Problem,
    outputs: int,
    seed: int,
    threads: int,
    rounds: int | None = None,
) -> Fitted:
    """Stops early on `check`, the validation part; without it, fits `rounds`."""
    import xgboost

    large = len(table.target) > 30_000
    params: dict[str, Any] = {
        "objective": _XGB_OBJECTIVE[problem],
        "max_depth": 6 if large else 4,
        "eta": 0.1 if large or outputs > 1 else 0.06,
        "subsample": 0.8,
        "colsample_bytree": 0.7,
        "min_child_weight": 5,
        "tree_method": "hist",
        "max_bin": 128,
    }
    data = xgboost.QuantileDMatrix(
        table.matrix, table.target, weight=weight, max_bin=params["max_bin"], nthread=threads
    )
    booster = xgboost.train(
        params | _common(outputs, seed, threads),
        data,
        rounds if rounds is not None else (300 if outputs == 1 else 150),
        evals=[(xgboost.DMatrix(table.encoder.column_matrix(check[0]), check[1], nthread=threads), "v")]
        if check
        else None,
        early_stopping_rounds=_PATIENCE if check else None,
        verbose_eval=False,
    )
    if check:
        rounds = booster.best_iteration + 1
        booster = booster[:rounds]
    return Fitted("xgboost", table.columns, params, booster=bytes(booster.save_raw("ubj")), rounds=rounds)


def fit_forest(
    table: Table,
    weight: NDArray[np.float64] | None,
    *,
    problem: Problem,
    outputs: int,
    seed: int,
    threads: int,
) -> Fitted:
    """A random forest as XGBoost grows it: one round of parallel trees on samples of rows and columns.

    It is served and explained exactly as boosted trees are; its raw probabilities are shrunk and need the calibration.
    """
    import xgboost

    trees = max(20, 80 // outputs)
    params: dict[str, Any] = {
        "objective": _XGB_OBJECTIVE[problem],
        "max_depth": 12,
        "learning_rate": 1.0,
        "subsample": 0.632,
        "colsample_bynode": min(1.0, max(1.0, table.encoder.width**0.5) / max(table.encoder.width, 1)),
        "min_child_weight": 2,
        "lambda": 0.1,
        "num_parallel_tree": trees,
        "tree_method": "hist",
        "max_bin": 64,
    }
    data = xgboost.QuantileDMatrix(
        table.matrix, table.target, weight=weight, max_bin=params["max_bin"], nthread=threads
    )
    booster = xgboost.train(params | _common(outputs, seed, threads), data, 1, verbose_eval=False)
    return Fitted("forest", table.columns, params, booster=bytes(booster.save_raw("ubj")))


def fit_lightgbm(
    table: Table,
    check: tuple[list[NDArray[Any]], NDArray[np.float64]] | None,
    weight: NDArray[np.float64] | None,
    *,
    problem: Problem,
    outputs: int,
    seed: int,
    threads: int,
    rounds: int | None = None,
) -> Fitted:
    import lightgbm

    params: dict[str, Any] = {
        "objective": _LGB_OBJECTIVE[problem],
        "num_leaves": 31 if len(table.target) > 30_000 else 15,
        "learning_rate": 0.08,
        "bagging_fraction": 0.8,
        "bagging_freq": 1,
        "feature_fraction": 0.7,
        "min_data_in_leaf": 20,
        "max_bin": 127,
    }
    fixed = {"num_threads": threads, "seed": seed, "verbosity": -1, "deterministic": True, "force_row_wise": True}
    if outputs > 1:
        fixed["num_class"] = outputs
    data = lightgbm.Dataset(table.matrix, table.target, weight=weight, free_raw_data=True)
    checks = [lightgbm.Dataset(table.encoder.column_matrix(check[0]), check[1], reference=data)] if check else None
    booster = lightgbm.train(
        params | fixed,
        data,
        rounds if rounds is not None else (300 if outputs == 1 else 150),
        valid_sets=checks,
        callbacks=[lightgbm.early_stopping(_PATIENCE, verbose=False)] if check else None,
    )
    if check:
        rounds = booster.best_iteration
    text = booster.model_to_string(num_iteration=rounds)
    return Fitted("lightgbm", table.columns, params, booster=text.encode(), rounds=rounds)


def _common(outputs: int, seed: int, threads: int) -> dict[str, Any]:
    fixed: dict[str, Any] = {"seed": seed, "nthread": threads, "verbosity": 0}
    return fixed | {"num_class": outputs} if outputs > 1 else fixed
