"""Always-valid intervals for means of bounded metrics, without asymptotics: from the first unit on, at any event rate.

A gambler who bets against "the mean is m" on every unit multiplies the stake by 1 + k (x / m - 1) when betting on
more, by 1 + k ((1 - x) / (1 - m) - 1) on less. If m is true the capital is a non-negative martingale: it exceeds
1 / alpha ever with probability at most alpha. The stake is spread over fixed k, so the order of units does not matter
and the capital is a function of sums:

- yes/no metrics: exactly, from events and units;
- other metrics in [low, high]: a lower bound of it from count, mean and variance alone, by
  1 + k y >= exp(k y - psi(k) y^2),  psi(k) = -log(1 - k) - k,  for y >= -1, 0 <= k < 1.

Source: Waudby-Smith & Ramdas, "Estimating means of bounded random variables by betting" (2024), arXiv:2010.09686,
sec. 4; the inequality: Fan, Grama, Liu, "Exponential inequalities for martingales with applications" (2015).
Assumes units with one conditional mean given those before; nothing else about their distribution.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import special

from control_plane.domain.experiments.fixed import level
from control_plane.domain.experiments.samples import Interval, Mean

Floats = NDArray[np.float64]
_BETS: Floats = 0.5 ** np.arange(1, 16, dtype=np.float64)  # 1/2 ... 1/32768: effects from huge to a part in 10^4
_LARGER = 65  # means between those asked for and the arm's own that a bound is looked for at
_STEPS = 400  # grid points per search; the search rounds outwards, so fewer only widens the interval


@dataclass(frozen=True, slots=True)
class Bounds:
    """The range no value of the metric can leave, fixed before the start. `yes_no`: only its two ends occur."""

    low: float = 0.0
    high: float = 1.0
    yes_no: bool = False

    def __post_init__(self) -> None:
        if not (math.isfinite(self.low) and math.isfinite(self.high) and self.low < self.high):
            raise ValueError(f"bounds must be finite and ordered: {self}")


def interval(arm: Mean, bounds: Bounds, *, alpha: float) -> Interval:
    """Confidence sequence of the mean at this look, in the metric's unit; the whole range without units.

    Raises ValueError if the mean or variance is impossible within the bounds.
    """
    scaled = _scaled(arm, bounds)
    if not scaled.count:
        return Interval((bounds.low + bounds.high) / 2, bounds.low, bounds.high)
    wanted = math.log(2 / level(alpha))
    low = _limit(scaled, bounds.yes_no, wanted)
    high = 1 - _limit(_flipped(scaled), bounds.yes_no, wanted)
    width = bounds.high - bounds.low
    return Interval(arm.mean, bounds.low + width * min(low, scaled.mean), bounds.low + width * max(high, scaled.mean))


def difference(treatment: Mean, control: Mean, bounds: Bounds, *, alpha: float) -> Interval:
    """Confidence sequence of mean(treatment) - mean(control) at this look, arms independent.

    An effect d is excluded once, for every control mean m, the capital of betting that treatment is above m + d times
    that of betting control below m exceeds 2 / alpha (and the other way round for the upper end): a product of two
    martingales of independent arms is one, so no split of alpha over arms is needed.
    """
    t, c = _scaled(treatment, bounds), _scaled(control, bounds)
    width = bounds.high - bounds.low
    if not (t.count and c.count):
        return Interval(0.0 if not t.count or not c.count else t.mean - c.mean, -width, width)
    wanted = math.log(2 / level(alpha))
    low = _difference_limit(t, c, bounds.yes_no, wanted)
    high = -_difference_limit(c, t, bounds.yes_no, wanted)
    effect = t.mean - c.mean
    return Interval(width * effect, width * min(low, effect), width * max(high, effect))


def excludes(treatment: Mean, control: Mean, bounds: Bounds, *, null: float, alpha: float) -> bool:
    """Whether `difference` leaves `null` outside, without looking for its ends."""
    t, c, d = _scaled(treatment, bounds), _scaled(control, bounds), null / (bounds.high - bounds.low)
    if not (t.count and c.count):
        return False
    wanted = math.log(2 / level(alpha))
    return _log_product(t, c, d, bounds.yes_no) >= wanted or _log_product(c, t, -d, bounds.yes_no) >= wanted


def log_e(treatment: Mean, control: Mean, bounds: Bounds, *, null: float) -> float:
    """Log of the evidence against "the difference is `null`": under it, P(e ever reaches 1 / alpha) <= alpha.

    0 without units. Raises ValueError if `null` is impossible within the bounds.
    """
    t, c, width = _scaled(treatment, bounds), _scaled(control, bounds), bounds.high - bounds.low
    if not abs(null) <= width:
        raise ValueError(f"a difference of {null} is impossible within {bounds}")
    if not (t.count and c.count):
        return 0.0
    d = null / width
    both = (_log_product(t, c, d, bounds.yes_no), _log_product(c, t, -d, bounds.yes_no))
    return float(special.logsumexp(both)) - math.log(2)


def log_capital(arm: Mean, means: Floats, *, yes_no: bool) -> Floats:
    """Log capital (or a lower bound of it) of betting that an arm scaled to [0, 1] has more than each of `means`.

    `means` within 0..1, ascending. It falls with the mean betted against.
    """
    if not yes_no and len(means) and means[-1] < arm.mean:  # what a larger mean reaches counts for these too: below
        larger = np.linspace(float(means[-1]), arm.mean, _LARGER)
        return log_capital(arm, np.concatenate([means, larger[1:]]), yes_no=yes_no)[: len(means)]
    m = np.clip(means, 1e-9, None)[:, None]  # below it the bet is worth at least as much
    n, k = arm.count, _BETS[None, :]
    if yes_no:
        events = n * arm.mean
        each = events * np.log1p(k * (1 / m - 1)) + (n - events) * np.log1p(-k)
    else:
        gain = n * (arm.mean / m - 1)
        squares = (arm.m2 + n * (arm.mean - m) ** 2) / m**2
        each = k * gain - (-np.log1p(-k) - k) * squares
    peak = each.max(axis=1)  # a difference took 80 ms with scipy's logsumexp, and 30 with this
    capital = peak + np.log(np.exp(each - peak[:, None]).mean(axis=1))
    # The capital itself falls in m, but its lower bound need not: what a larger mean reaches, a smaller one does too.
    return np.maximum.accumulate(capital[::-1])[::-1]


def _limit(arm: Mean, yes_no: bool, wanted: float) -> float:
    """The largest mean below the arm's own that is excluded, found on a grid refined three times; 0 if none is."""
    low, high = 0.0, arm.mean
    for _ in range(3):
        grid = np.linspace(low, high, _STEPS)
        excluded = np.flatnonzero(log_capital(arm, grid, yes_no=yes_no) >= wanted)
        if not len(excluded):
            return 0.0 if low == 0.0 else low
        at = int(excluded[-1])
        low, high = float(grid[at]), float(grid[min(at + 1, _STEPS - 1)])
    return low


