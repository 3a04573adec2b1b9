"""How sure a figure of clustered rows is, in constant memory: random groups of customers.

Customers are put into `GROUPS` groups by a hash, each with all its rows, so groups are independent though rows are not.
A figure's variance is read from what it becomes without each of the groups (the delete-a-group jackknife). It holds for
any smooth figure: means, shares, differences of ROC AUC, ratios.

Sources: Kott, "Delete-a-group jackknife", J. Official Statistics 17 (2001); Wolter, "Introduction to Variance
Estimation" (2007), ch. 2 and 4; Korn & Graubard, Survey Methodology 24 (1998), for shares.
"""

import math
from collections.abc import Sequence
from typing import Final

import numpy as np
from scipy import special

from control_plane.domain.replay.report import Interval

GROUPS: Final = 64
_LEAST_GROUPS: Final = 10  # fewer do not say how much they vary


def jackknife(value: float, without: Sequence[float], *, confidence: float = 0.95) -> Interval:
    """`value` of all rows with its t interval. `without`: the figure without each group that has rows.

    No interval with fewer than 10 groups, or where the figure does not exist without one of them (NaN).
    """
    half = _half(without, confidence)
    value = float(value)
    return Interval(value) if half is None else Interval(value, value - half, value + half)


def outer(low: float, high: float, lows: Sequence[float], highs: Sequence[float], *, confidence: float) -> Interval:
    """The interval that holds both ends of a bounded figure, each with its own uncertainty.

    Source: Imbens & Manski, Econometrica 72 (2004): for the whole identified set, two-sided.
    """
    below, above = _half(lows, confidence), _half(highs, confidence)
    if below is None or above is None:
        return Interval((low + high) / 2)
    return Interval((low + high) / 2, low - below, high + above)


def share(counts: Sequence[float], totals: Sequence[float], *, units: int, confidence: float = 0.95) -> Interval:
    """A share of rows with the Clopper-Pearson interval of its effective sample size.

    `counts`, `totals`: by group. `units`: how many customers there are, which is the sample size where nothing varies
    (a share of 0 or 1). Never wider than [0, 1], never narrower than independent rows would make it.
    Raises ValueError without rows.
    """
    hits, rows = np.asarray(counts, dtype=np.float64), np.asarray(totals, dtype=np.float64)
    hits, rows = hits[rows > 0], rows[rows > 0]
    n, k = float(rows.sum()), len(rows)
    if not n:
        raise ValueError("a share needs rows")
    p = float(hits.sum()) / n
    if k < _LEAST_GROUPS:
        return Interval(p)
    size = min(n, float(units))
    if 0 < p < 1:
        left = (hits.sum() - hits) / (n - rows)
        variance = (k - 1) / k * float(((left - left.mean()) ** 2).sum())
        if variance > 0:
            wider = (_t(n - 1, confidence) / _t(k - 1, confidence)) ** 2
            size = min(n, p * (1 - p) / variance * wider)
    tail, x = (1 - confidence) / 2, p * size
    low = 0.0 if x <= 0 else float(special.betaincinv(x, size - x + 1, tail))
    high = 1.0 if x >= size else float(special.betaincinv(x + 1, size - x, 1 - tail))
    return Interval(p, low, high)


def _half(without: Sequence[float], confidence: float) -> float | None:
    values = np.asarray(without, dtype=np.float64)
    if len(values) < _LEAST_GROUPS or not np.isfinite(values).all():
        return None
    k = len(values)
    variance = (k - 1) / k * float(((values - values.mean()) ** 2).sum())
    return _t(k - 1, confidence) * math.sqrt(variance)


def _t(dof: float, confidence: float) -> float:
    return float(special.stdtrit(max(1.0, dof), 1 - (1 - confidence) / 2))
