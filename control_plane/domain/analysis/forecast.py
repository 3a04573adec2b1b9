"""How long a plan would take to decide at the traffic seen, before it starts. Pure; an estimate, never a verdict.

Each metric needs so many closed customers per arm that an always-valid interval excludes its margin with probability
0.8 if there is no difference at all (`experiments.power`), and at least what the exact intervals need without any
event. Steps are walked through in order: guardrails have to be decided in the first, the goal in the last that
compares.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from control_plane.domain.analysis import comparison, judge
from control_plane.domain.analysis.plan import AnalysisPlan, Resolved, Role
from control_plane.domain.assignment import BUCKETS
from control_plane.domain.experiments import power
from control_plane.domain.rollouts import Plan

POWER = 0.8
_LEAST_SHARE = 0.002  # a share never seen is taken as this: nobody plans on it being exactly 0
_ASSUMED_SHARE = 0.05  # of a metric nobody has seen
_EXACT = 8.0  # log of the evidence an exact interval needs, about; divided by the margin: customers without events
_DAY_S = 86_400.0


@dataclass(frozen=True, slots=True)
class Usual:
    """A metric as it is without the candidate: per customer, in its unit."""

    mean: float
    sd: float


@dataclass(frozen=True, slots=True)
class Traffic:
    """What was seen of the model. `units_per_day`: distinct customers; 0: none, so nothing can be told."""

    units_per_day: float = 0.0
    usual: Mapping[str, Usual] = field(default_factory=dict[str, Usual])


@dataclass(frozen=True, slots=True)
class Need:
    """Closed customers per arm that `metric` needs. None: nothing is known of how it varies."""

    metric: str
    units: int | None


@dataclass(frozen=True, slots=True)
class Forecast:
    """`seconds` None: it cannot be told (no traffic seen, or a metric nobody knows). `why`: in a sentence."""

    seconds: float | None
    needs: tuple[Need, ...]
    units_per_day: float
    why: str


def forecast(plan: Plan, analysis: AnalysisPlan, metrics: Sequence[Resolved], seen: Traffic) -> Forecast:
    alpha = judge.share_of_alpha(plan, analysis)
    decides = [metric for metric in metrics if metric.metric.role is not Role.REPORT]
    needs = tuple(Need(m.name, _units(m, seen.usual.get(m.name), alpha)) for m in decides)
    rate = seen.units_per_day / _DAY_S
    told = ", ".join(f"{n.metric} {n.units:,} customers per arm" for n in needs if n.units is not None)
    if rate <= 0:
        why = f"No customer was seen in the last day: it cannot be told how long this takes. It needs {told}."
        return Forecast(None, needs, 0.0, why)
    units = {need.metric: need.units for need in needs}
    unknown = [need.metric for need in needs if need.units is None]
    if unknown:
        why = f"Nothing is known of {', '.join(unknown)}: it cannot be told how long this takes."
        return Forecast(None, needs, seen.units_per_day, why)
    guards = max((units[m.name] or 0 for m in decides if m.metric.role is Role.GUARDRAIL), default=0)
    goals = max((units[m.name] or 0 for m in decides if m.metric.role is Role.GOAL), default=0)
    last = judge.last_deciding(plan)
    seconds = have = 0.0
    for at, step in enumerate(plan.steps):
        takes = step.hold.total_seconds()
        if 0 < step.weight <= judge.DECIDES:
            needed = max(guards, goals if at == last else 0)
            per_s = rate * step.weight / BUCKETS
            takes = max(takes, (needed - have) / per_s)
            have += takes * per_s
        seconds += takes
    waits = analysis.observation_s + max((m.delay_s for m in decides), default=0.0)
    seconds += waits + plan.bake.total_seconds()
    why = f"About {_words(seconds)} at {seen.units_per_day:,.0f} customers a day: it needs {told}."
    return Forecast(seconds, needs, seen.units_per_day, why)


def refusal(found: Forecast, analysis: AnalysisPlan) -> str | None:
    """Why such a plan is not begun; None if it may be. What cannot be told is no reason."""
    if found.seconds is None or found.seconds <= analysis.decide_within_s:
        return None
    return (
        f"plan: it would not decide within {_words(analysis.decide_within_s)}. {found.why} Give the first step more "
        "weight, accept larger margins, or raise analysis.decide_within_s."
    )


def _units(metric: Resolved, usual: Usual | None, alpha: float) -> int | None:
    alpha *= 1 - comparison.exact_share(metric)
    share = (metric.low, metric.high) == (0.0, 1.0)
    if usual is None and not share:
        return None
    mean, sd = (usual.mean, usual.sd) if usual else (_ASSUMED_SHARE, 0.0)
    if share:
        p = min(max(mean, _LEAST_SHARE), 1 - _LEAST_SHARE)
        sd = min(sd, power.share_sd(p)) if usual and sd > 0 else power.share_sd(p)
        sd = max(sd, power.share_sd(_LEAST_SHARE))
    if sd <= 0 or metric.margin <= 0:
        return None
    needed = power.always_valid_units_needed(
        metric.margin, sd_treatment=sd, sd_control=sd, ratio=1.0, alpha=alpha, power_wanted=POWER
    )
    return max(needed, math.ceil(_EXACT / metric.margin)) if share else needed


def _words(seconds: float) -> str:
    for length, unit in ((_DAY_S, "days"), (3_600.0, "hours"), (60.0, "minutes")):
        if seconds >= 2 * length:
            return f"{seconds / length:,.0f} {unit}"
    return f"{seconds:,.0f} seconds"