def _difference_limit(upper: Mean, lower: Mean, yes_no: bool, wanted: float) -> float:
    """The largest d below the difference seen for which "upper - lower = d" is excluded; -1 if none is."""
    low, high = -1.0, upper.mean - lower.mean
    if _log_product(upper, lower, low, yes_no) < wanted:
        return low
    for _ in range(40):
        middle = (low + high) / 2
        if _log_product(upper, lower, middle, yes_no) >= wanted:
            low = middle
        else:
            high = middle
    return low


def _log_product(upper: Mean, lower: Mean, d: float, yes_no: bool) -> float:
    """The least, over control means m, log capital of both bets against "upper is m + d and lower is m".

    Between two grid points the first bet is worth at least what it is at the right one, the second at the left one.
    """
    first, last = max(0.0, -d), min(1.0, 1.0 - d)
    grid = np.unique(np.clip(np.concatenate([_around(lower, 0.0), _around(upper, d), [first, last]]), first, last))
    more = log_capital(upper, np.clip(grid + d, 0.0, 1.0), yes_no=yes_no)
    less = log_capital(_flipped(lower), (1 - grid)[::-1], yes_no=yes_no)[::-1]
    if len(grid) == 1:
        return float(more[0] + less[0])
    return float((more[1:] + less[:-1]).min())


def _around(arm: Mean, shift: float) -> Floats:
    """Points dense near the arm's mean, where the capital is small, and sparse far from it."""
    spread = max(math.sqrt(max(arm.m2, 1.0) / arm.count / arm.count), 1e-12)
    steps = np.concatenate([np.linspace(-8, 8, _STEPS // 2), np.linspace(-1 / spread, 1 / spread, 64)])
    return np.clip(arm.mean + spread * steps, 0.0, 1.0) - shift


def _scaled(arm: Mean, bounds: Bounds) -> Mean:
    width = bounds.high - bounds.low
    mean, m2 = (arm.mean - bounds.low) / width if arm.count else 0.0, arm.m2 / width**2
    # Within the bounds the variance is largest when all units sit at the ends.
    if arm.count and not (-1e-9 <= mean <= 1 + 1e-9 and m2 <= arm.count * mean * (1 - mean) * (1 + 1e-6) + 1e-6):
        raise ValueError(f"{arm} cannot lie within {bounds}")
    return Mean(arm.count, min(1.0, max(0.0, mean)), m2)


def _flipped(arm: Mean) -> Mean:
    return Mean(arm.count, 1 - arm.mean, arm.m2)
