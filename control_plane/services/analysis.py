"""What a rollout's plan means for its records, and the evidence of one look. Loads and shapes; `domain` decides."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta

from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.adapters.store import closing, closing_sql, versions
from control_plane.adapters.store.closing import Statistics, Subject
from control_plane.adapters.store.closing_sql import Group, Measure, Truth
from control_plane.adapters.store.rollouts import Entry
from control_plane.domain.analysis import judge
from control_plane.domain.analysis import plan as plans
from control_plane.domain.analysis.comparison import Arm, Measurement
from control_plane.domain.analysis.judge import Analysis, Evidence
from control_plane.domain.analysis.plan import AnalysisPlan, Declared, Metric, Prices, Resolved, Source
from control_plane.domain.assignment import canary_slices
from control_plane.domain.experiments.samples import Mean
from control_plane.domain.experiments.srm import Stage
from control_plane.domain.model_config import ModelConfig, Problem
from control_plane.domain.rollouts import Plan
from control_plane.services import evidence


@dataclass(frozen=True, slots=True)
class Setup:
    """A rollout's analysis, resolved by the candidate's model.yaml."""

    plan: AnalysisPlan
    metrics: tuple[Resolved, ...]
    queries: tuple[Metric, ...]
    groups: tuple[Group, ...]
    subject: Subject


async def setup(session: AsyncSession, entry: Entry) -> Setup | None:
    """None: this rollout's steps wait for a hand."""
    plan = entry.rollout.plan.analysis
    if plan is None:
        return None
    row = await versions.version(session, entry.model, entry.candidate_version)
    config, _ = evidence.config(row)
    return prepare(entry, plan, config)


def prepare(entry: Entry, plan: AnalysisPlan, config: ModelConfig | None) -> Setup:
    said = declared(config)
    resolved = [plans.resolve(metric, said) for metric in plan.metrics]
    metrics = tuple(judge.compared(resolved))
    measures = [(_measure(metric, said), timedelta(seconds=metric.delay_s)) for metric in metrics]
    subject = Subject(
        entry.id,
        entry.model,
        timedelta(seconds=plan.observation_s),
        tuple(at for at, step in enumerate(entry.rollout.plan.steps) if step.weight <= judge.DECIDES),
        entry.rollout.crossed,
        _truth(config),
    )
    queries = tuple(metric.metric for metric in resolved if metric.metric.source is Source.PROMQL)
    return Setup(plan, metrics, queries, closing.groups(measures), subject)


async def paired(session: AsyncSession, entry: Entry, plan: AnalysisPlan) -> tuple[tuple[Resolved, ...], int]:
    """What a shadow is judged by, and from how many microseconds on an answer is slow."""
    config, _ = evidence.config(await versions.version(session, entry.model, entry.candidate_version))
    said = declared(config)
    metrics = tuple(plans.resolve(metric, said) for metric in plan.metrics)
    latency = next((m.metric for m in metrics if m.metric.source is Source.LATENCY), Metric("latency"))
    return metrics, round(plans.limit_ms(latency, said) * 1_000)


def declared(config: ModelConfig | None) -> Declared:
    """What model.yaml says that metrics depend on."""
    if config is None:
        return Declared(labelled=False)
    return Declared(
        config.outcomes,
        config.slo.p95_ms,
        config.label.delay_s,
        config.label.depends_on_decision,
        config.problem in {Problem.BINARY, Problem.MULTICLASS},
        _prices(config),
        config.problem is Problem.BINARY,
    )


def seen(setup: Setup, plan: Plan, step: int, found: Statistics) -> Evidence:
    """The folded part of one look's evidence."""
    deciding, late = set(setup.subject.deciding), {step} - set(setup.subject.deciding)
    names = [metric.name for metric in setup.metrics]
    return Evidence(
        decided={name: _pair(found, name, deciding) for name in names},
        late={name: _pair(found, name, late) for name in names} if late else {},
        stages=_stages(found, plan),
        fallback=_sum(found, closing_sql.FALLBACKS, set(range(len(plan.steps))), "candidate").values,
    )


