"""Sufficient statistics of one arm. Frozen; `a + b` is the statistic of both sets of units together.

One observation is one unit of assignment (a customer), reduced to one number before it comes here. Adding is exact up
to floating-point rounding, in any order.
"""

import math
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import ArrayLike, NDArray


@dataclass(frozen=True, slots=True)
class Mean:
    """Count, mean and sum of squared deviations of a metric. Unit of `mean`: the metric's; of `m2`: squared."""

    count: int = 0
    mean: float = 0.0
    m2: float = 0.0

    def __post_init__(self) -> None:
        if self.count < 0 or not (math.isfinite(self.mean) and 0 <= self.m2 < math.inf):
            raise ValueError(f"not the statistic of finite values: {self}")

    @classmethod
    def of(cls, values: ArrayLike) -> Self:
        """Raises ValueError on a value that is NaN or infinite."""
        array = finite(values)
        if not len(array):
            return cls()
        mean = float(array.mean())
        return cls(len(array), mean, float(((array - mean) ** 2).sum()))

    @classmethod
    def of_events(cls, events: int, count: int) -> Self:
        """Of a yes/no metric: `events` of `count` units said yes."""
        if not 0 <= events <= count:
            raise ValueError(f"events must be within 0..{count}, got {events}")
        if count == 0:
            return cls()
        share = events / count
        return cls(count, share, events * (1 - share))

    def __add__(self, other: Self) -> Self:
        count = self.count + other.count
        if count == 0:
            return self
        a, b = self.count / count, other.count / count
        m2 = self.m2 + other.m2 + (other.mean - self.mean) ** 2 * (a * b * count)
        return type(self)(count, self.mean * a + other.mean * b, m2)

    @property
    def variance(self) -> float:
        """Unbiased variance of one unit. Raises ValueError below two units."""
        if self.count < 2:
            raise ValueError(f"a variance needs two units, got {self.count}")
        return self.m2 / (self.count - 1)

    @property
    def events(self) -> int:
        """The sum, for a yes/no metric."""
        return round(self.count * self.mean)


@dataclass(frozen=True, slots=True)
class Pair:
    """Two numbers per unit: y with a covariate x (CUPED), or numerator y and denominator x (a ratio metric)."""

    y: Mean = Mean()
    x: Mean = Mean()
    c: float = 0.0  # sum of products of deviations

    def __post_init__(self) -> None:
        left, right = math.sqrt(self.y.m2), math.sqrt(self.x.m2)
        lost = 1e-150 * (1 + left + right)  # the square of a deviation below 1e-154 is 0, its product with another not
        if self.y.count != self.x.count or not abs(self.c) <= left * right * (1 + 1e-9) + lost:
            raise ValueError(f"not the statistic of finite pairs: {self}")

    @classmethod
    def of(cls, y: ArrayLike, x: ArrayLike) -> Self:
        """Raises ValueError if the lengths differ or a value is NaN or infinite; impute a missing covariate before."""
        ys, xs = finite(y), finite(x)
        if len(ys) != len(xs):
            raise ValueError(f"{len(ys)} values of y, {len(xs)} of x")
        left, right = Mean.of(ys), Mean.of(xs)
        return cls(left, right, float(((ys - left.mean) * (xs - right.mean)).sum()))

    def __add__(self, other: Self) -> Self:
        count = self.y.count + other.y.count
        if count == 0:
            return self
        share = self.y.count * (other.y.count / count)
        c = self.c + other.c + (other.y.mean - self.y.mean) * (other.x.mean - self.x.mean) * share
        return type(self)(self.y + other.y, self.x + other.x, c)

    @property
    def count(self) -> int:
        return self.y.count

    @property
    def covariance(self) -> float:
        if self.count < 2:
            raise ValueError(f"a covariance needs two units, got {self.count}")
        return self.c / (self.count - 1)


@dataclass(frozen=True, slots=True)
class Estimate:
    """An approximately normal estimate: of an arm, or of the difference of two. `variance` is the estimate's own."""

    value: float
    variance: float

    def __post_init__(self) -> None:
        if not (math.isfinite(self.value) and 0 < self.variance < math.inf):
            raise ValueError(f"value must be finite, variance positive and finite: {self}")


