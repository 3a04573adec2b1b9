"""Metrics of predictions, and how sure they are. Pure functions of arrays; every row may carry a weight.

Labels: 0/1 (binary), class numbers, -1 for a class the model does not know (multiclass), numbers (regression).
Predictions: (n,) probability, (n, k) probabilities, (n,) values. NaN in, NaN out: nothing is dropped in silence.
Held equal to scikit-learn by the tests.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from control_plane.domain.model_config import Problem

Floats = NDArray[np.float64]
_TINY = 1e-15


def roc_auc(label: NDArray[np.float64], score: Floats, weight: Floats | None = None) -> float:
    """Probability that a positive scores above a negative, ties counting half. NaN with one class only."""
    return float(_ranking(score, label)(_ones(label, weight))[0])


def average_precision(label: NDArray[np.float64], score: Floats, weight: Floats | None = None) -> float:
    """Precision averaged over recall steps, no interpolation. NaN without positives."""
    return float(_ranking(score, label)(_ones(label, weight))[1])


def _ranking(score: Floats, label: Floats) -> Callable[[Floats], tuple[float, float]]:
    """Sorts once; the function returned gives (ROC AUC, average precision) for any row weights."""
    order = np.argsort(-score, kind="stable")
    ranked, positive = score[order], label[order]
    starts = np.flatnonzero(np.r_[True, ranked[1:] != ranked[:-1]]) if len(ranked) else np.array([], dtype=np.int64)

    def measure(weight: Floats) -> tuple[float, float]:
        if not len(starts):
            return float("nan"), float("nan")
        w = weight[order]
        hit = np.add.reduceat(w * positive, starts)
        miss = np.add.reduceat(w * (1 - positive), starts)
        hits, misses = np.cumsum(hit), np.cumsum(miss)
        if hits[-1] == 0:
            return float("nan"), float("nan")
        flagged = hits + misses
        precision = np.divide(hits, flagged, out=np.zeros_like(hits), where=flagged > 0)
        ap = float((hit * precision).sum() / hits[-1])
        if misses[-1] == 0:
            return float("nan"), ap
        return float((miss * (hits - hit / 2)).sum() / (hits[-1] * misses[-1])), ap

    return measure


def log_loss(label: NDArray[np.int64], probability: Floats, weight: Floats | None = None) -> float:
    """Mean of -ln(probability of what happened); (n, k) probabilities."""
    losses = _log_losses(label, probability)
    return float(np.average(losses, weights=weight))


def _log_losses(label: NDArray[np.int64], probability: Floats) -> Floats:
    right = np.where(label >= 0, probability[np.arange(len(label)), np.maximum(label, 0)], 0.0)
    losses: Floats = -np.log(np.clip(right, _TINY, 1.0))
    return losses


def macro_f1(label: NDArray[np.int64], guess: NDArray[np.int64], classes: int, weight: Floats | None = None) -> float:
    """Mean over the classes of F1, 0 for one that is never right; classes that neither occur nor are guessed are left
    out, as scikit-learn does."""
    w = _ones(label, weight)
    right = np.bincount(guess[label == guess], w[label == guess], classes)
    occurs = np.bincount(label[label >= 0], w[label >= 0], classes)
    guessed = np.bincount(guess, w, classes)
    there = occurs + guessed > 0
    return float((2 * right[there] / (occurs + guessed)[there]).mean()) if there.any() else float("nan")


def calibration_error(label: Floats, probability: Floats, bins: int = 15) -> float:
    """Expected calibration error over equally filled bins: mean |share of positives - mean probability|."""
    order = np.argsort(probability, kind="stable")
    parts = np.array_split(order, min(bins, max(len(order), 1)))
    gaps = [abs(label[part].mean() - probability[part].mean()) * len(part) for part in parts if len(part)]
    return float(sum(gaps) / len(order)) if len(order) else float("nan")


def measure(problem: Problem, name: str, label: NDArray[np.float64], prediction: Floats) -> Callable[[Floats], float]:
    """The metric `name` as a function of row weights; what does not depend on them is done once."""
    match problem, name:
        case Problem.BINARY, "roc_auc" | "average_precision":
            ranked = _ranking(prediction, label)
            at = 0 if name == "roc_auc" else 1
            return lambda weight: ranked(weight)[at]
        case Problem.BINARY, "accuracy":
            return _mean((prediction >= 0.5) == (label == 1))
        case Problem.BINARY, "log_loss":
            return _mean(_log_losses(label.astype(np.int64), np.column_stack([1 - prediction, prediction])))
        case Problem.MULTICLASS, "accuracy":
            return _mean(prediction.argmax(axis=1) == label)
        case Problem.MULTICLASS, "log_loss":
            return _mean(_log_losses(label.astype(np.int64), prediction))
        case Problem.MULTICLASS, "macro_f1":
            number, guess = label.astype(np.int64), prediction.argmax(axis=1)
            return lambda weight: macro_f1(number, guess, prediction.shape[1], weight)
        case Problem.REGRESSION, "mae":
            return _mean(np.abs(label - prediction))
        case Problem.REGRESSION, "rmse":
            squares = _mean((label - prediction) ** 2)
            return lambda weight: float(np.sqrt(squares(weight)))
        case Problem.REGRESSION, "r2":
            return lambda weight: _r2(label, prediction, weight)
        case _:
            raise ValueError(f"{name} is no metric of a {problem} problem")


def everything(
    problem: Problem, label: NDArray[np.float64], prediction: Floats, threshold: float | None
) -> dict[str, float]:
    """All metrics that have a meaning for the problem; binary ones at `threshold` are about the positive class."""
    names = {
        Problem.BINARY: ("roc_auc", "average_precision", "log_loss"),
        Problem.MULTICLASS: ("accuracy", "macro_f1", "log_loss"),
        Problem.REGRESSION: ("rmse", "mae", "r2"),
        Problem.OPAQUE: (),
    }[problem]
    weight = np.ones(len(label))
    found = {name: measure(problem, name, label, prediction)(weight) for name in names}
    if problem is Problem.BINARY:
        yes, said = label == 1, prediction >= (0.5 if threshold is None else threshold)
        hits = float((yes & said).sum())
        found["accuracy"] = float((yes == said).mean())
        found["precision"] = hits / float(said.sum()) if said.any() else 0.0
        found["recall"] = hits / float(yes.sum()) if yes.any() else float("nan")
        found["flagged_share"] = float(said.mean())
        found["positive_share"] = float(yes.mean())
        found["brier"] = float(((prediction - label) ** 2).mean())
        found["calibration_error"] = calibration_error(label, prediction)
    return found


@dataclass(frozen=True, slots=True)
class Interval:
    value: float
    low: float
    high: float


def bootstrap(
    metric: Callable[[Floats], float],
    rows: int,
    *,
    rng: Generator,
    units: NDArray[np.int64] | None = None,
    resamples: int = 200,
    level: float = 0.95,
) -> Interval:
    """Percentile interval of a metric over resampled rows, or whole units where rows of one unit hang together.

    `units`: number of each row's unit, 0..u-1. Resamples without a value (one class only) are left out; NaN bounds
    mean that fewer than half of them had one. Source: Efron and Tibshirani 1993, chapter 13.
    """
    size = rows if units is None else int(units.max(initial=-1)) + 1
    values: list[float] = []
    for _ in range(resamples):
        drawn = np.bincount(rng.integers(0, size, size), minlength=size).astype(np.float64)
        values.append(metric(drawn if units is None else drawn[units]))
    usable = np.array(values)[np.isfinite(values)]
    value = metric(np.ones(rows))
    if len(usable) < resamples / 2:
        return Interval(value, float("nan"), float("nan"))
    low, high = np.quantile(usable, [(1 - level) / 2, (1 + level) / 2])
    return Interval(value, float(low), float(high))


def _mean(per_row: NDArray[np.generic]) -> Callable[[Floats], float]:
    values = per_row.astype(np.float64)
    return lambda weight: float(values @ weight / weight.sum())


def _r2(label: Floats, prediction: Floats, weight: Floats) -> float:
    centre = np.average(label, weights=weight)
    spread = float(weight @ (label - centre) ** 2)
    return 1 - float(weight @ (label - prediction) ** 2) / spread if spread else float("nan")


def _ones(label: NDArray[np.generic], weight: Floats | None) -> Floats:
    return np.ones(len(label)) if weight is None else weight
