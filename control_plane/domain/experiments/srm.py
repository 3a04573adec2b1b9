"""Sample-ratio mismatch: are the arms as large as their weights say? Valid however often it is looked at.

Counts of units by arm of first exposure, per ramp stage: within a stage the weights are constant, so a ramp cannot
trip it. In each stage the multinomial likelihood at the intended shares is compared with its average over a Dirichlet
prior centred on them; that ratio is a martingale while the assignment works, and the product over stages too.
Source: Lindon & Malek, "Anytime-Valid Inference for Multinomial Count Data" (2022), arXiv:2011.03567.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

CONCENTRATION = 10_000.0  # of the prior: it looks for deviations of about half a percentage point at 50/50


@dataclass(frozen=True, slots=True)
class Stage:
    """Units first exposed while `weights` (any positive scale) were in force, per arm in one order."""

    counts: tuple[int, ...]
    weights: tuple[float, ...]

    def __post_init__(self) -> None:
        if len(self.counts) != len(self.weights) or len(self.counts) < 2:
            raise ValueError(f"a stage needs one count per weight, at least two arms: {self}")
        if min(self.counts) < 0 or not all(0 <= w < math.inf for w in self.weights) or not sum(self.weights) > 0:
            raise ValueError(f"counts and weights must be finite, at least 0, not all 0: {self}")


@dataclass(frozen=True, slots=True)
class Srm:
    """`log_e`: evidence of a mismatch so far. `mismatch`: e reached 1 / alpha at this look; it stays an alarm."""

    log_e: float
    p: float
    mismatch: bool
    why: str


def check(stages: Sequence[Stage], *, alpha: float, concentration: float = CONCENTRATION) -> Srm:
    """Look at all stages so far. `alpha`: probability of ever calling a working assignment broken.

    An arm of weight 0 takes no part and must be empty: a unit in it is a mismatch for certain (log_e infinite).
    `concentration` > 0: the larger, the smaller the deviation looked for.
    """
    if not 0 < alpha < 1 or not 0 < concentration < math.inf:
        raise ValueError(f"alpha within 0..1 and a positive concentration, got {alpha} and {concentration}")
    log_e = sum(_log_e(stage, concentration) for stage in stages)
    mismatch = log_e >= -math.log(alpha)
    p = math.exp(min(0.0, -log_e))
    said = "units do not fit the weights" if mismatch else "units fit the weights"
    return Srm(log_e, p, mismatch, f"{said}: {_sentence(stages)} (p = {p:.2g}, valid at any time)")


def _log_e(stage: Stage, concentration: float) -> float:
    total_weight = sum(stage.weights)
    shares = [w / total_weight for w in stage.weights]
    if any(count and not share for count, share in zip(stage.counts, shares, strict=True)):
        return math.inf
    parts = [(count, share) for count, share in zip(stage.counts, shares, strict=True) if share > 0]
    n = sum(stage.counts)
    log_e = math.lgamma(concentration) - math.lgamma(concentration + n)
    for count, share in parts:
        alpha = concentration * share
        log_e += math.lgamma(alpha + count) - math.lgamma(alpha) - count * math.log(share)
    return log_e


def _sentence(stages: Sequence[Stage]) -> str:
    parts: list[str] = []
    for stage in stages:
        n, total = sum(stage.counts), sum(stage.weights)
        pairs = zip(stage.counts, stage.weights, strict=True)
        parts.append(" / ".join(f"{count} for {n * weight / total:.0f}" for count, weight in pairs))
    return "; ".join(parts) or "no units yet"
