"""Raw scores -> probabilities that mean what they say, learnt on rows no candidate was fitted on. Pure.

Binary: centred isotonic regression, or Platt's logistic curve where positives are few; either way a table to
interpolate in. Multiclass: one temperature.
"""

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize, minimize_scalar

from model_servers.native.manifest import Calibration

Floats = NDArray[np.float64]
FEW = 100  # of the rarer class: an isotonic curve would be made of noise
_GRID = 65
_EDGE = 1e-7


def fit(label: Floats, probability: Floats) -> Calibration:
    """The table for raw probabilities in 0..1. It never falls, so it keeps the order of any two predictions."""
    rarer = min(label.sum(), len(label) - label.sum())
    return platt(label, probability) if rarer < FEW else isotonic(label, probability)


def isotonic(label: Floats, probability: Floats) -> Calibration:
    """Centred isotonic regression: each pooled block is one point at its mean score, straight lines between.

    Unlike steps it keeps different scores different. No rate is nearer to 0 or 1 than one in n + 1 rows can show: a
    probability of exactly 0 would be a promise.
    Source: Oron and Flournoy, "Centered isotonic regression" (2017), Stat. Biopharm. Res. 9(3).
    """
    order = np.argsort(probability, kind="stable")
    blocks: list[tuple[float, float, float]] = []  # weight, sum of scores, sum of labels
    scores, starts = np.unique(probability[order], return_index=True)
    hits = np.add.reduceat(label[order], starts) if len(starts) else np.array([])
    sizes = np.diff(np.append(starts, len(order)))
    for score, hit, size in zip(scores.tolist(), hits.tolist(), sizes.tolist(), strict=True):
        block = (float(size), score * size, hit)
        while blocks and blocks[-1][2] * block[0] >= block[2] * blocks[-1][0]:  # its rate is not below: pool
            last = blocks.pop()
            block = (last[0] + block[0], last[1] + block[1], last[2] + block[2])
        blocks.append(block)
    x = np.array([total / weight for weight, total, _ in blocks])
    y = np.array([hit / weight for weight, _, hit in blocks])
    least = 1 / (len(label) + 1)
    return _table("isotonic", x, y.clip(least, 1 - least), least / 2)


def platt(label: Floats, probability: Floats) -> Calibration:
    """A logistic curve of the raw log-odds with Platt's smoothed targets, tabulated.

    A falling curve is flattened: a calibration must not turn a model around. Source: Platt 1999; targets (N+ + 1) /
    (N+ + 2) and 1 / (N- + 2).
    """
    odds = _logit(probability)
    positives = label.sum()
    target = np.where(label == 1, (positives + 1) / (positives + 2), 1 / (len(label) - positives + 2))

    def loss(ab: Floats) -> float:
        z = ab[0] * odds + ab[1]
        return float(np.mean(np.logaddexp(0, z) - target * z))

    slope, shift = minimize(loss, np.array([1.0, 0.0]), method="L-BFGS-B", bounds=[(0, 20), (-30, 30)]).x
    grid = 1 / (1 + np.exp(-np.linspace(-12, 12, _GRID)))
    curve = 1 / (1 + np.exp(-(slope * _logit(grid) + shift)))
    return _table("platt", grid, curve, min(float(curve[0]), 1 - float(curve[-1])) / 2)


def temperature(label: NDArray[np.int64], margins: Floats) -> float:
    """What multiclass margins are divided by before softmax. Source: Guo et al. 2017, arXiv:1706.04599."""
    rows = label >= 0
    z, y = margins[rows], label[rows]
    z = z - z.max(axis=1, keepdims=True)

    def loss(log_t: float) -> float:
        scaled = z / np.exp(log_t)
        return float(np.mean(np.log(np.exp(scaled).sum(axis=1)) - scaled[np.arange(len(y)), y]))

    return float(np.exp(minimize_scalar(loss, bounds=(-4, 4), method="bounded").x))


def _table(method: str, x: Floats, y: Floats, end: float) -> Calibration:
    """With (0, end) and (1, 1 - end) closing it."""
    inside = (x > _EDGE) & (x < 1 - _EDGE)
    xs, first = np.unique(np.r_[0.0, x[inside], 1.0], return_index=True)
    ys = np.maximum.accumulate(np.r_[end, y[inside], 1.0 - end][first])
    return Calibration(method, tuple(xs.tolist()), tuple(ys.tolist()))


def _logit(p: Floats) -> Floats:
    clipped = np.clip(p, _EDGE, 1 - _EDGE)
    return np.log(clipped / (1 - clipped))
