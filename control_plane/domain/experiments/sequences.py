"""Always-valid intervals for means, asymptotic: look as often as you like, decide when you like.

With a difference of means D whose estimated variance is v, D / v behaves like a Brownian motion with drift in the time
1 / v; mixing its likelihood ratio over effects N(0, tau^2) gives a martingale, and with it an interval that covers the
true effect at all times together with probability 1 - alpha:

    D +- sqrt( 2 v (v + tau^2) / tau^2 * log( sqrt((v + tau^2) / v) / alpha ) )

With v = s^2 / t and tau = s rho this is Waudby-Smith, Arbour, Sinha, Kennedy, Ramdas, "Time-uniform central limit
theory and asymptotic confidence sequences" (2024), arXiv:2103.06476, eq. 9; the one-sided form (a half-normal
mixture): its appendix B.

Assumes that units close independently of their outcome and that arms grow in proportion (slices of one size); use it
from about 50 events (yes and no) or units per arm on: `ready`. Below that, and for guarantees without asymptotics,
`betting`. `tau` is fixed before the first look; it moves where the interval is tightest, never its validity.

Nobody looks before that, so nothing has to be paid for what could have been seen earlier: with `start`, the variance
at which looks begin, the level 1 / alpha falls to the b that is crossed from there on with probability alpha exactly
(`log_level`). Source: the capital at the start is known in law, and a continuous martingale that falls to 0 crosses b
after being M < b with probability M / b: Robbins & Siegmund, "Boundary crossing probabilities for the Wiener process
and sample sums" (1970).
"""

import math

from scipy import special

from control_plane.domain.experiments.fixed import level
from control_plane.domain.experiments.samples import Estimate, Interval, Mean

LEAST_EVENTS = 50  # per arm, before the normal approximation is trusted
_NO_INFORMATION = 1e-6  # below it a late start gains nothing


def ready(arm: Mean, *, yes_no: bool, least: int = LEAST_EVENTS) -> bool:
    """Whether an arm is large enough: `least` units, for a yes/no metric `least` of the rarer answer."""
    return (min(arm.events, arm.count - arm.events) if yes_no else arm.count) >= least


def tau_for(variance: float, *, alpha: float) -> float:
    """The tau whose interval is tightest when the variance of the estimate has fallen to `variance`.

    A good choice is the variance expected at half the longest run. Unit: the estimate's.
    Source: the minimum over tau of the formula above, tau^2 / v = -W(-alpha^2 / e) - 1 with the lower branch of
    Lambert's W; Howard, Ramdas, McAuliffe, Sekhon (2021), arXiv:1810.08240, sec. 3.5.
    """
    if not 0 < variance < math.inf:
        raise ValueError(f"variance must be positive and finite, got {variance}")
    gain = -float(special.lambertw(-(level(alpha) ** 2) / math.e, k=-1).real) - 1
    return math.sqrt(variance * gain)


def confidence_sequence(estimate: Estimate, *, alpha: float, tau: float, start: float = math.inf) -> Interval:
    """The interval at this look. The running intersection over looks is valid too: `intersection`.

    `start`: no look is taken before the variance of the estimate has fallen to it; fixed before the first look.
    """
    half = half_width(estimate.variance, alpha=alpha, tau=tau, start=start)
    return Interval(estimate.value, estimate.value - half, estimate.value + half)


def half_width(variance: float, *, alpha: float, tau: float, start: float = math.inf) -> float:
    """Raises ValueError for a look before `start`: its error rate is not alpha."""
    v, t2 = variance, _squared(tau)
    if v > start * (1 + 1e-9):
        raise ValueError(f"a look at variance {v:g}, before the start at {start:g}")
    return math.sqrt(2 * v * (v + t2) / t2 * (0.5 * math.log1p(t2 / v) + log_level(t2 / start, alpha=alpha)))


def log_level(information: float, *, alpha: float) -> float:
    """Log of the level that capital looked at from `information` = tau^2 / variance on crosses with probability alpha.

    It is -log(alpha) at 0, the start of everything, and falls from there. With c the deviation, in standard errors, at
    which the capital is b at the first look: 2 (1 - F(c)) is the probability of being beyond it, and of crossing later
    E[M; M < b] / b = (2 F(c / sqrt(1 + information)) - 1) / b; F is the normal distribution.
    """
    if not 0 <= information < math.inf:
        raise ValueError(f"information must be finite and at least 0, got {information}")
    highest = -math.log(level(alpha))
    if information < _NO_INFORMATION:
        return highest
    grown = 0.5 * math.log1p(information)

    def too_many(log_b: float) -> float:
        c = math.sqrt(2 * (1 + information) / information * max(0.0, grown + log_b))
        later = (2 * float(special.ndtr(c / math.sqrt(1 + information))) - 1) * math.exp(-log_b)
        return 2 * float(special.ndtr(-c)) + later - alpha

    from scipy import optimize  # here, since it is a third of what a process needs to start

    return float(optimize.brentq(too_many, -grown, highest + 1e-9, xtol=1e-12))


def upper_bound(estimate: Estimate, *, alpha: float, tau: float) -> float:
    """Always-valid one-sided bound: the effect is below it at all times with probability 1 - alpha.

    The lower bound of an effect is minus the upper bound of minus the effect.
    """
    v, t2 = estimate.variance, _squared(tau)
    inner = math.log1p(math.sqrt((v + t2) / v) / (2 * level(alpha)))
    return estimate.value + math.sqrt(2 * v * (v + t2) / t2 * inner)


def log_e(estimate: Estimate, *, null: float, tau: float) -> float:
    """Log of the evidence against "the effect is `null`": under it, e exceeds 1 / alpha ever with probability alpha."""
    v, t2 = estimate.variance, _squared(tau)
    return (estimate.value - null) ** 2 * t2 / (2 * v * (v + t2)) - 0.5 * math.log1p(t2 / v)


def always_valid_p(estimate: Estimate, *, null: float, tau: float, previous: float = 1.0) -> float:
    """p-value valid at any time; `previous` is the last look's, which it never exceeds.

    Source: Johari, Pekelis, Walsh, "Always Valid Inference" (2015), arXiv:1512.04922, mixture with a normal prior.
    """
    if not 0 <= previous <= 1:
        raise ValueError(f"previous must be within 0..1, got {previous}")
    return min(previous, math.exp(min(0.0, -log_e(estimate, null=null, tau=tau))))


def intersection(previous: Interval | None, current: Interval) -> Interval | None:
    """What both looks allow, with the current effect; None if they exclude each other.

    None is no verdict: the effect moved, or an assumption does not hold. Treat it as INCONCLUSIVE.
    """
    if previous is None:
        return current
    low, high = max(previous.low, current.low), min(previous.high, current.high)
    return Interval(current.effect, low, high) if low <= high else None


def _squared(tau: float) -> float:
    if not 0 < tau < math.inf:
        raise ValueError(f"tau must be positive and finite, got {tau}")
    return tau * tau
