"""Posterior reports: how probable it is that treatment is better, and what choosing it would cost if it is not.

Reports only: a posterior probability looked at again and again is not an error rate. Arms independent.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

from scipy import special

from control_plane.domain.experiments.fixed import level
from control_plane.domain.experiments.samples import Estimate, Interval, Mean


@dataclass(frozen=True, slots=True)
class Prior:
    """Beta prior of a share: as if `yes` events and `no` non-events had been seen. (1, 1) is uniform."""

    yes: float = 1.0
    no: float = 1.0

    def __post_init__(self) -> None:
        if not (0 < self.yes < math.inf and 0 < self.no < math.inf):
            raise ValueError(f"a prior needs positive finite counts: {self}")


@dataclass(frozen=True, slots=True)
class Posterior:
    """`better`: P(treatment > control). `loss`: expected loss of choosing treatment, E[max(control - treatment, 0)],

    in the metric's unit. `interval`: equal-tailed credible interval of the difference, at level 1 - alpha.
    """

    better: float
    loss: float
    interval: Interval


def beta_binomial(treatment: Mean, control: Mean, *, prior: Prior, alpha: float) -> Posterior:
    """Two shares of yes/no units with one prior for both. Valid from the first unit on.

    Source: P(better) = integral of the treatment density times the control distribution; the loss follows with
    E[B; B > A] = mean(B) P(B' > A), B' one event richer: Stucchi, "Bayesian A/B Testing at VWO" (2015).
    """
    t = (prior.yes + treatment.events, prior.no + treatment.count - treatment.events)
    c = (prior.yes + control.events, prior.no + control.count - control.events)
    better = _beats(t, c)
    loss = _share(c) * _beats((c[0] + 1, c[1]), t) - _share(t) * (1 - _beats((t[0] + 1, t[1]), c))
    effect = _share(t) - _share(c)

    def below(d: float) -> float:
        return _integral(lambda x: float(special.betainc(*t, min(1.0, max(0.0, x + d)))), c)

    low, high = _quantile(below, level(alpha) / 2), _quantile(below, 1 - alpha / 2)
    return Posterior(better, max(0.0, loss), Interval(effect, low, high))


def normal(difference: Estimate, *, prior_mean: float, prior_sd: float, alpha: float) -> Posterior:
    """A difference of means (treatment - control) with a normal prior on it; `prior_sd` may be infinite (flat).

    Assumes the estimate is close to normal. Source: Gelman et al., "Bayesian Data Analysis" (2013), sec. 2.5.
    """
    if not (math.isfinite(prior_mean) and prior_sd > 0):
        raise ValueError(f"prior mean must be finite, prior sd positive: {prior_mean}, {prior_sd}")
    precision = 1 / difference.variance + 1 / prior_sd**2
    mean = (difference.value / difference.variance + prior_mean / prior_sd**2) / precision
    sd = math.sqrt(1 / precision)
    z = mean / sd
    density = math.exp(-z * z / 2) / math.sqrt(2 * math.pi)
    loss = sd * density - mean * float(special.ndtr(-z))
    half = -float(special.ndtri(level(alpha) / 2)) * sd
    return Posterior(float(special.ndtr(z)), max(0.0, loss), Interval(mean, mean - half, mean + half))


def _share(posterior: tuple[float, float]) -> float:
    return posterior[0] / (posterior[0] + posterior[1])


def _beats(a: tuple[float, float], b: tuple[float, float]) -> float:
    """P(A > B) of two independent beta variables."""
    return _integral(lambda x: float(special.betainc(*b, x)), a)


def _integral(function: Callable[[float], float], density: tuple[float, float]) -> float:
    """E[function(X)] for a beta X, over where X has all but 1e-13 of its mass, in pieces around its quantiles."""
    a, b = density
    constant = -float(special.betaln(a, b))

    def weighted(x: float) -> float:
        return function(x) * math.exp(constant + (a - 1) * math.log(x) + (b - 1) * math.log1p(-x))

    from scipy import integrate  # here, as below: it is a third of what a process needs to start

    cuts = [float(special.betaincinv(a, b, q)) for q in (5e-14, 1e-6, 0.05, 0.3, 0.5, 0.7, 0.95, 1 - 1e-6, 1 - 5e-14)]
    total = 0.0
    for low, high in pairwise(cuts):
        if high > low:
            total += float(integrate.quad(weighted, low, high, epsabs=1e-13, epsrel=1e-11, limit=200)[0])
    return min(1.0, max(0.0, total))


def _quantile(below: Callable[[float], float], tail: float) -> float:
    def missing(d: float) -> float:
        return below(d) - tail

    from scipy import optimize

    return float(optimize.brentq(missing, -1.0, 1.0, xtol=1e-10))
