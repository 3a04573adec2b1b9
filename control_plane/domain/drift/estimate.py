"""How good a model's answers are before any truth is known: confidence-based performance estimation (CBPE).

A calibrated probability says how often its answer is right, so metrics have an expectation over the labels that these
probabilities promise. Valid under covariate shift alone: customers change, what makes one of them say yes does not. If
that changes (concept shift), the estimate does not notice; realised labels do. One version against its own past: a
model that is surer is not better, so estimates never rank versions.

Intervals are for the value that will be realised on these very rows once their labels are in: label noise, to first
order in it.
Source: CBPE: arXiv:2505.05295, sec. 3; influence function of the AUC: DeLong et al. (1988).
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

from control_plane.domain.model_config import Costs

Floats = NDArray[np.float64]
_LEAST_PROMISE = 1e-9  # positives, or negatives, that probabilities must add up to before an AUC is expected of them


@dataclass(frozen=True, slots=True)
class Estimate:
    """`value` with the standard deviation of the realised value around it."""

    value: float
    sd: float
    rows: int

    def interval(self, alpha: float) -> tuple[float, float]:
        """Two-sided, normal approximation; not clipped to the metric's range."""
        z = float(special.ndtri(1 - alpha / 2))
        return self.value - z * self.sd, self.value + z * self.sd


@dataclass(frozen=True, slots=True)
class Binary:
    """`auc` None: the probabilities promise no positive, or no negative. `cost`: of all rows together."""

    accuracy: Estimate
    auc: Estimate | None
    expected: tuple[float, float, float, float]  # true positives, false positives, false negatives, true negatives
    cost: Estimate | None


def binary(probability: ArrayLike, *, threshold: float, costs: Costs | None = None) -> Binary:
    """`probability` of yes, calibrated, within 0..1; the decision is yes at `threshold` or above.

    A cost that depends on the row (`false_negative_column`) is not estimated. Raises ValueError for no rows, NaN, or
    values outside 0..1.
    """
    p = _probabilities(probability)
    n, yes = len(p), p >= threshold
    right = np.where(yes, p, 1 - p)
    noise = p * (1 - p)
    accuracy = Estimate(float(right.mean()), math.sqrt(float(noise.sum())) / n, n)
    tp, fp = float(p[yes].sum()), float((1 - p[yes]).sum())
    fn, tn = float(p[~yes].sum()), float((1 - p[~yes]).sum())
    cost = None
    if costs is not None and costs.false_negative_column is None:
        c = costs
        value = tp * c.true_positive + fp * c.false_positive + fn * c.false_negative + tn * c.true_negative
        swing = np.where(yes, c.true_positive - c.false_positive, c.false_negative - c.true_negative)
        cost = Estimate(value, math.sqrt(float(noise @ swing**2)), n)
    return Binary(accuracy, _expected_auc(p), (tp, fp, fn, tn), cost)


@dataclass(frozen=True, slots=True)
class Multiclass:
    accuracy: Estimate
    macro_auc: Estimate | None  # mean over classes, one against the rest; classes with no promise are left out
    macro_f1: float


def multiclass(probabilities: ArrayLike) -> Multiclass:
    """`probabilities`: rows x classes, calibrated, each row summing to 1; the answer is the likeliest class."""
    p = np.asarray(probabilities, dtype=np.float64)
    if p.ndim != 2 or not len(p) or p.shape[1] < 2 or not np.allclose(p.sum(axis=1), 1, atol=1e-3):
        raise ValueError(f"rows x classes that sum to 1 expected, got shape {p.shape}")
    p = np.clip(_probabilities(p.ravel()).reshape(p.shape), 0, 1)
    said = p.argmax(axis=1)
    aucs = [_expected_auc(p[:, k]) for k in range(p.shape[1])]
    known = [auc for auc in aucs if auc is not None]
    macro = None
    if known:  # the classes' errors go together: their standard deviations add up, which errs to the wide side
        mean, sd = np.mean([a.value for a in known]), np.mean([a.sd for a in known])
        macro = Estimate(float(mean), float(sd), len(p))
    f1 = [_f1(p[:, k], said == k) for k in range(p.shape[1])]
    return Multiclass(top_class(p.max(axis=1)), macro, float(np.mean(f1)))


