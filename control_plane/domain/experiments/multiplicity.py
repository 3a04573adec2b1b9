"""Several metrics or variants at once. Inputs in any order, answers in the same order; NaN is refused."""

import math
from collections.abc import Sequence


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjusted p-values: rejecting those <= alpha makes any false rejection at all with probability <= alpha.

    Holds under any dependence. Source: Holm (1979).
    """
    order = _ascending(p_values)
    adjusted, largest = [0.0] * len(order), 0.0
    for rank, at in enumerate(order):
        largest = max(largest, min(1.0, (len(order) - rank) * p_values[at]))
        adjusted[at] = largest
    return adjusted


def benjamini_hochberg(p_values: Sequence[float]) -> list[float]:
    """Adjusted p-values: among those rejected at <= alpha, the expected share of false ones is <= alpha.

    Assumes independent or positively dependent tests. Source: Benjamini & Hochberg (1995).
    """
    order = _ascending(p_values)
    adjusted, smallest = [0.0] * len(order), 1.0
    for rank in range(len(order), 0, -1):
        at = order[rank - 1]
        smallest = min(smallest, p_values[at] * len(order) / rank)
        adjusted[at] = smallest
    return adjusted


def e_bh(log_e_values: Sequence[float], *, alpha: float) -> list[bool]:
    """Which hypotheses to reject by evidence (log e-values): false discovery rate <= alpha under any dependence.

    e-values may be looked at at any time, so this is the always-valid form. Source: Wang & Ramdas, "False discovery
    rate control with e-values" (2022).
    """
    if not 0 < alpha < 1:
        raise ValueError(f"alpha must be within 0..1, both excluded, got {alpha}")
    if any(math.isnan(e) for e in log_e_values):
        raise ValueError("an e-value is NaN")
    count = len(log_e_values)
    order = sorted(range(count), key=lambda at: -log_e_values[at])
    kept = 0
    for rank, at in enumerate(order, start=1):
        if log_e_values[at] >= math.log(count / (alpha * rank)):
            kept = rank
    chosen = set(order[:kept])
    return [at in chosen for at in range(count)]


def log_mean_e(log_e_values: Sequence[float]) -> float:
    """Log of the average e-value: evidence against "all hypotheses are true", under any dependence.

    Source: Vovk & Wang, "E-values: calibration, combination and applications" (2021).
    """
    if not log_e_values or any(math.isnan(e) for e in log_e_values):
        raise ValueError("needs at least one e-value and no NaN")
    largest = max(log_e_values)
    if math.isinf(largest):
        return largest
    return largest + math.log(sum(math.exp(e - largest) for e in log_e_values) / len(log_e_values))


def _ascending(p_values: Sequence[float]) -> list[int]:
    if any(not 0 <= p <= 1 for p in p_values):
        raise ValueError(f"p-values must be within 0..1, got {list(p_values)}")
    return sorted(range(len(p_values)), key=lambda at: p_values[at])
