"""Promotion: load what is known, let the domain decide, write what should be true from now on."""

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.adapters.store import audit, deployments, versions, wake
from control_plane.adapters.store import rollouts as store
from control_plane.adapters.store.rollouts import Entry
from control_plane.adapters.store.tables import ModelRow, ModelVersionRow
from control_plane.contracts.base import PER_PERCENT
from control_plane.contracts.policies import Template
from control_plane.contracts.rollouts import PlanView, PromoteSpec, StageChangeView
from control_plane.domain import stages
from control_plane.domain.analysis import forecast
from control_plane.domain.model_config import ModelConfig
from control_plane.domain.replay.gate import ReplayGate
from control_plane.domain.rollouts import Plan, Rollout, Strategy
from control_plane.domain.stages import Decision, OpenRollout, Stage
from control_plane.errors import GatesNotMet, InvalidInput, NotFound, RolloutOpen
from control_plane.services import cutover, evidence, planning, replays, targeting
from control_plane.services.cutover import NO_REASON, Cause
from control_plane.services.evidence import Defaults
from control_plane.settings import Releases


@dataclass(frozen=True, slots=True)
class Policy:
    """What the platform decides for every model."""

    defaults: Defaults = field(default_factory=Defaults)
    warm: timedelta = timedelta(minutes=10)  # how long a version that lost its traffic stays warm after the bake
    prometheus: bool = False  # whether analyses may name a query
    governance: Template = "dev"  # what needs an approval, until a policy is applied
    hold_out: int = 0  # buckets of units that never get a candidate


def platform(settings: Releases) -> Policy:
    """The same in every process, whoever asks."""
    defaults = Defaults(settings.auto_promote_threshold, settings.performance_degradation_threshold)
    warm, prometheus = timedelta(seconds=settings.warm_s), settings.prometheus_url is not None
    return Policy(defaults, warm, prometheus, settings.policy, round(settings.hold_out_percent * PER_PERCENT))


async def to_production(
    session: AsyncSession, name: str, spec: PromoteSpec, *, policy: Policy, cause: Cause, now: datetime
) -> Entry:
    """Open a rollout of the version named, or of the newest eligible one.

    Raises:
        GatesNotMet: with every reason; RolloutOpen instead when an open rollout is all there is in the way.
        InvalidInput: a plan that cannot be honoured, or would not decide in time; the gates' reasons are added.
    """
    model, row, plan = await ready(session, name, spec, policy=policy, now=now)
    assert row.digest is not None  # a gate
    reason = spec.reason or NO_REASON
    entry = await store.add(
        session,
        Rollout(plan, now, reason=reason),
        model=name,
        kind="promotion",
        candidate=row.version,
        stable=model.production_version,
        created_by=cause.actor.person,
        now=now,
    )
    await deployments.ensure(session, name, row.version, row.digest, now=now, retry=True)
    await wake.notify(session, f"promote {name}")
    await _tell(session, "model.promote", row, cause, before=None, after=cutover.told(entry), reason=reason)
    return entry


async def ready(
    session: AsyncSession, name: str, spec: PromoteSpec, *, policy: Policy, now: datetime
) -> tuple[ModelRow, ModelVersionRow, Plan]:
    """The model, locked, the version chosen and the whole plan, if a promotion could begin now; raises as it would."""
    model = await versions.model(session, name, lock=True)
    row, decision = await _chosen(session, model, spec, policy.defaults, now=now)
    config = evidence.config(row)[0]
    plan, wrong = await _planned(session, model, spec, config, policy)
    expected = await _expected(session, name, plan, config, policy, now=now)
    if expected is not None and plan.analysis and (why := forecast.refusal(expected, plan.analysis)):
        wrong = (*wrong, why)
    if wrong:
        reasons = [*wrong, *decision.reasons]
        detail = wrong[0] if len(reasons) == 1 else "This plan cannot be carried out."
        raise InvalidInput(detail, model=name, version=row.version, reasons=reasons)
    if not decision.allowed:
        raise await _refusal(session, row, decision)
    return model, row, plan