def top_class(confidence: ArrayLike) -> Estimate:
    """Expected accuracy from the probability of the answered class alone, which is what multiclass answers log."""
    c = _probabilities(confidence)
    return Estimate(float(c.mean()), math.sqrt(float((c * (1 - c)).sum())) / len(c), len(c))


def realised_auc(probability: ArrayLike, positive: ArrayLike) -> Estimate | None:
    """The AUC of known labels with its standard error (DeLong et al. 1988); None with one class only."""
    p, y = _probabilities(probability), np.asarray(positive, dtype=np.float64)
    if y.shape != p.shape or not 0 < y.sum() < len(y):
        return None
    auc, of_positive, of_negative = _auc(p, y)
    share = float(y.mean())
    influence: Floats = np.where(y > 0.5, (of_positive - auc) / share, (of_negative - auc) / (1 - share))
    return Estimate(auc, math.sqrt(float(influence @ influence)) / len(p), len(p))


def realised_share(right: ArrayLike) -> Estimate:
    """A share of yes among known answers, such as accuracy, with its standard error (Agresti & Coull 1998 centre)."""
    r = np.asarray(right, dtype=np.float64)
    if not len(r):
        raise ValueError("no rows")
    centre = (r.sum() + 2) / (len(r) + 4)  # a share of 0 or 1 is not certain
    return Estimate(float(r.mean()), math.sqrt(centre * (1 - centre) / len(r)), len(r))


def realised_mean(values: ArrayLike) -> Estimate:
    """A mean of known values, such as absolute errors, with its standard error; at least two values."""
    v = np.asarray(values, dtype=np.float64)
    if len(v) < 2:
        raise ValueError("a standard error needs two values")
    return Estimate(float(v.mean()), float(v.std(ddof=1)) / math.sqrt(len(v)), len(v))


def _expected_auc(p: Floats) -> Estimate | None:
    if not _LEAST_PROMISE < p.sum() < len(p) - _LEAST_PROMISE:
        return None
    auc, of_positive, of_negative = _auc(p, p)
    share = float(p.mean())
    swing = (of_positive - auc) / share - (of_negative - auc) / (1 - share)
    return Estimate(auc, math.sqrt(float((p * (1 - p)) @ swing**2)) / len(p), len(p))


def _auc(scores: Floats, weight: Floats) -> tuple[float, Floats, Floats]:
    """AUC where each row is a positive with `weight` and a negative with the rest; and per row, the share of
    negatives below it and of positives above it, ties half."""
    order = np.argsort(scores, kind="stable")
    ordered, w = scores[order], weight[order]
    first = np.concatenate(([True], ordered[1:] != ordered[:-1]))
    group = np.cumsum(first) - 1
    positive = np.bincount(group, w)
    negative = np.bincount(group, 1 - w)
    below = np.cumsum(negative) - negative / 2
    above = positive.sum() - np.cumsum(positive) + positive / 2
    of_positive, of_negative = below / negative.sum(), above / positive.sum()
    auc = float(positive @ of_positive / positive.sum())
    back = np.empty(len(order), dtype=np.int64)
    back[order] = group
    return auc, of_positive[back], of_negative[back]


def _f1(p: Floats, said: NDArray[np.bool_]) -> float:
    hits, wanted = float(p[said].sum()), float(p.sum())
    total = wanted + float(np.count_nonzero(said))
    return 2 * hits / total if total else 0.0


def _probabilities(values: ArrayLike) -> Floats:
    p = np.asarray(values, dtype=np.float64)
    if p.ndim != 1 or not len(p) or not bool(((p >= 0) & (p <= 1)).all()):  # NaN compares false
        raise ValueError("probabilities must be at least one value within 0..1")
    return p
