"""Columns that know the answer: a feature that alone determines the target was filled in after the fact.

Each feature is tried on its own: what one half of the rows says about the target is tested on the other half, so that
rare values cannot look like knowledge. A number is tried as a group per value, in quantile bins and, where the answer
is yes or no, as a ranking: bins are wider than a rare class.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from control_plane.domain.model_config import ModelConfig, Problem
from training.common import evaluation, labels

ALONE = 0.999  # ROC AUC, share of right answers, or R2, of one feature on its own
_BINS = 64
_DISTINCT = 4_096  # values: up to so many, a number is also tried as a code
_ENOUGH = 20  # rows of the rarer answer in each half; below that, chance can do it
_SAMPLE = 100_000  # rows


def find(
    arrays: Mapping[str, NDArray[Any]], frame: pd.DataFrame, config: ModelConfig, times: NDArray[np.int64] | None
) -> list[tuple[str, str]] | None:
    """(column, what is wrong) for every feature that determines the target; None when too few rows can tell.

    The target is valid by now. `times`: microseconds; without them a null label counts as old.
    """
    read = labels.read(frame, config, times)
    rows = np.flatnonzero(read.known)
    # Every second row of a fixed shuffle: the order of rows may itself be a leak.
    rows = np.random.default_rng(0).permutation(rows)[:_SAMPLE]
    target = read.values[rows]
    if not _enough(target, config.problem):
        return None
    found: list[tuple[str, str]] = []
    for name, values in arrays.items():
        scored = max(_scores(values[rows], target, config.problem))
        if scored >= ALONE:
            said = f"alone determines {labels.target_of(config).column} ({scored:.4f} on rows not used): it leaks"
            found.append((name, said))
    return found


def _scores(values: NDArray[Any], target: NDArray[Any], problem: Problem) -> Iterator[float]:
    for codes in _codings(values):
        yield _score(codes, target, problem)
    if values.dtype != object and problem is Problem.REGRESSION:
        yield _linear(values, target)
    if values.dtype != object and problem is Problem.BINARY:
        yield from _ranking(values, target.astype(np.float64))


def _codings(values: NDArray[Any]) -> Iterator[NDArray[np.int64]]:
    """Values as group numbers, null a group of its own."""
    if values.dtype == object:
        yield pd.factorize(values, use_na_sentinel=False)[0].astype(np.int64)
        return
    known = values[~np.isnan(values)]
    distinct = np.unique(known)
    if len(distinct) <= _DISTINCT:
        yield _grouped(values, distinct)
    if len(distinct) > _BINS:
        yield _grouped(values, np.unique(np.quantile(known, np.linspace(0, 1, _BINS + 1)[1:-1])))


def _grouped(values: NDArray[Any], edges: NDArray[Any]) -> NDArray[np.int64]:
    codes = np.searchsorted(edges, values, side="left").astype(np.int64)
    codes[np.isnan(values)] = len(edges) + 1
    return codes


def _ranking(values: NDArray[Any], yes: NDArray[np.float64]) -> Iterator[float]:
    """ROC AUC of the number itself, upwards and downwards; nulls before all others or after them."""
    test = slice(len(values) // 2, None)
    known = values[~np.isnan(values)]
    for null in (known.min() - 1, known.max() + 1) if len(known) else ():
        area = evaluation.roc_auc(yes[test], np.where(np.isnan(values[test]), null, values[test]))
        yield from (area, 1 - area)


def _linear(values: NDArray[Any], target: NDArray[Any]) -> float:
    """Squared correlation: the target in another unit is the commonest leak of a regression."""
    both = ~np.isnan(values)
    if both.sum() < _ENOUGH or values[both].std() == 0 or target[both].std() == 0:
        return 0.0
    return float(np.corrcoef(values[both], target[both])[0, 1] ** 2)


def _enough(target: NDArray[Any], problem: Problem) -> bool:
    half = len(target) // 2
    learn, test = target[:half], target[half:]
    match problem:
        case Problem.BINARY:
            rarer = (min(part.sum(), len(part) - part.sum()) for part in (learn, test))
            return bool(min(rarer) >= _ENOUGH)
        case Problem.MULTICLASS:
            counts = np.unique(test.astype(str), return_counts=True)[1]
            return bool(len(test) - counts.max(initial=0) >= _ENOUGH)
        case Problem.REGRESSION | Problem.OPAQUE:
            return half >= _ENOUGH and bool(test.std() > 0)


def _score(codes: NDArray[np.int64], target: NDArray[Any], problem: Problem) -> float:
    half = len(codes) // 2
    learn, test = slice(0, half), slice(half, None)
    size = int(codes.max()) + 1
    counts = np.bincount(codes[learn], minlength=size)
    match problem:
        case Problem.BINARY:
            yes = target.astype(np.float64)
            rate = np.bincount(codes[learn], yes[learn], size)
            says = np.where(counts > 0, rate / np.maximum(counts, 1), yes[learn].mean())
            return evaluation.roc_auc(yes[test], says[codes[test]])
        case Problem.MULTICLASS:
            classes, number = np.unique(target.astype(str), return_inverse=True)
            table = np.zeros((size, len(classes)), dtype=np.int64)
            np.add.at(table, (codes[learn], number[learn]), 1)
            return float((table.argmax(axis=1)[codes[test]] == number[test]).mean())
        case Problem.REGRESSION | Problem.OPAQUE:
            values = target.astype(np.float64)
            mean = np.bincount(codes[learn], values[learn], size) / np.maximum(counts, 1)
            says = np.where(counts > 0, mean, values[learn].mean())[codes[test]]
            return float(1 - ((values[test] - says) ** 2).sum() / ((values[test] - values[test].mean()) ** 2).sum())
