"""Distances between two windows. Functions of counts per cell or of samples; every choice is an argument.

Nothing here decides: `decide.py` does. What cannot be computed is a ValueError, never a 0 or a p-value of 1. Counts
are finite and at least 0, both sides on the same cells in the same order, at least one row on either side.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

Floats = NDArray[np.float64]


def psi(reference: ArrayLike, current: ArrayLike, *, smoothing: float) -> float:
    """Population stability index, >= 0, no unit: sum over cells of (q - p) log(q / p), natural logarithm.

    `smoothing` is added to every cell's count before shares are taken (0.5: Jeffreys). With 0, a cell that only one
    side fills makes the index infinite. Symmetric (Jeffreys' divergence). A mean shift of d standard deviations of a
    normal feature is about d^2.
    Source: Siddiqi, "Credit Risk Scorecards" (2006), ch. 6; Kullback & Leibler (1951), eq. 2.6.
    """
    p, q = _shares(reference, current, smoothing)
    return float(special.rel_entr(p, q).sum() + special.rel_entr(q, p).sum())


def jensen_shannon(reference: ArrayLike, current: ArrayLike, *, smoothing: float = 0.0) -> float:
    """Jensen-Shannon distance in [0, 1]: the square root of the divergence, logarithm to base 2.

    Finite without smoothing. Source: Endres & Schindelin (2003); Lin (1991), eq. 4.1.
    """
    p, q = _shares(reference, current, smoothing)
    middle = (p + q) / 2
    divergence = float(special.rel_entr(p, middle).sum() + special.rel_entr(q, middle).sum()) / 2
    return math.sqrt(min(1.0, max(0.0, divergence / math.log(2))))


@dataclass(frozen=True, slots=True)
class Bounded:
    """A statistic of binned data with the most that the unbinned one can exceed it by."""

    value: float
    resolution: float


def ks_binned(reference: ArrayLike, current: ArrayLike) -> Bounded:
    """Kolmogorov-Smirnov distance in [0, 1] over ordered cells: the largest gap of the two shares up to an edge.

    The statistic of the samples lies in [value, value + resolution].
    """
    p, q = _shares(reference, current, 0.0)
    before = np.cumsum(p) - np.cumsum(q)
    value = float(np.abs(before[:-1]).max()) if len(before) > 1 else 0.0
    # Inside a cell one side may take all its mass before the other takes any.
    start = np.concatenate(([0.0], before[:-1]))
    inside = np.maximum(np.abs(start + p), np.abs(start - q))
    return Bounded(value, max(0.0, float(inside.max()) - value))


def ks_exact(reference: ArrayLike, current: ArrayLike) -> float:
    """Two-sample Kolmogorov-Smirnov distance of two samples, each already sorted ascending; NaN is refused."""
    a, b = _sorted_sample(reference), _sorted_sample(current)
    at = np.concatenate((a, b))
    gap = np.searchsorted(a, at, side="right") / len(a) - np.searchsorted(b, at, side="right") / len(b)
    return float(np.abs(gap).max())


def wasserstein_exact(reference: ArrayLike, current: ArrayLike) -> float:
    """Earth mover's distance of two sorted samples, in the feature's unit: the area between their distributions."""
    a, b = _sorted_sample(reference), _sorted_sample(current)
    at = np.sort(np.concatenate((a, b)))
    left = at[:-1]
    gap = np.searchsorted(a, left, side="right") / len(a) - np.searchsorted(b, left, side="right") / len(b)
    return float(np.abs(gap) @ np.diff(at))


def wasserstein_binned(
    reference: ArrayLike, current: ArrayLike, *, edges: Sequence[float], low: float, high: float
) -> float:
    """Earth mover's distance of binned data, in the feature's unit, taking every cell as evenly filled.

    `low`, `high`: smallest and largest value of both sides, where the cells outside the edges end.
    """
    p, q = _shares(reference, current, 0.0)
    inner = np.asarray(edges, dtype=np.float64)
    if len(inner) != len(p) - 1 or not len(inner):
        raise ValueError(f"{len(p)} cells need {len(p) - 1} edges, got {len(inner)}")
    if not (np.isfinite([low, high]).all() and low <= high):
        raise ValueError(f"low and high must be finite and ordered, got {low} and {high}")
    points = np.concatenate(([min(low, inner[0])], inner, [max(high, inner[-1])]))
    after = np.concatenate(([0.0], np.cumsum(p - q)))
    a, b = np.abs(after[:-1]), np.abs(after[1:])
    crossing = after[:-1] * after[1:] < 0
    total = np.where(a + b > 0, a + b, 1.0)
    area = np.where(crossing, (a * a + b * b) / (2 * total), (a + b) / 2)  # under a straight line, or two triangles
    return float(area @ np.diff(points))


@dataclass(frozen=True, slots=True)
class ChiSquare:
    statistic: float
    dof: int
    p: float
    cramers_v: float  # effect size in [0, 1], does not grow with the number of rows


def chi_square(reference: ArrayLike, current: ArrayLike, *, least_expected: float = 5.0) -> ChiSquare:
    """Pearson's test that both windows draw from one categorical distribution; rows must be independent.

    Cells empty on both sides carry nothing and are left out. Raises ValueError where the approximation does not hold:
    fewer than two cells left, or an expected count below `least_expected` (merge rare cells first: `merge_rare`).
    Source: Pearson (1900); Cramer, "Mathematical Methods of Statistics" (1946), sec. 21.9.
    """
    table = np.stack(_counts(reference, current))
    table = table[:, table.sum(axis=0) > 0]
    total = table.sum()
    expected = np.outer(table.sum(axis=1), table.sum(axis=0)) / total
    if table.shape[1] < 2 or expected.min() < least_expected:
        raise ValueError(
            f"{table.shape[1]} filled cells, smallest expected count {expected.min():.3g} (needs {least_expected:.3g})"
        )
    statistic = float(((table - expected) ** 2 / expected).sum())
    dof = table.shape[1] - 1
    return ChiSquare(statistic, dof, float(special.chdtrc(float(dof), statistic)), math.sqrt(statistic / float(total)))


def merge_rare(reference: ArrayLike, current: ArrayLike, *, least_expected: float = 5.0) -> tuple[Floats, Floats]:
    """Both counts with every cell whose expected count is too small for `chi_square` pooled into one, put last.

    Which cells are rare follows from the sum of both sides, so the pooling favours neither.
    """
    a, b = _counts(reference, current)
    both = a + b
    smaller = min(a.sum(), b.sum()) / both.sum()
    rare = both * smaller < least_expected
    if not rare.any():
        return a, b
    kept = [np.append(side[~rare], side[rare].sum()) for side in (a, b)]
    return kept[0], kept[1]


def _counts(reference: ArrayLike, current: ArrayLike) -> tuple[Floats, Floats]:
    a, b = (np.asarray(side, dtype=np.float64) for side in (reference, current))
    if a.ndim != 1 or a.shape != b.shape:
        raise ValueError(f"counts of different cells: shapes {a.shape} and {b.shape}")
    for side, name in ((a, "reference"), (b, "current")):
        if not (np.isfinite(side).all() and (side >= 0).all()):
            raise ValueError(f"{name}: counts must be finite and at least 0")
        if side.sum() <= 0:
            raise ValueError(f"{name}: no rows")
    return a, b


def _shares(reference: ArrayLike, current: ArrayLike, smoothing: float) -> tuple[Floats, Floats]:
    if not (smoothing >= 0 and np.isfinite(smoothing)):
        raise ValueError(f"smoothing must be finite and at least 0, got {smoothing}")
    a, b = (side + smoothing for side in _counts(reference, current))
    return a / a.sum(), b / b.sum()


def _sorted_sample(values: ArrayLike) -> NDArray[Any]:
    array: NDArray[Any] = np.asarray(values)
    if array.dtype.kind != "f":
        array = array.astype(np.float64)
    if array.ndim != 1 or not len(array):
        raise ValueError("a sample needs at least one value")
    # NaN sorts last, and the extremes of a sorted array are its ends; "not ascending" also catches a NaN inside.
    if not (np.isfinite(array[0]) and np.isfinite(array[-1]) and bool((array[1:] >= array[:-1]).all())):
        raise ValueError("a sample must be finite and sorted ascending")
    return array
