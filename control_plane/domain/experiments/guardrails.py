"""From an interval to a verdict with a sentence. The only place where an effect meets a margin.

Works with any interval of the effect (treatment - control); the error rate is the interval's, and it is always valid
if the interval is. Deciding by both ends of one two-sided interval makes either error with probability <= alpha.
"""

import math
from dataclasses import dataclass
from enum import StrEnum

from control_plane.domain.experiments.samples import Interval
from control_plane.domain.rollouts import Verdict


class Comparison(StrEnum):
    BETTER = "better"
    WORSE = "worse"
    EQUIVALENT = "equivalent"  # within the margin on both sides
    UNDECIDED = "undecided"


@dataclass(frozen=True, slots=True)
class Judgement:
    verdict: Verdict
    comparison: Comparison
    why: str


def non_inferior(metric: str, effect: Interval, *, margin: float, higher_is_better: bool) -> Judgement:
    """PASS once the effect is certainly not worse than `margin`, FAIL once it certainly is, else INCONCLUSIVE.

    `margin` >= 0 in the metric's unit: the harm one is ready to accept, fixed before the start.
    Source: Wellek, "Testing Statistical Hypotheses of Equivalence and Noninferiority" (2010), ch. 2.
    """
    low, high = _as_gain(effect, margin, higher_is_better)
    said = _sentence(metric, effect)
    if low >= -margin and low > -math.inf:
        comparison = Comparison.BETTER if low > 0 else Comparison.EQUIVALENT if high <= margin else Comparison.UNDECIDED
        return Judgement(Verdict.PASS, comparison, f"{said}: not worse by more than {margin:g}.")
    if high < -margin:
        return Judgement(Verdict.FAIL, Comparison.WORSE, f"{said}: worse by more than {margin:g}.")
    comparison = Comparison.WORSE if high < 0 else Comparison.UNDECIDED
    return Judgement(Verdict.INCONCLUSIVE, comparison, f"{said}: a harm of {margin:g} cannot be excluded yet.")


def superior(metric: str, effect: Interval, *, margin: float, higher_is_better: bool) -> Judgement:
    """PASS once better than nothing, FAIL once worse; EQUIVALENT (INCONCLUSIVE) once within `margin` on both sides.

    Equivalent is an end of the test, not a reason to promote: the verdict leaves that to the plan.
    """
    low, high = _as_gain(effect, margin, higher_is_better)
    said = _sentence(metric, effect)
    if low > 0:
        return Judgement(Verdict.PASS, Comparison.BETTER, f"{said}: better.")
    if high < 0:
        return Judgement(Verdict.FAIL, Comparison.WORSE, f"{said}: worse.")
    if -margin <= low and high <= margin:
        return Judgement(Verdict.INCONCLUSIVE, Comparison.EQUIVALENT, f"{said}: no difference beyond {margin:g}.")
    return Judgement(Verdict.INCONCLUSIVE, Comparison.UNDECIDED, f"{said}: not decided yet.")


def _as_gain(effect: Interval, margin: float, higher_is_better: bool) -> tuple[float, float]:
    if not 0 <= margin < math.inf:
        raise ValueError(f"margin must be finite and at least 0, got {margin}")
    return (effect.low, effect.high) if higher_is_better else (-effect.high, -effect.low)


def _sentence(metric: str, effect: Interval) -> str:
    return f"{metric} {effect.effect:+.4g} [{effect.low:+.4g}, {effect.high:+.4g}]"
