"""Columns that know the answer: a feature that alone determines the target was filled in after the fact.

Each feature is tried on its own: what one half of the rows says about the target is tested on the other half, so that
rare values cannot look like knowledge.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from control_plane.domain.model_config import ModelConfig, Problem
from training.common import data, evaluation, labels

ALONE = 0.999  # ROC AUC, share of right answers, or R2, of one feature on its own
_BINS = 64
_ENOUGH = 20  # rows of the rarer answer in each half; below that, chance can do it
_SAMPLE = 100_000  # rows


def find(arrays: Mapping[str, NDArray[Any]], frame: pd.DataFrame, config: ModelConfig) -> Iterator[tuple[str, str]]:
    """(column, what is wrong) for every feature that determines the target. Nothing is reported for lack of rows."""
    read = labels.read(frame, config, data.times(frame, config))
    rows = np.flatnonzero(read.known)
    # Every second row of a fixed shuffle: the order of rows may itself be a leak.
    rows = np.random.default_rng(0).permutation(rows)[:_SAMPLE]
    target = read.values[rows]
    for name, values in arrays.items():
        scored = _score(_codes(values[rows]), target, config.problem)
        if config.problem is Problem.REGRESSION and values.dtype != object:
            scored = max(scored or 0.0, _linear(values[rows], target))
        if scored is not None and scored >= ALONE:
            yield name, f"alone determines {labels.target_of(config).column} ({scored:.4f} on rows not used): it leaks"


def _codes(values: NDArray[Any]) -> NDArray[np.int64]:
    """Values as group numbers, null a group of its own; numbers with many values in quantile bins."""
    if values.dtype == object:
        return pd.factorize(values, use_na_sentinel=False)[0].astype(np.int64)
    known = values[~np.isnan(values)]
    distinct = np.unique(known)
    edges = distinct if len(distinct) <= _BINS else np.unique(np.quantile(known, np.linspace(0, 1, _BINS + 1)[1:-1]))
    codes = np.searchsorted(edges, values, side="left").astype(np.int64)
    codes[np.isnan(values)] = len(edges) + 1
    return codes


def _linear(values: NDArray[Any], target: NDArray[Any]) -> float:
    """Squared correlation: the target in another unit is the commonest leak of a regression."""
    both = ~np.isnan(values)
    if both.sum() < _ENOUGH or values[both].std() == 0 or target[both].std() == 0:
        return 0.0
    return float(np.corrcoef(values[both], target[both])[0, 1] ** 2)


def _score(codes: NDArray[np.int64], target: NDArray[Any], problem: Problem) -> float | None:
    half = len(codes) // 2
    learn, test = slice(0, half), slice(half, None)
    size = int(codes.max()) + 1 if len(codes) else 0
    counts = np.bincount(codes[learn], minlength=size)
    match problem:
        case Problem.BINARY:
            yes = target.astype(np.float64)
            if min(yes[learn].sum(), half - yes[learn].sum(), yes[test].sum(), (1 - yes[test]).sum()) < _ENOUGH:
                return None
            rate = np.bincount(codes[learn], yes[learn], size)
            says = np.where(counts > 0, rate / np.maximum(counts, 1), yes[learn].mean())
            return evaluation.roc_auc(yes[test], says[codes[test]])
        case Problem.MULTICLASS:
            classes, number = np.unique(target.astype(str), return_inverse=True)
            most = np.bincount(number[test]).max() / max(len(number[test]), 1)
            if len(number[test]) * (1 - most) < _ENOUGH:
                return None
            table = np.zeros((size, len(classes)), dtype=np.int64)
            np.add.at(table, (codes[learn], number[learn]), 1)
            return float((table.argmax(axis=1)[codes[test]] == number[test]).mean())
        case Problem.REGRESSION | Problem.OPAQUE:
            values = target.astype(np.float64)
            if half < _ENOUGH or values[test].std() == 0:
                return None
            mean = np.bincount(codes[learn], values[learn], size) / np.maximum(counts, 1)
            says = np.where(counts > 0, mean, values[learn].mean())[codes[test]]
            return float(1 - ((values[test] - says) ** 2).sum() / ((values[test] - values[test].mean()) ** 2).sum())
