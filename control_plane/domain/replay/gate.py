"""Whether a replay allows a promotion. Pure; declared in model.yaml or in the request."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import ClassVar

from control_plane.domain.replay.report import Change, Report


@dataclass(frozen=True, slots=True)
class ReplayGate:
    """What a replay against Production has to show; None: that is not asked.

    `since_days`: the traffic it has to cover, at least `min_rows` of it. `max_age_days`: how old its end may be.
    `max_flip_rate`: decisions that differ (0..1); the upper end of the interval counts. `max_score_shift`: PSI.
    `metric`: model.yaml's metric, or the one named, may be worse by `metric_margin` (in its unit) with 95 % certainty.
    `max_refused`: rows the candidate refuses; `max_skew`: rows where the serving version no longer says what it said.
    """

    __pydantic_config__: ClassVar[dict[str, object]] = {"extra": "forbid", "allow_inf_nan": False}

    since_days: float = 7.0
    min_rows: int = 1_000
    max_age_days: float = 7.0
    max_flip_rate: float | None = None
    max_score_shift: float | None = None
    metric: str | None = None
    metric_margin: float | None = None
    max_refused: float | None = 0.001
    max_skew: float | None = 0.001


def problems(gate: ReplayGate) -> list[str]:
    """What types cannot say that is wrong with it, a sentence each."""
    found: list[str] = []
    for name in ("max_flip_rate", "max_refused", "max_skew"):
        value: float | None = getattr(gate, name)
        if value is not None and not 0 <= value <= 1:
            found.append(f"{name}: a share of rows, within 0..1")
    for name in ("since_days", "max_age_days", "max_score_shift", "metric_margin"):
        value = getattr(gate, name)
        if value is not None and value < 0:
            found.append(f"{name}: at least 0")
    if gate.min_rows < 1:
        found.append("min_rows: at least 1")
    if gate.metric is not None and gate.metric_margin is None:
        found.append("metric_margin: how much worse the metric may be")
    return found


def covers(gate: ReplayGate, since: datetime, until: datetime, *, now: datetime) -> bool:
    """Whether a replay of this window answers the gate now. Ten minutes of slack: nobody asks at the same second."""
    slack = timedelta(minutes=10)
    fresh = until >= now - timedelta(days=gate.max_age_days) - slack
    return fresh and until - since >= timedelta(days=gate.since_days) - slack


def reasons(gate: ReplayGate, found: Report, *, metric: str | None) -> tuple[str, ...]:
    """Everything that stands against a promotion, a sentence each; what was not measured does. `metric`: model.yaml's
    own, where the gate names none."""
    made: list[str] = []
    if found.rows < gate.min_rows:
        made.append(f"{found.rows:,} rows were compared, {gate.min_rows:,} are asked for (INCONCLUSIVE).")
    if gate.max_skew is not None:
        checked = found.consistency
        if not checked.rows:
            made.append(f"version {found.baseline} answered none of the rows then: it is not checked (INCONCLUSIVE).")
        elif checked.share > gate.max_skew:
            told = f"{checked.differ:,} of {checked.rows:,} rows"
            made.append(f"version {found.baseline} does not say again what it said in {told}: skew.")
    refused = found.refused.get("candidate", 0)
    asked = found.rows + refused
    if gate.max_refused is not None and refused > gate.max_refused * asked:
        made.append(f"the candidate refuses {refused:,} of {asked:,} rows, more than {gate.max_refused:.2%}.")
    if gate.max_flip_rate is not None:
        made += _flips(gate.max_flip_rate, found)
    if gate.max_score_shift is not None:
        if found.shift is None:
            made.append("the versions' answers have no scores to compare (INCONCLUSIVE).")
        elif found.shift.psi > gate.max_score_shift:
            made.append(f"the scores shift by PSI {found.shift.psi:.3f}, more than {gate.max_score_shift:.3f}.")
    if gate.metric_margin is not None:
        made += _metric(gate.metric or metric, gate.metric_margin, found)
    return tuple(f"replay: {reason}" for reason in made)


def _flips(limit: float, found: Report) -> list[str]:
    if found.flips is None:
        return ["the versions decide nothing that could be compared (INCONCLUSIVE)."]
    rate = found.flips.rate
    high = rate.value if rate.high is None else rate.high
    if rate.value > limit:
        return [f"{rate.value:.2%} of the decisions differ, more than {limit:.2%}."]
    if rate.high is None or high > limit:
        return [f"up to {high:.2%} of the decisions may differ, more than {limit:.2%} (INCONCLUSIVE)."]
    return []


def _metric(name: str | None, margin: float, found: Report) -> list[str]:
    change = next((one for one in found.metrics if one.name == name), None)
    if change is None:
        return [f"{name or 'the metric'} was not measured: {found.labels.labelled:,} labelled rows (INCONCLUSIVE)."]
    ends = _ends(change)
    if ends is None:
        return [f"{change.name}: {change.why or 'how sure it is cannot be told'} (INCONCLUSIVE)."]
    worst, best = ends
    if best < -margin:
        return [f"{change.name} is worse by more than {margin:g}: {_told(change)}."]
    if worst < -margin:
        return [f"{change.name} may be worse by more than {margin:g}: {_told(change)} (INCONCLUSIVE)."]
    return []


def _ends(change: Change) -> tuple[float, float] | None:
    """Worst and best the change may be, with more being better."""
    interval = change.difference
    if interval is None or interval.low is None or interval.high is None:
        return None
    return (interval.low, interval.high) if change.higher_is_better else (-interval.high, -interval.low)


def _told(change: Change) -> str:
    interval = change.difference
    assert interval is not None
    assert interval.low is not None
    assert interval.high is not None
    return f"[{interval.low:+.4f}, {interval.high:+.4f}]"