async def stageable(session: AsyncSession, name: str, to: Stage, spec: PromoteSpec) -> ModelVersionRow:
    """The version a move to `to` is about, the model locked; raises as `to_stage` does."""
    if spec.strategy or spec.steps or spec.bake_s is not None or spec.analysis or spec.targeting:
        raise InvalidInput(f"A move to {to} takes no strategy, steps, bake_s, analysis or targeting: no traffic moves.")
    await versions.model(session, name, lock=True)
    row = await _named_or_newest(session, name, spec.version, to)
    decision = stages.decide_stage(evidence.candidate(row), to, rollout=await _open(session, name))
    if not decision.allowed:
        raise await _refusal(session, row, decision)
    return row


async def preview(session: AsyncSession, name: str, spec: PromoteSpec, *, policy: Policy, now: datetime) -> PlanView:
    """What `to_production` would do, and everything that is in its way. Nothing is written."""
    model = await versions.model(session, name)
    row, decision = await _chosen(session, model, spec, policy.defaults, now=now)
    config = evidence.config(row)[0]
    plan, wrong = await _planned(session, model, spec, config, policy)
    expected = await _expected(session, name, plan, config, policy, now=now)
    reasons = [*wrong, *decision.reasons]
    if expected is not None and plan.analysis and (why := forecast.refusal(expected, plan.analysis)):
        reasons.append(why)
    entry = await store.open_of(session, name)
    now_open = None if entry is None else (entry.candidate_version, entry.rollout.plan)
    return planning.shown(model.name, row.version, model.production_version, plan, reasons, expected, now_open)


async def to_stage(
    session: AsyncSession, name: str, to: Stage, spec: PromoteSpec, *, cause: Cause, now: datetime
) -> StageChangeView:
    """Move a version to a stage where it answers nobody. In Staging its servers run, for pinned requests and replay."""
    row = await stageable(session, name, to, spec)
    came_from, reason = Stage(row.stage), spec.reason or NO_REASON
    await versions.set_stage(session, row, to, actor=cause.actor.person, reason=reason, at=now)
    if to is Stage.STAGING and row.digest is not None:
        await deployments.ensure(session, name, row.version, row.digest, now=now, retry=True)
    await versions.touch(session, name)
    await wake.notify(session, f"stage {name}")
    before, after = ({"version": row.version, "stage": stage} for stage in (came_from, to))
    await _tell(session, "version.stage", row, cause, before=before, after=after, reason=reason)
    return StageChangeView(model=name, version=row.version, from_stage=came_from, to_stage=to, at=now, reason=reason)


async def decide(
    session: AsyncSession,
    model: ModelRow,
    row: ModelVersionRow,
    defaults: Defaults,
    *,
    alone: bool = False,
    replay: ReplayGate | None = None,
    now: datetime | None = None,
) -> Decision:
    """What a promotion of `row` to Production would be answered now. `alone`: whatever rollout is open; `replay`: what
    a replay has to show, instead of model.yaml's gate."""
    production = model.production_version
    incumbent, replayed = None, tuple[str, ...]()
    if production is not None and production != row.version:
        before = await versions.version(session, model.name, production)
        incumbent = evidence.incumbent(before, row)
        replayed = await replays.reasons(session, row, before, replay, now=now or datetime.now(UTC))
    decision = stages.decide_promotion(
        evidence.candidate(row),
        evidence.gates(row, defaults),
        incumbent=incumbent,
        rollout=None if alone else await _open(session, model.name),
    )
    return Decision((*decision.reasons, *replayed))


