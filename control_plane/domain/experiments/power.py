"""How many units a comparison needs, what it could find, and how long that takes. For planning, before the start.

Normal approximations; `sd` is the standard deviation of one unit's value (`share_sd` for a yes/no metric), `effect`
the absolute difference of means in the same unit. Two-sided at `alpha`.
Source: fixed size: Chow, Shao, Wang, "Sample Size Calculations in Clinical Research" (2008), ch. 3; always-valid: the
probability that the interval of `sequences` excludes 0 at that size, a lower bound of having done so by then.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

from scipy import special

from control_plane.domain.experiments import sequences
from control_plane.domain.experiments.fixed import level, normal_quantile

_MOST_UNITS = 1e15


@dataclass(frozen=True, slots=True)
class RunTime:
    """`days`: from start to the last unit closed, whole weeks of exposure plus waiting for outcomes."""

    days: int
    exposure_days: int
    why: str


def share_sd(share: float) -> float:
    """Standard deviation of one yes/no unit."""
    if not 0 <= share <= 1:
        raise ValueError(f"a share is within 0..1, got {share}")
    return math.sqrt(share * (1 - share))


def power(effect: float, *, sd_treatment: float, sd_control: float, units: float, ratio: float, alpha: float) -> float:
    """Probability that a fixed-size test finds `effect` with `units` in control and units * ratio in treatment."""
    error = _standard_error(sd_treatment, sd_control, units, ratio)
    z = normal_quantile(level(alpha))
    shift = abs(effect) / error
    return float(special.ndtr(shift - z) + special.ndtr(-shift - z))


def always_valid_power(
    effect: float, *, sd_treatment: float, sd_control: float, units: float, ratio: float, alpha: float, tau: float
) -> float:
    """At least the probability that an always-valid comparison has found `effect` by then, however often looked at."""
    error = _standard_error(sd_treatment, sd_control, units, ratio)
    half = sequences.half_width(error**2, alpha=alpha, tau=tau)
    return float(special.ndtr((abs(effect) - half) / error) + special.ndtr((-abs(effect) - half) / error))


def units_needed(
    effect: float, *, sd_treatment: float, sd_control: float, ratio: float, alpha: float, power_wanted: float
) -> int:
    """Units in control (treatment: times `ratio`) for a fixed-size test. Raises ValueError if no size would do."""

    def reached(units: float) -> float:
        return power(effect, sd_treatment=sd_treatment, sd_control=sd_control, units=units, ratio=ratio, alpha=alpha)

    return _least(reached, effect, level(alpha), power_wanted)


def always_valid_units_needed(
    effect: float, *, sd_treatment: float, sd_control: float, ratio: float, alpha: float, power_wanted: float
) -> int:
    """As `units_needed`, looking as often as one likes, with the tau that is best at each size."""

    def reached(units: float) -> float:
        tau = sequences.tau_for(_standard_error(sd_treatment, sd_control, units, ratio) ** 2, alpha=alpha)
        given = {"sd_treatment": sd_treatment, "sd_control": sd_control, "units": units, "ratio": ratio}
        return always_valid_power(effect, **given, alpha=alpha, tau=tau)

    return _least(reached, effect, level(alpha), power_wanted)


def detectable_effect(
    *, sd_treatment: float, sd_control: float, units: float, ratio: float, alpha: float, power_wanted: float
) -> float:
    """Smallest effect a fixed-size test finds with probability `power_wanted` (MDE), in the metric's unit."""
    error = _standard_error(sd_treatment, sd_control, units, ratio)
    _check_power(power_wanted, level(alpha))

    def missing(effect: float) -> float:
        z = normal_quantile(alpha)
        return float(special.ndtr(effect - z) + special.ndtr(-effect - z)) - power_wanted

    from scipy import optimize  # here, since it is a third of what a process needs to start

    return error * float(optimize.brentq(missing, 0.0, 100.0, xtol=1e-12))


def run_time(
    units: int, *, units_per_day: float, observation_days: float, label_delay_days: float, least_weeks: int = 1
) -> RunTime:
    """How long until `units` (of all arms together) have closed.

    `units_per_day`: new units first exposed a day, all arms of the comparison. Whole weeks, since weekdays differ.
    Raises ValueError without traffic: the comparison would never decide.
    """
    if not units_per_day > 0:
        raise ValueError("no traffic: this comparison would never decide")
    if units < 0 or observation_days < 0 or label_delay_days < 0 or least_weeks < 1:
        raise ValueError("units and delays must be at least 0, weeks at least 1")
    weeks = max(least_weeks, math.ceil(units / units_per_day / 7))
    waiting = math.ceil(observation_days + label_delay_days)
    exposure = weeks * 7
    why = f"{units} units at {units_per_day:g} a day: {exposure} days, then {waiting} days for the last outcomes."
    return RunTime(exposure + waiting, exposure, why)


def _least(reached: Callable[[float], float], effect: float, alpha: float, wanted: float) -> int:
    _check_power(wanted, alpha)
    if not (math.isfinite(effect) and effect != 0):
        raise ValueError(f"effect must be finite and not 0, got {effect}")
    low, high = 1.0, 2.0
    while reached(high) < wanted:
        low, high = high, high * 2
        if high > _MOST_UNITS:
            raise ValueError(f"more than {_MOST_UNITS:g} units: this comparison would never decide")
    while high - low > 0.5:
        middle = (low + high) / 2
        low, high = (low, middle) if reached(middle) >= wanted else (middle, high)
    units = math.floor(low)
    while reached(units) < wanted:
        units += 1
    return units


def _standard_error(sd_treatment: float, sd_control: float, units: float, ratio: float) -> float:
    usable = (0 <= sd_treatment < math.inf, 0 <= sd_control < math.inf, units > 0, 0 < ratio < math.inf)
    given = f"{sd_treatment=}, {sd_control=}, {units=}, {ratio=}"
    if not all(usable) or sd_treatment == sd_control == 0:
        raise ValueError(f"sd at least 0, not both 0, units and ratio positive: {given}")
    return math.sqrt(sd_treatment**2 / (units * ratio) + sd_control**2 / units)


def _check_power(wanted: float, alpha: float) -> None:
    if not alpha < wanted < 1:
        raise ValueError(f"power must be above alpha and below 1, got {wanted}")
