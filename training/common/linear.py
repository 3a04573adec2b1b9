"""Fits linear candidates: logistic, softmax or ridge on piecewise linear columns, and TF-IDF of texts."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from control_plane.domain.model_config import Feature, FeatureType, Problem
from model_servers.native.encode import UNSEEN, Encoder
from model_servers.native.manifest import Column
from training.common import encoding, textfit
from training.common.artifact import Fitted

_DENSE_CELLS = 24_000_000  # of float32: about 100 MB; larger tables are thinned out, a linear model needs no more


def fit_tabular(
    features: Mapping[str, Feature],
    arrays: list[NDArray[Any]],
    target: NDArray[np.float64],
    weight: NDArray[np.float64] | None,
    *,
    problem: Problem,
    outputs: int,
    strength: float,
    seed: int,
) -> Fitted:
    """`strength`: inverse regularisation of standardised columns (C of the logistic, 1 / alpha of the ridge)."""
    from sklearn.linear_model import LogisticRegression, Ridge

    columns = encoding.plan(features, arrays, "linear", None)
    encoder = _encoder(features, arrays, columns)
    rows = _thinned(len(target), _DENSE_CELLS // max(encoder.width, 1), seed)
    matrix = encoder.column_matrix([values[rows] for values in arrays])
    mean, scale = matrix.mean(axis=0, dtype=np.float64), matrix.std(axis=0, dtype=np.float64)
    scale[scale == 0] = 1.0
    matrix -= mean.astype(np.float32)
    matrix /= scale.astype(np.float32)
    weights = None if weight is None else weight[rows]
    if problem is Problem.REGRESSION:
        model = Ridge(alpha=1 / strength).fit(matrix, target[rows], sample_weight=weights)
        coefficients, intercept = model.coef_.reshape(-1, 1), np.atleast_1d(model.intercept_)
    else:
        model = LogisticRegression(C=strength, max_iter=400).fit(
            matrix, target[rows].astype(int), sample_weight=weights
        )
        coefficients, intercept = _outputs(model, outputs)
    unscaled = coefficients.astype(np.float64) / scale[:, None]
    bias = intercept.astype(np.float64) - mean @ unscaled
    centre = np.zeros((len(features), outputs))
    np.add.at(centre, encoder.sources, mean[:, None] * unscaled)
    params = {"strength": strength, "columns": encoder.width, "rows": len(rows)}
    return Fitted("linear", columns, params, arrays={"weights": unscaled, "bias": bias, "centre": centre})


def fit_text(
    features: Mapping[str, Feature],
    arrays: list[NDArray[Any]],
    target: NDArray[np.float64],
    weight: NDArray[np.float64] | None,
    *,
    problem: Problem,
    outputs: int,
    strength: float,
    seed: int,
    threads: int,
) -> Fitted:
    """One-hot categories, binned numbers and TF-IDF side by side. `strength`: inverse regularisation per row."""
    from sklearn.linear_model import Ridge, SGDClassifier

    columns = encoding.plan(features, arrays, "sparse", None)
    encoder = _encoder(features, arrays, columns)
    tabular, mean, scale = _sparse(encoder, arrays)
    parts, blocks, vocabularies = [tabular], list[Any](), list[textfit.Vocabulary]()
    sources: list[int] = []
    for i, (name, feature) in enumerate(features.items()):
        if feature.type is FeatureType.TEXT:
            for block in textfit.blocks(name, len(blocks)):
                vocabulary, matrix = textfit.fit(arrays[i], block)
                blocks.append(block)
                vocabularies.append(vocabulary)
                parts.append(matrix)
                sources.append(i)
    stacked = sparse.hstack(parts, format="csr", dtype=np.float32)
    if problem is Problem.REGRESSION:
        model: Any = Ridge(alpha=1 / strength, solver="sparse_cg").fit(stacked, target, sample_weight=weight)
        coefficients, intercept = model.coef_.reshape(-1, 1), np.atleast_1d(model.intercept_)
    else:
        model = SGDClassifier(
            loss="log_loss",
            alpha=1 / (strength * len(target)),
            max_iter=int(np.clip(400_000 // max(len(target), 1), 8, 12)),
            tol=None,  # pyright: ignore[reportArgumentType]  # documented: no early stop
            average=True,
            random_state=seed,
            n_jobs=threads,
        ).fit(stacked, target.astype(int), sample_weight=weight)
        coefficients, intercept = _outputs(model, outputs)
    width = encoder.width
    unscaled = coefficients[:width].astype(np.float64) / scale[:, None]
    bias = intercept.astype(np.float64) - mean @ unscaled
    saved: dict[str, NDArray[Any]] = {"weights": unscaled, "bias": bias}
    centre = np.zeros((len(features), outputs))
    shares = np.asarray(tabular.mean(axis=0)).ravel()[:, None] * coefficients[:width] + mean[:, None] * unscaled
    np.add.at(centre, encoder.sources, shares)
    at = width
    for number, (matrix, vocabulary) in enumerate(zip(parts[1:], vocabularies, strict=True)):
        rows = coefficients[at : at + matrix.shape[1]]
        saved[f"idf_{number}"], saved[f"weights_{number}"] = vocabulary.idf, rows.astype(np.float32)
        centre[sources[number]] += np.asarray(matrix.mean(axis=0)).ravel() @ rows
        at += matrix.shape[1]
    saved["centre"] = centre
    params = {"strength": strength, "columns": width, "ngrams": sum(len(v.grams) for v in vocabularies)}
    return Fitted(
        "tfidf_linear",
        columns,
        params,
        text=tuple(blocks),
        vocabularies=tuple(vocabulary.grams for vocabulary in vocabularies),
        arrays=saved,
    )


def _outputs(model: Any, outputs: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Coefficients (columns, outputs) and intercepts; a class without a row to learn from never wins."""
    if outputs == 1:
        return model.coef_.T, model.intercept_
    coefficients, intercept = np.zeros((model.coef_.shape[1], outputs)), np.full(outputs, -30.0)
    if len(model.classes_) == 2:  # scikit-learn keeps one line for two classes
        first, second = model.classes_
        coefficients[:, [first, second]] = np.column_stack([-model.coef_[0], model.coef_[0]]) / 2
        intercept[[first, second]] = np.array([-model.intercept_[0], model.intercept_[0]]) / 2
    else:
        coefficients[:, model.classes_], intercept[model.classes_] = model.coef_.T, model.intercept_
    return coefficients, intercept


