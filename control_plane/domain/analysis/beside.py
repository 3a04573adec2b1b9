"""What closed customers say besides the decision: reports, from which no verdict follows.

The p-value of one look and the probability to be better are what people ask for and other tools show. Neither may be
looked at again and again, so both stand beside the always-valid interval, which decides (`comparison`).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from control_plane.domain.analysis import comparison
from control_plane.domain.analysis.comparison import Arm, Measurement
from control_plane.domain.analysis.judge import Pairs
from control_plane.domain.analysis.plan import Resolved
from control_plane.domain.experiments import bayes, fixed, multiplicity, samples
from control_plane.domain.experiments.bayes import Posterior, Prior
from control_plane.domain.experiments.fixed import Result
from control_plane.domain.experiments.samples import Interval

_MEANS = "welch t"
_SHARES = "two-proportion z"
_FEW = "fisher"  # its interval is the odds ratio's, and not shown


@dataclass(frozen=True, slots=True)
class OneLook:
    """A test for a size planned before the start. `adjusted`: p by Holm's method over the metrics that have one.

    `interval`: of candidate - baseline at level 1 - alpha, in the metric's unit; None: the test gives none.
    """

    test: str
    p: float
    adjusted: float
    interval: Interval | None


@dataclass(frozen=True, slots=True)
class Beside:
    """One metric. `decides`: the always-valid measurement. `lift`: (candidate - baseline) / baseline, None at 0.

    `one_look`, `posterior` None: not defined for this metric, or not yet; `posterior.better` and `.loss` are about the
    candidate in the metric's good direction, the interval is of candidate - baseline.
    """

    metric: Resolved
    decides: Measurement
    lift: float | None
    one_look: OneLook | None
    posterior: Posterior | None


def reports(metrics: Sequence[Resolved], pairs: Pairs, *, share: float, alpha: float) -> tuple[Beside, ...]:
    """`share`: the part of `alpha` that decides one metric (`judge.share_of_alpha`); reports have all of it."""
    arms = [pairs.get(metric.name, (Arm(), Arm())) for metric in metrics]
    tested = [_tested(metric, *pair, alpha=alpha) for metric, pair in zip(metrics, arms, strict=True)]
    there = [at for at, found in enumerate(tested) if found is not None]
    adjusted = dict(zip(there, multiplicity.holm([found[1].p for found in tested if found is not None]), strict=True))
    made: list[Beside] = []
    for at, (metric, pair, found) in enumerate(zip(metrics, arms, tested, strict=True)):
        measured = comparison.compare(metric, *pair, alpha=share)
        interval = found[1].interval if found is not None and found[0] != _FEW else None
        look = None if found is None else OneLook(found[0], found[1].p, adjusted[at], interval)
        made.append(Beside(metric, measured, _lift(measured), look, _posterior(metric, *pair, alpha=alpha)))
    return tuple(made)


def _tested(metric: Resolved, candidate: Arm, baseline: Arm, *, alpha: float) -> tuple[str, Result] | None:
    """The name of the test and what it says; None where no test of sums is defined."""
    if metric.metric.source in comparison.NO_MEANS:
        return None
    try:
        if metric.yes_no:
            arms = candidate.values, baseline.values
            try:
                return _SHARES, fixed.two_proportion_z(*arms, alpha=alpha)
            except ValueError:
                return _FEW, fixed.fisher(*arms, alpha=alpha)
        return _MEANS, fixed.welch_t(*comparison.means(candidate, baseline), alpha=alpha)
    except ValueError:
        return None


def _posterior(metric: Resolved, candidate: Arm, baseline: Arm, *, alpha: float) -> Posterior | None:
    """A uniform prior for shares of yes/no customers, a flat one for every other difference."""
    if not (candidate.values.count and baseline.values.count):
        return None
    try:
        if metric.yes_no:
            found = bayes.beta_binomial(candidate.values, baseline.values, prior=Prior(), alpha=alpha)
        else:
            estimated = comparison.estimates(metric, candidate, baseline)
            if estimated is None:
                return None
            difference = samples.difference(*estimated)
            found = bayes.normal(difference, prior_mean=0.0, prior_sd=math.inf, alpha=alpha)
    except ValueError:
        return None
    if metric.higher_is_better:
        return found
    return replace(found, better=1 - found.better, loss=max(0.0, found.interval.effect + found.loss))


def _lift(measured: Measurement) -> float | None:
    base = measured.baseline
    if not (base.count and measured.candidate.count) or base.mean == 0:
        return None
    return measured.candidate.mean / base.mean - 1