async def _planned(
    session: AsyncSession, model: ModelRow, spec: PromoteSpec, config: ModelConfig | None, policy: Policy
) -> tuple[Plan, tuple[str, ...]]:
    """The plan, with every reason against it, other open rollouts' slices included."""
    first = model.production_version is None
    spec = await targeting.hashed(session, model.name, spec)
    plan, wrong = planning.plan(spec, config, first=first, prometheus=policy.prometheus, salt=model.salt)
    return plan, (*wrong, *await targeting.conflicts(session, model.name, plan))


async def _expected(
    session: AsyncSession, name: str, plan: Plan, config: ModelConfig | None, policy: Policy, *, now: datetime
) -> forecast.Forecast | None:
    return await planning.expected(
        session, name, plan, config, prometheus=policy.prometheus, hold_out=policy.hold_out, now=now
    )


async def _chosen(
    session: AsyncSession, model: ModelRow, spec: PromoteSpec, defaults: Defaults, *, now: datetime
) -> tuple[ModelVersionRow, Decision]:
    """The version named; else the newest one after Production that passes; else the newest, to tell why not."""

    async def decided(row: ModelVersionRow) -> Decision:
        strategy = planning.strategy_of(spec, evidence.config(row)[0], first=model.production_version is None)
        if strategy is Strategy.SHADOW:
            return await _shadow(session, model, row)
        return await decide(session, model, row, defaults, replay=spec.replay, now=now)

    if spec.version is not None:
        row = await versions.version(session, model.name, spec.version)
        return row, await decided(row)
    floor = int(model.production_version or 0)
    rows = [row for row in await versions.versions(session, model.name) if int(row.version) > floor]
    tried = [(row, await decided(row)) for row in rows if row.deleted_at is None]
    if not tried:
        newer = f" newer than Production version {floor}" if floor else ""
        raise NotFound(f"Model {model.name} has no version{newer} to promote.", model=model.name)
    return next((pair for pair in tried if pair[1].allowed), tried[0])


async def _shadow(session: AsyncSession, model: ModelRow, row: ModelVersionRow) -> Decision:
    incumbent = None
    if model.production_version is not None:
        incumbent = evidence.incumbent(await versions.version(session, model.name, model.production_version), row)
    return stages.decide_shadow(evidence.candidate(row), incumbent=incumbent, rollout=await _open(session, model.name))


async def _named_or_newest(session: AsyncSession, name: str, named: str | None, to: Stage) -> ModelVersionRow:
    if named is not None:
        return await versions.version(session, name, named)
    for row in await versions.versions(session, name):
        if row.deleted_at is None and to in stages.BY_HAND[Stage(row.stage)]:
            return row
    raise NotFound(f"Model {name} has no version that could move to {to}.", model=name)


async def _open(session: AsyncSession, name: str) -> OpenRollout | None:
    entry = await store.open_of(session, name)
    return None if entry is None else OpenRollout(str(entry.id), entry.candidate_version, entry.rollout.phase)


async def _refusal(session: AsyncSession, row: ModelVersionRow, decision: Decision) -> GatesNotMet | RolloutOpen:
    facts = {"model": row.model, "version": row.version, "reasons": list(decision.reasons)}
    if len(decision.reasons) == 1 and decision.reasons[0].startswith("rollout:"):
        return RolloutOpen(f"Version {row.version} of {row.model} has to wait.", **facts)
    count = len(decision.reasons)
    gates = "one gate" if count == 1 else f"{count} gates"
    return GatesNotMet(f"Version {row.version} of {row.model} does not pass {gates}.", **facts)


async def _tell(
    session: AsyncSession,
    action: str,
    row: ModelVersionRow,
    cause: Cause,
    *,
    before: object,
    after: object,
    reason: str,
) -> None:
    shown = {"digest": row.digest, "metric": row.evidence.get("metric"), "data": row.evidence.get("data")}
    await audit.append(
        session,
        action,
        actor=cause.actor,
        object=f"model:{row.model}",
        trigger=cause.trigger,
        request_id=cause.request_id,
        before=before,
        after=after,
        reasons=[reason],
        evidence=shown,
        approver=cause.approver,
    )