@dataclass(frozen=True, slots=True)
class Interval:
    """A confidence interval, confidence sequence at one time, or credible interval of an effect.

    Ends may be infinite; an odds ratio with an empty cell is infinite itself. Never NaN.
    """

    effect: float
    low: float
    high: float

    def __post_init__(self) -> None:
        if math.isnan(self.effect) or not self.low <= self.high:
            raise ValueError(f"not an interval: {self}")


def mean(arm: Mean) -> Estimate:
    """The arm's mean. Raises ValueError below two units or when all units are equal: no variance, no inference."""
    if not arm.count:
        raise ValueError("no units")
    return Estimate(arm.mean, arm.variance / arm.count)


def ratio(arm: Pair) -> Estimate:
    """mean(y) / mean(x), e.g. spend per session with customers as units. No unit, or y's per x's.

    Assumes a mean of x well away from 0 (its standard error below a fifth of it, else ValueError).
    Source: delta method; Deng, Knoblich, Lu, "Applying the Delta Method in Metric Analytics" (2018), sec. 2.
    """
    n, below = arm.count, arm.x.mean
    if below == 0 or math.sqrt(arm.x.variance / n) > abs(below) / 5:
        raise ValueError(f"the denominator's mean {below:g} is too close to 0 for its noise")
    value = arm.y.mean / below
    spread = arm.y.variance - 2 * value * arm.covariance + value**2 * arm.x.variance
    return Estimate(value, spread / (n * below**2))


def difference(treatment: Estimate, control: Estimate) -> Estimate:
    """Treatment minus control, of independent arms."""
    return Estimate(treatment.value - control.value, treatment.variance + control.variance)


def relative_difference(treatment: Estimate, control: Estimate) -> Estimate:
    """(treatment - control) / control: 0.1 is ten percent more. No unit; two independent arms.

    Assumes control well away from 0 (its standard error below a fifth of it, else ValueError).
    Source: delta method, as `ratio`.
    """
    if control.value == 0 or math.sqrt(control.variance) > abs(control.value) / 5:
        raise ValueError(f"control {control.value:g} is too close to 0 for its noise")
    lift = treatment.value / control.value
    variance = (treatment.variance + lift**2 * control.variance) / control.value**2
    return Estimate(lift - 1, variance)


def cuped(treatment: Pair, control: Pair) -> tuple[Mean, Mean]:
    """Both arms with y adjusted by a covariate x measured before the first exposure; same effect, smaller variance.

    y' = y - theta (x - mean of x over both arms), theta = cov(y, x) / var(x) pooled within arms. With correlation r
    the variance falls by r^2. Assumes x is not touched by the treatment. Units without history: give them the mean.
    Raises ValueError if x does not vary.
    Source: Deng, Xu, Kohavi, Walker, "Improving the Sensitivity of Online Controlled Experiments by Utilizing
    Pre-Experiment Data" (2013), sec. 3.
    """
    within = treatment.x.m2 + control.x.m2
    if within <= 0:
        raise ValueError("the covariate does not vary: nothing to adjust with")
    theta = (treatment.c + control.c) / within
    centre = (treatment.x + control.x).mean
    return _adjusted(treatment, theta, centre), _adjusted(control, theta, centre)


def finite(values: ArrayLike) -> NDArray[np.float64]:
    """One-dimensional float64. Raises ValueError on NaN or infinity, counting them."""
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1:
        raise ValueError(f"expected one number per unit, got shape {array.shape}")
    if bad := int(np.count_nonzero(~np.isfinite(array))):
        raise ValueError(f"{bad} of {len(array)} values are NaN or infinite")
    return array


def _adjusted(arm: Pair, theta: float, centre: float) -> Mean:
    m2 = max(0.0, arm.y.m2 - 2 * theta * arm.c + theta**2 * arm.x.m2)
    return Mean(arm.count, arm.y.mean - theta * (arm.x.mean - centre), m2)
