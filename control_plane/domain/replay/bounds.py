"""Labels that depend on the decision: what can be said without guessing. Pure.

A declined payment never shows whether it was fraud. Where the version that answered then declined and the candidate
would not, the truth of a row is not known and not missing at random: no estimate is honest. What follows from every
truth the row could have is an interval, and the sharpest one.

Source: Manski, "Partial Identification of Probability Distributions" (2003), ch. 1.
"""

from collections.abc import Mapping
from itertools import product
from typing import Final

import numpy as np
from numpy.typing import NDArray

Counts = NDArray[np.float64]
BOUNDED: Final = ("accuracy", "precision", "recall")
Pair = tuple[float, float]


def decisions(known: Counts, hidden: Counts) -> Mapping[str, Pair]:
    """Lowest and highest possible candidate - baseline of each metric; NaN where some truth leaves it undefined.

    `known`: rows by [truth, baseline's decision, candidate's], `hidden`: by [baseline's, candidate's]. Each metric is a
    ratio of linear functions of how many hidden rows of a cell are positive, so its extremes are where every cell is
    all positive or all negative: 16 cases, and no other truth leads beyond them.
    """
    found: dict[str, list[float]] = {name: [] for name in BOUNDED}
    for positive in product((0.0, 1.0), repeat=4):
        mask = np.array(positive).reshape(2, 2)
        table = known + np.stack((hidden * (1 - mask), hidden * mask))
        for name in BOUNDED:
            found[name].append(_metric(name, table.sum(axis=1)) - _metric(name, table.sum(axis=2)))
    return {name: (float(np.min(values)), float(np.max(values))) for name, values in found.items()}


def _metric(name: str, table: Counts) -> float:
    """`table`: rows by [truth, decision]."""
    match name:
        case "accuracy":
            part, whole = table[0, 0] + table[1, 1], table.sum()
        case "precision":
            part, whole = table[1, 1], table[:, 1].sum()
        case _:
            part, whole = table[1, 1], table[1].sum()
    return float(part / whole) if whole else float("nan")


def cost(if_negative: Counts, if_positive: Counts) -> tuple[Counts, Counts]:
    """Per hidden row the least and the most that candidate - baseline may cost, from what it costs for either truth."""
    return np.minimum(if_negative, if_positive), np.maximum(if_negative, if_positive)
