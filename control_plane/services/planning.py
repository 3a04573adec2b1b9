"""A rollout's plan: what is asked for, completed from model.yaml, with everything that is wrong with it."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from hashlib import sha256

from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.adapters.store import analysis as store
from control_plane.contracts.base import PER_PERCENT
from control_plane.contracts.rollouts import Change, ForecastView, NeedView, PlanView, PromoteSpec, StepView
from control_plane.domain.analysis import forecast, judge
from control_plane.domain.analysis import plan as plans
from control_plane.domain.analysis.forecast import Forecast, Traffic
from control_plane.domain.analysis.plan import AnalysisPlan, Metric, Role, Source
from control_plane.domain.assignment import BUCKETS
from control_plane.domain.model_config import ModelConfig
from control_plane.domain.rollouts import Plan, Step, Strategy
from control_plane.domain.targeting import Targeting, taking_part
from control_plane.services import analysis, targeting

_RAMP = ((5.0, 300.0), (25.0, 300.0), (50.0, 300.0))  # percent, seconds: a canary whose model.yaml names no steps
_AB_TEST = ((50.0, 3_600.0),)
_SHARES = frozenset({Strategy.CANARY, Strategy.AB_TEST, Strategy.SHADOW})
_COMPARES = frozenset({Strategy.CANARY, Strategy.AB_TEST, Strategy.SHADOW})
Wrong = tuple[str, ...]


def plan(
    spec: PromoteSpec, config: ModelConfig | None, *, first: bool, prometheus: bool, salt: str = ""
) -> tuple[Plan, Wrong]:
    """The plan and every reason it cannot be carried out for. A model's first version has nobody to share traffic with
    or to go back to: unless the request says otherwise it goes live at once. `salt`: the model's."""
    declared = config.rollout if config else None
    strategy = strategy_of(spec, config, first=first)
    wrong: list[str] = []
    if strategy in _SHARES and first:
        wrong.append(f"There is no Production version a {strategy} could be compared with; use immediate.")
    if spec.steps and strategy not in _SHARES:
        wrong.append(f"The strategy {strategy} has no steps; use canary or ab_test.")
    if spec.bake_s and strategy in {Strategy.IMMEDIATE, Strategy.SHADOW}:
        wrong.append(f"The strategy {strategy} has no bake period; use blue_green.")
    if spec.analysis and strategy not in _COMPARES:
        wrong.append(
            f"The strategy {strategy} compares nothing, so it takes no analysis; use canary, ab_test or shadow."
        )
    if spec.targeting and strategy not in _COMPARES:
        wrong.append(f"The strategy {strategy} divides no customers, so it takes no targeting; use canary or ab_test.")
    if spec.analysis and spec.by_hand:
        wrong.append("analysis and by_hand: a plan is decided by one of them.")
    if spec.by_hand and strategy is Strategy.IMMEDIATE:
        wrong.append("by_hand: the strategy immediate has nothing that could wait for a hand; use blue_green.")
    bake = timedelta(0)
    if strategy not in {Strategy.IMMEDIATE, Strategy.SHADOW}:
        bake_s = spec.bake_s if spec.bake_s is not None else declared.bake_s if declared else 0.0
        bake = timedelta(seconds=bake_s)
    limit = spec.failure_limit if spec.failure_limit is not None else declared.failure_limit if declared else 0
    if strategy not in _SHARES:
        preview = (Step(0, timedelta(0)),) if spec.by_hand else ()  # ready and pinnable, and customers get none of it
        return Plan(strategy, preview, bake=bake, failure_limit=limit), tuple(wrong)
    asked = tuple((step.weight, step.hold_s) for step in spec.steps or ())
    if not asked and declared and declared.strategy == strategy:
        asked = tuple((step.weight, step.hold_s) for step in declared.steps)
    asked = asked or (_RAMP if strategy is Strategy.CANARY else _AB_TEST)
    steps = tuple(Step(round(weight * PER_PERCENT), timedelta(seconds=hold)) for weight, hold in asked)
    if strategy is Strategy.SHADOW:  # its weight is the share that is copied; customers get none of it
        hold = sum((step.hold for step in steps), timedelta(0))
        weight = steps[0].weight if spec.steps else BUCKETS
        kept = declared.analysis if declared and declared.strategy == "shadow" else None
        chosen = None if spec.by_hand else spec.analysis or kept or plans.SHADOW
        if chosen is not None:
            wrong += plans.problems(chosen, analysis.declared(config), strategy=strategy, prometheus=prometheus)
        return Plan(strategy, (Step(0, hold),), shadow_weight=weight, analysis=chosen), tuple(wrong)
    chosen = None if spec.by_hand else spec.analysis or (declared.analysis if declared else None) or AnalysisPlan()
    made = Plan(strategy, steps, bake, limit, analysis=chosen, targeting=targeting.targeting(spec.targeting, salt))
    wrong += _targeted(made)
    if chosen is not None:
        wrong += _ramp(made)
        said = analysis.declared(config)
        wrong += plans.problems(chosen, said, strategy=strategy, prometheus=prometheus)
    return made, tuple(wrong)


def strategy_of(spec: PromoteSpec, config: ModelConfig | None, *, first: bool) -> Strategy:
    """What the request says, else model.yaml, else the usual."""
    strategy = spec.strategy or (Strategy(config.rollout.strategy) if config and not first else None)
    return strategy or (Strategy.IMMEDIATE if first and not spec.bake_s else Strategy.BLUE_GREEN)