def _sparse(encoder: Encoder, arrays: list[NDArray[Any]]) -> tuple[Any, NDArray[np.float64], NDArray[np.float64]]:
    """Columns as a sparse matrix: numbers standardised, codes as they are; with the mean and scale that were taken."""
    numbers = encoder.column_numbers(arrays)
    mean, scale = np.zeros(encoder.width), np.ones(encoder.width)
    mean[encoder.numeric] = numbers.mean(axis=0)
    scale[encoder.numeric] = np.where(numbers.std(axis=0) > 0, numbers.std(axis=0), 1.0)
    rows = len(numbers)
    wide = np.zeros((rows, 0), dtype=np.int64)
    scaled = (numbers - mean[encoder.numeric]) / scale[encoder.numeric]
    row = np.repeat(np.arange(rows), scaled.shape[1])
    column = np.tile(np.array(encoder.numeric, dtype=np.int64), rows)
    codes = encoder.column_codes(arrays) if encoder.coded else wide
    at, which = np.nonzero(codes != UNSEEN)
    values = np.r_[scaled.ravel(), np.ones(len(at))]
    place = (np.r_[row, at], np.r_[column, codes[at, which]])
    return sparse.csr_matrix((values, place), shape=(rows, encoder.width), dtype=np.float32), mean, scale


def _encoder(features: Mapping[str, Feature], arrays: list[NDArray[Any]], columns: tuple[Column, ...]) -> Encoder:
    return Encoder(encoding.native_features(features, arrays), columns)


def _thinned(rows: int, limit: int, seed: int) -> NDArray[np.int64]:
    if rows <= limit:
        return np.arange(rows)
    return np.sort(np.random.default_rng(seed).choice(rows, limit, replace=False))
