"""Fits tree ensembles: XGBoost, LightGBM where installed, and a random forest in XGBoost's own forest mode."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from control_plane.domain.model_config import Feature, Problem
from model_servers.native.encode import Encoder
from training.common import encoding
from training.common.artifact import Fitted
from training.common.workers import Workers

_PATIENCE = 30  # rounds without progress on the validation part
_SLOWEST_S = 1_800  # a worker in one step of a round, before the others stop waiting for it
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
    by: Workers | None = None,
) -> Fitted:
    """Stops early on `check`, the validation part; without it, fits `rounds`. `by`: who fits; None: this process."""
    import xgboost

    large = len(table.target) > 30_000
    params: dict[str, Any] = {
        "objective": _XGB_OBJECTIVE[problem],
        "max_depth": 6 if large else 4,
        "eta": 0.1 if large or outputs > 1 else 0.06,
        "colsample_bytree": 0.7,  # and no samples of rows: each worker could only draw from those it has
        "min_child_weight": 5,
        "tree_method": "hist",
        "max_bin": 128,
    }
    data = xgboost.QuantileDMatrix(
        table.matrix, table.target, weight=weight, max_bin=params["max_bin"], nthread=threads
    )
    judging = (table.encoder.column_matrix(check[0]), check[1]) if check else None
    settings, most = _common(outputs, seed), rounds if rounds is not None else (300 if outputs == 1 else 150)
    if by is None:
        booster = xgboost.train(
            params | settings | {"nthread": threads},
            data,
            most,
            evals=[(xgboost.DMatrix(*judging, nthread=threads), "v")] if judging else None,
            early_stopping_rounds=_PATIENCE if judging else None,
            verbose_eval=False,
        )
    else:
        cuts = data.get_quantile_cut()
        del data
        booster = by.together(lambda: _boosted(by, table, weight, judging, params | settings, cuts, most))
    if check:
        rounds = booster.best_iteration + 1
        booster = booster[:rounds]
    return Fitted("xgboost", table.columns, params, booster=bytes(booster.save_raw("ubj")), rounds=rounds)


def _boosted(
    by: Workers,
    table: Table,
    weight: NDArray[np.float64] | None,
    check: tuple[NDArray[np.float32], NDArray[np.float64]] | None,
    settings: Mapping[str, Any],
    cuts: tuple[NDArray[np.uint64], NDArray[np.float32]],
    most: int,
) -> Any:
    """The booster of rows that are divided among workers: the one a single process fits, with `cuts` of all rows.

    Left to themselves, workers would merge sketches of their parts into other bins. So each value is sent to the lower
    end of its bin first: then a sketch of any part has nothing to decide, and a threshold is the raw value it was.
    """
    from xgboost import collective, dask

    holders = by.holders(len(table.target))[: len(check[1]) if check else None]
    lowest = np.nan_to_num(np.fmin.reduce(table.matrix, axis=0)).astype(np.float32)
    data = dask.DaskQuantileDMatrix(
        by.client,
        by.held(table.matrix, holders, binned, *cuts, lowest),
        by.held(table.target, holders),
        weight=None if weight is None else by.held(weight, holders),
        max_bin=settings["max_bin"],
    )
    judging = dask.DaskDMatrix(by.client, *(by.held(values, holders) for values in check)) if check else None
    found = dask.train(
        by.client,
        dict(settings),
        data,
        most,
        evals=None if judging is None else [(judging, "v")],
        early_stopping_rounds=None if judging is None else _PATIENCE,
        verbose_eval=False,
        coll_cfg=collective.Config(timeout=_SLOWEST_S),
    )
    return found["booster"]


def binned(
    block: NDArray[np.float32], starts: NDArray[np.uint64], cuts: NDArray[np.float32], lowest: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Rows with each value at the lower end of its bin, (rows, columns); missing ones stay NaN.

    `starts` and `cuts` as `QuantileDMatrix.get_quantile_cut` gives them: of column j, cuts[starts[j]:starts[j + 1]] are
    the upper ends of its bins. `lowest`: where its first bin begins.
    """
    made = np.full(block.shape, np.nan, dtype=np.float32)
    for column, low in enumerate(lowest):
        inner = cuts[int(starts[column]) : int(starts[column + 1])][:-1]
        values, known = block[:, column], ~np.isnan(block[:, column])
        ends = np.concatenate(([low], inner)).astype(np.float32)
        made[known, column] = ends[np.searchsorted(inner, values[known], side="right")]
    return made


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
    settings = _common(outputs, seed) | {"nthread": threads}
    booster = xgboost.train(params | settings, data, 1, verbose_eval=False)
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


def _common(outputs: int, seed: int) -> dict[str, Any]:
    fixed: dict[str, Any] = {"seed": seed, "verbosity": 0}
    return fixed | {"num_class": outputs} if outputs > 1 else fixed