def document(found: Analysis, looked: Evidence) -> dict[str, object]:
    """A look's evidence as it is kept and shown."""
    ratio = found.srm
    return {
        "measurements": [measured(measurement) for measurement in found.measurements],
        "srm": None if ratio is None else {"p": ratio.p, "mismatch": ratio.mismatch, "why": ratio.why},
        "live": {"requests": looked.live.requests, "bad": looked.live.bad},
        "exposed": sum(stage.counts[0] for stage in looked.stages),  # the first arm is the candidate's
        "idle_s": round(looked.idle_s, 1),
        "pause": found.pause or None,
    }


def query(metric: Metric, entry: Entry) -> str:
    """The PromQL of `metric` with this rollout's names in it."""
    filled = metric.query or ""
    names = {"model": entry.model, "candidate": entry.candidate_version, "stable": entry.stable_version or ""}
    for name, value in names.items():
        filled = filled.replace("{" + name + "}", value)
    return filled


def _measure(metric: Resolved, said: Declared) -> Measure:
    limit_us = round(plans.limit_ms(metric.metric, said) * 1_000)
    asked = metric.metric
    prices = said.prices if asked.source is Source.COST else None
    outcome, below = asked.outcome, None
    if asked.source is Source.RATIO:
        outcome = (asked.numerator or "").partition(":")[2]
        below = (asked.denominator or "").partition(":")[2] or None
    before = timedelta(seconds=asked.cuped_s) if asked.cuped_s is not None else None
    return Measure(metric.name, asked.source, limit_us, outcome, metric.yes_no, prices, below, before)


def _prices(config: ModelConfig) -> Prices | None:
    costs = config.costs
    if costs is None or config.problem is not Problem.BINARY:
        return None
    each = (costs.false_positive, costs.false_negative, costs.true_positive, costs.true_negative)
    return Prices(*each, own=costs.false_negative_column)


def _truth(config: ModelConfig | None) -> Truth:
    if config is None or config.problem is not Problem.BINARY:
        return Truth()
    positive = config.target.positive if config.target else None
    return Truth(
        binary=True,
        word=config.decision.positive,
        positive="1" if positive is None or isinstance(positive, bool) else str(positive),
        absent_is_negative=config.label.absence_means == "negative",
    )


def _stages(found: Statistics, plan: Plan) -> tuple[Stage, ...]:
    """Units by arm of first exposure, per step: what the sample ratio is checked on."""
    made: list[Stage] = []
    for at, step in enumerate(plan.steps):
        arms = canary_slices(step.weight)
        counts = tuple(found.get((closing_sql.UNITS, at, arm.key), Arm()).values.count for arm in arms)
        if sum(counts):
            made.append(Stage(counts, tuple(float(arm.weight) for arm in arms)))
    return tuple(made)


def _pair(found: Statistics, name: str, steps: set[int]) -> tuple[Arm, Arm]:
    return _sum(found, name, steps, "candidate"), _sum(found, name, steps, "baseline")


def _sum(found: Statistics, name: str, steps: set[int], variant: str) -> Arm:
    total = Arm()
    for (metric, step, arm), value in sorted(found.items()):
        if metric == name and arm == variant and step in steps:
            total += value
    return total


def measured(measurement: Measurement) -> dict[str, object]:
    """One metric of a look, as it is kept and shown."""
    effect = measurement.effect
    return {
        "metric": measurement.metric,
        "role": measurement.role.value,
        "verdict": measurement.verdict.value,
        "comparison": measurement.comparison.value,
        "why": measurement.why,
        "effect": judge.finite(effect.effect) if effect else None,
        "low": judge.finite(effect.low) if effect else None,
        "high": judge.finite(effect.high) if effect else None,
        "method": measurement.method,
        "candidate": _arm(measurement.candidate),
        "baseline": _arm(measurement.baseline),
        "failed": measurement.failed,
    }


def _arm(values: Mean) -> Mapping[str, object]:
    return {"units": values.count, "mean": values.mean if values.count else None}