async def expected(
    session: AsyncSession,
    model: str,
    made: Plan,
    config: ModelConfig | None,
    *,
    prometheus: bool,
    hold_out: int = 0,
    now: datetime,
) -> Forecast | None:
    """How long it would take at the traffic of the last day, as far as the plan's metrics can be used: what is wrong
    with others is no reason to be silent about these. None: nothing is decided by evidence."""
    if made.analysis is None or made.strategy is Strategy.SHADOW:  # a shadow's pairs are no arms
        return None
    if not plans.has_alpha(made.analysis):
        return None
    said = analysis.declared(config)
    usable = [metric for metric in made.analysis.metrics if not plans.wrong(metric, said, prometheus=prometheus)]
    metrics = judge.compared([plans.resolve(metric, said) for metric in usable])
    if not any(metric.metric.role is not Role.REPORT for metric in metrics):
        return None
    latency = next((m.metric for m in metrics if m.metric.source is Source.LATENCY), Metric("latency"))
    outcomes = [m.metric.outcome for m in metrics if m.metric.source is Source.OUTCOME]
    limit_us = round(plans.limit_ms(latency, said) * 1_000)
    rate, usual = await store.usual(session, model, limit_us=limit_us, outcomes=outcomes, now=now)
    rate *= taking_part(made.targeting, hold_out)
    return forecast.forecast(made, made.analysis, metrics, Traffic(rate, usual))


def shown(
    model: str,
    candidate: str,
    stable: str | None,
    made: Plan,
    reasons: Sequence[str],
    found: Forecast | None,
    now_open: tuple[str, Plan] | None,
) -> PlanView:
    was = _told(now_open[0], now_open[1]) if now_open else {}
    to = _told(candidate, made)
    changes = [
        Change(field=name, before=was.get(name), after=to.get(name))
        for name in sorted(was.keys() | to.keys())
        if was.get(name) != to.get(name)
    ]
    return PlanView(
        model=model,
        candidate_version=candidate,
        stable_version=stable,
        strategy=made.strategy,
        steps=steps(made),
        bake_s=made.bake.total_seconds(),
        failure_limit=made.failure_limit,
        analysis=made.analysis,
        targeting=targeting.view(made.targeting),
        reasons=list(reasons),
        forecast=None if found is None else _forecast(found),
        open=now_open is not None,
        changes=changes,
    )


def steps(made: Plan) -> list[StepView]:
    return [StepView(weight=step.weight / PER_PERCENT, hold_s=step.hold.total_seconds()) for step in made.steps]


def _told(candidate: str, made: Plan) -> dict[str, str]:
    """Candidate and plan, a line each, to compare two of them."""
    said = {"candidate": candidate, "strategy": made.strategy.value, "bake_s": f"{made.bake.total_seconds():g}"}
    said["failure_limit"] = str(made.failure_limit)
    for at, step in enumerate(steps(made)):
        said[f"steps.{at}"] = f"{step.weight:g} % for at least {step.hold_s:g} s"
    if made.targeting is not None:
        said |= _aimed(made.targeting)
    if made.analysis is None:
        return said
    for metric in made.analysis.metrics:
        margin = "" if metric.margin is None else f", margin {metric.margin:g}"
        said[f"analysis.metrics.{metric.name}"] = f"{metric.role}{margin}"
    for name in ("alpha", "observation_s", "interval_s", "max_contamination", "fallback_limit", "no_traffic_s"):
        said[f"analysis.{name}"] = f"{getattr(made.analysis, name):g}"
    said["analysis.on_equal"] = made.analysis.on_equal
    return said


def _aimed(found: Targeting) -> dict[str, str]:
    said = {
        f"targeting.{name}": f"{len(units)} units, {sha256(' '.join(units).encode()).hexdigest()[:8]}"
        for name, units in (("allow", found.allow), ("exclude", found.exclude))
        if units
    }
    if found.layer is not None:
        first, last = found.layer.first / PER_PERCENT, found.layer.last / PER_PERCENT
        said["targeting.layer"] = f"{found.layer.name}, {first:g} to {last:g} %"
    return said


def _targeted(made: Plan) -> list[str]:
    found = made.targeting
    both = set(found.allow) & set(found.exclude) if found else set[str]()
    return [f"targeting: {len(both)} units are both allowed and excluded."] if both else []


def _forecast(found: Forecast) -> ForecastView:
    needs = [NeedView(metric=need.metric, units_per_arm=need.units) for need in found.needs]
    return ForecastView(seconds=found.seconds, units_per_day=found.units_per_day, needs=needs, why=found.why)


def _ramp(made: Plan) -> list[str]:
    weights = [step.weight for step in made.steps]
    found: list[str] = []
    allows = made.targeting is not None and bool(made.targeting.allow) and made.strategy is Strategy.CANARY
    if min(weights[1:] if allows else weights, default=0) <= 0:
        found.append(
            "steps: every weight is above 0 (but a canary's first, for an allow-list): it is compared by that."
        )
    if weights != sorted(weights):
        found.append("steps: weights never fall; a ramp takes no customer away from the candidate.")
    if judge.last_deciding(made) < 0:
        found.append("steps: at least one weight is at most 50: only there two slices of one size are compared.")
    if made.strategy is Strategy.AB_TEST and (len(set(weights)) > 1 or weights[0] > judge.DECIDES):
        found.append("steps: an ab_test keeps one weight of at most 50 until it is decided; use canary for a ramp.")
    return found
