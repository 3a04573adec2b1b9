"""How well scores order positives before negatives, from counts per cell of (score, class). One answer per unit.

Scores are counted in 400 steps of 0.05 on the logit scale, so that a fraud model's tiny scores are told apart too; two
scores of one step are a tie. Counts add, in any order. What depends on them smoothly has, by the delta method over the
multinomial of cells, the variance of its influence function: for the AUC that is DeLong's, on the scores as counted.

Sources: DeLong, DeLong, Clarke-Pearson, "Comparing the Areas under Two or More Correlated ROC Curves" (1988), the case
of two independent samples; influence function: van der Vaart, "Asymptotic Statistics" (1998), ch. 20; the average
precision is scikit-learn's: the sum over thresholds of precision times the recall gained.

Assumes units independent of each other and scores within 0..1. A class without units, or no variation: ValueError.
"""

import math
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from control_plane.domain.experiments.samples import Estimate

Floats = NDArray[np.float64]
BINS = 400
STEP, LOWEST = 0.05, -10.0  # of the logit; scores beyond +-10 are counted with the last ones
Cells = tuple[tuple[int, int], ...]  # (cell, units): cell `bin` of a negative, BINS + bin of a positive


def cell(score: float, *, positive: bool) -> int:
    """Where one unit is counted. Raises ValueError for a score outside of 0..1."""
    if not 0 <= score <= 1:
        raise ValueError(f"a score is within 0..1, got {score}")
    inside = min(max(score, 1e-9), 1 - 1e-9)
    step = math.floor((math.log(inside / (1 - inside)) - LOWEST) / STEP)
    return min(max(step, 0), BINS - 1) + (BINS if positive else 0)


def added(one: Cells, other: Cells) -> Cells:
    """The counts of both sets of units together."""
    total = dict(one)
    for at, units in other:
        total[at] = total.get(at, 0) + units
    return tuple(sorted(total.items()))


def classes(cells: Cells) -> tuple[int, int]:
    """How many units are positive, and how many negative."""
    positives = sum(units for at, units in cells if at >= BINS)
    return positives, sum(units for _, units in cells) - positives


def auc(cells: Cells) -> Estimate:
    """Probability that a positive has a higher score than a negative, ties counted half. No unit, 0..1."""
    a, b = _counts(cells)
    p, n = a.sum(), b.sum()
    of_positive = (np.cumsum(b) - 0.5 * b) / n  # share of negatives below a positive of this step
    of_negative = (p - np.cumsum(a) + 0.5 * a) / p
    value = float((a * of_positive).sum() / p)
    if min(p, n) < 2:
        raise ValueError("a variance needs two units of each class")
    spread = (a * (of_positive - value) ** 2).sum() / (p - 1) / p + (b * (of_negative - value) ** 2).sum() / (n - 1) / n
    return Estimate(value, float(spread))


def average_precision(cells: Cells) -> Estimate:
    """Area under precision over recall. No unit; the share of positives where scores say nothing."""
    a, b = (counts[::-1] for counts in _counts(cells))  # from the highest score on
    p, units = a.sum(), a.sum() + b.sum()
    hits, alarms = np.cumsum(a), np.cumsum(b)
    flagged = np.maximum(hits + alarms, 1)
    precision = hits / flagged
    value = float((a * precision).sum() / p)
    # One more positive of step j adds to the hits at every threshold from j on; one more negative to the alarms.
    gained = np.cumsum((a * alarms / flagged**2)[::-1])[::-1]
    lost = np.cumsum((a * hits / flagged**2)[::-1])[::-1]
    of_positive, of_negative = (precision + gained - value) * units / p, -lost * units / p
    spread = (a * of_positive**2 + b * of_negative**2).sum() / units
    return Estimate(value, float(spread / (units - 1)))


def _counts(cells: Iterable[tuple[int, int]]) -> tuple[Floats, Floats]:
    """Positives and negatives by step of the score."""
    counts = np.zeros(2 * BINS)
    for at, units in cells:
        if not 0 <= at < 2 * BINS or units < 0:
            raise ValueError(f"no such cell or count: {at}, {units}")
        counts[at] += units
    negatives, positives = counts[:BINS], counts[BINS:]
    if not (negatives.any() and positives.any()):
        raise ValueError("ranking needs units of both classes")
    return positives, negatives
