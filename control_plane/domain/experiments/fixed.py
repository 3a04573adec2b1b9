"""Tests for one look, at a number of units planned before the start. Reports only: they are wrong when peeked at.

Two-sided, treatment minus control; units independent. Every function raises ValueError where its test is not defined
(too few units, no variation) instead of returning p = 1.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

from control_plane.domain.experiments.samples import Interval, Mean, finite

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Result:
    """`interval` at level 1 - alpha, in the unit of the metric unless the function says otherwise."""

    interval: Interval
    p: float
    statistic: float
    dof: float | None = None


def welch_t(treatment: Mean, control: Mean, *, alpha: float) -> Result:
    """Difference of means with unequal variances. Assumes means are close to normal (about 30 units or more).

    Source: Welch (1947); degrees of freedom: Satterthwaite (1946).
    """
    a, b = treatment.variance / treatment.count, control.variance / control.count
    if a + b <= 0:
        raise ValueError("neither arm varies: no test")
    effect = treatment.mean - control.mean
    error = math.sqrt(a + b)
    # Shares, not squares of variances: those underflow for metrics in tiny units.
    share = a / (a + b)
    dof = 1 / (share**2 / (treatment.count - 1) + (1 - share) ** 2 / (control.count - 1))
    half = float(special.stdtrit(dof, 1 - level(alpha) / 2)) * error
    t = effect / error
    return Result(Interval(effect, effect - half, effect + half), 2 * float(special.stdtr(dof, -abs(t))), t, dof)


def two_proportion_z(treatment: Mean, control: Mean, *, alpha: float) -> Result:
    """Difference of two shares of yes/no units. p from the pooled score test, interval from Newcombe's hybrid score.

    Assumes at least 5 expected events and non-events per arm (else ValueError: use `fisher`).
    Source: pooled z: Fleiss, "Statistical Methods for Rates and Proportions" (2003), ch. 3, uncorrected;
    interval: Newcombe (1998), method 10.
    """
    events, others = _table(treatment), _table(control)
    n, m = treatment.count, control.count
    pooled = (events[0] + others[0]) / (n + m)
    if min(n, m) * min(pooled, 1 - pooled) < 5:
        raise ValueError("fewer than 5 expected events or non-events in an arm: use fisher")
    p, q = events[0] / n, others[0] / m
    z = (p - q) / math.sqrt(pooled * (1 - pooled) * (1 / n + 1 / m))
    quantile = normal_quantile(level(alpha))
    (p_low, p_high), (q_low, q_high) = wilson(events[0], n, quantile), wilson(others[0], m, quantile)
    effect = p - q
    low = effect - math.hypot(p - p_low, q_high - q)
    high = effect + math.hypot(p_high - p, q - q_low)
    return Result(Interval(effect, low, high), two_sided(z), z)


def fisher(treatment: Mean, control: Mean, *, alpha: float) -> Result:
    """Exact test of two shares, for few events. The interval and `statistic` are the odds ratio's (no unit).

    p: the probability, given both margins, of all tables at most as likely as the one seen. Interval: conditional
    exact. Raises ValueError if an arm is empty or nobody, or everybody, had the event.
    Source: Fisher (1935); interval: Cornfield (1956).
    """
    (a, b), (c, d) = _table(treatment), _table(control)
    if 0 in (a + b, c + d, a + c, b + d):
        raise ValueError("an arm is empty, or all units of both arms agree: no test")
    first, last = max(0, a - d), min(a + b, a + c)
    support = np.arange(first, last + 1, dtype=np.float64)
    weights = _log_choose(a + b, support) + _log_choose(c + d, a + c - support)
    chances = np.exp(weights - special.logsumexp(weights))
    p = min(1.0, float(chances[chances <= chances[a - first] * (1 + 1e-7)].sum()))
    odds = math.inf if b * c == 0 else a * d / (b * c)
    low = 0.0 if a == first else math.exp(_log_odds(support, weights, a, level(alpha) / 2, upper=True))
    high = math.inf if a == last else math.exp(_log_odds(support, weights, a, alpha / 2, upper=False))
    return Result(Interval(odds, low, high), p, odds)


def mann_whitney(treatment: ArrayLike, control: ArrayLike, *, alpha: float) -> Result:
    """Whether treatment values tend to be larger. Effect: P(T > C) + P(T = C) / 2, no unit, 0.5 is no effect.

    Needs the values themselves: ranks do not add. p by the normal approximation with ties and continuity correction
    (at least 8 units an arm, else ValueError); `statistic` is U of treatment. Interval from the placements' variance.
    Source: Mann & Whitney (1947); ties: Lehmann, "Nonparametrics" (1975), sec. 1.4; interval: variance of Brunner &
    Munzel (2000), on the logit scale.
    """
    t, c = finite(treatment), finite(control)
    n, m = len(t), len(c)
    if min(n, m) < 8:
        raise ValueError(f"the normal approximation needs 8 units an arm, got {n} and {m}")
    ranks, sizes = _midranks(np.concatenate((t, c)))
    u = float(ranks[:n].sum()) - n * (n + 1) / 2
    total = n + m
    ties = float((sizes**3 - sizes).sum()) / (total * (total - 1))
    spread = math.sqrt(n * m / 12 * (total + 1 - ties))
    if spread == 0:
        raise ValueError("all values are equal: no test")
    z = max(0.0, abs(u - n * m / 2) - 0.5) / spread
    effect = u / (n * m)
    placed_t = (ranks[:n] - _midranks(t)[0]) / m
    placed_c = (ranks[n:] - _midranks(c)[0]) / n
    error = math.sqrt(float(placed_t.var(ddof=1)) / n + float(placed_c.var(ddof=1)) / m)
    if error == 0 or not 0 < effect < 1:  # the arms do not overlap: nothing to estimate the spread from
        low, high = 0.0, 1.0
    else:
        half = normal_quantile(level(alpha)) * error / (effect * (1 - effect))
        logit = math.log(effect / (1 - effect))
        low, high = (float(special.expit(logit + side * half)) for side in (-1, 1))
    return Result(Interval(effect, low, high), min(1.0, two_sided(z)), u)


def wilson(events: int, count: int, quantile: float) -> tuple[float, float]:
    """Score interval of one share. Source: Wilson (1927)."""
    share, z2 = events / count, quantile**2
    centre = (share + z2 / (2 * count)) / (1 + z2 / count)
    half = quantile / (1 + z2 / count) * math.sqrt(share * (1 - share) / count + z2 / (4 * count**2))
    return centre - half, centre + half


def level(alpha: float) -> float:
    """`alpha`, checked: the error rate of both sides together."""
    if not 0 < alpha < 1:
        raise ValueError(f"alpha must be within 0..1, both excluded, got {alpha}")
    return alpha


def normal_quantile(alpha: float) -> float:
    """z with P(|Z| > z) = alpha."""
    return -float(special.ndtri(alpha / 2))


def two_sided(z: float) -> float:
    return 2 * float(special.ndtr(-abs(z)))


def _table(arm: Mean) -> tuple[int, int]:
    events = arm.events
    share = events / arm.count if arm.count else 0.0
    if abs(events - arm.count * arm.mean) > 1e-6 * max(1, arm.count) or not math.isclose(
        arm.m2, arm.count * share * (1 - share), rel_tol=1e-6, abs_tol=1e-6
    ):
        raise ValueError(f"not a yes/no metric: {arm}")
    if arm.count == 0:
        raise ValueError("an arm is empty: no test")
    return events, arm.count - events


def _log_choose(n: int, k: Floats) -> Floats:
    return special.gammaln(n + 1) - special.gammaln(k + 1) - special.gammaln(n - k + 1)


def _log_odds(support: Floats, weights: Floats, seen: int, tail: float, *, upper: bool) -> float:
    """Log odds ratio at which the tail at or beyond `seen` has probability `tail`, by bisection."""
    beyond = support >= seen if upper else support <= seen
    low, high = -700.0, 700.0
    for _ in range(200):
        middle = (low + high) / 2
        tilted = weights + support * middle
        chance = math.exp(float(special.logsumexp(tilted[beyond]) - special.logsumexp(tilted)))
        # The upper tail grows with the odds ratio, the lower one shrinks.
        if (chance < tail) == upper:
            low = middle
        else:
            high = middle
    return (low + high) / 2


def _midranks(values: Floats) -> tuple[Floats, Floats]:
    """Ranks from 1, ties share their middle one; and the sizes of the groups of equal values."""
    _, group, sizes = np.unique(values, return_inverse=True, return_counts=True)
    ends = np.cumsum(sizes)
    return (ends - (sizes - 1) / 2)[group].astype(np.float64), sizes.astype(np.float64)
