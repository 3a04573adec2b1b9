"""Promotion: load what is known, let the domain decide, write what should be true from now on."""

from dataclasses import dataclass, field
from datetime import datetime, timedelta

from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.adapters.store import audit, deployments, versions, wake
from control_plane.adapters.store import rollouts as store
from control_plane.adapters.store.rollouts import Entry
from control_plane.adapters.store.tables import ModelRow, ModelVersionRow
from control_plane.contracts.base import PER_PERCENT
from control_plane.contracts.rollouts import PromoteSpec, StageChangeView
from control_plane.domain import stages
from control_plane.domain.assignment import BUCKETS
from control_plane.domain.model_config import ModelConfig
from control_plane.domain.rollouts import Plan, Rollout, Step, Strategy
from control_plane.domain.stages import Decision, OpenRollout, Stage
from control_plane.errors import GatesNotMet, InvalidInput, NotFound, RolloutOpen
from control_plane.services import cutover, evidence
from control_plane.services.cutover import Cause
from control_plane.services.evidence import Defaults

NO_REASON = "No reason was given."
_RAMP = ((5.0, 300.0), (25.0, 300.0), (50.0, 300.0))  # percent, seconds: a canary whose model.yaml names no steps
_AB_TEST = ((50.0, 3_600.0),)


@dataclass(frozen=True, slots=True)
class Policy:
    """What the platform decides for every model."""

    defaults: Defaults = field(default_factory=Defaults)
    warm: timedelta = timedelta(minutes=10)  # how long a version that lost its traffic stays warm after the bake


async def to_production(
    session: AsyncSession, name: str, spec: PromoteSpec, *, policy: Policy, cause: Cause, now: datetime
) -> Entry:
    """Open a rollout of the version named, or of the newest eligible one.

    Raises:
        GatesNotMet: with every reason; RolloutOpen instead when an open rollout is all there is in the way.
        InvalidInput: a plan that cannot be honoured.
    """
    model = await versions.model(session, name, lock=True)
    row, decision = await _chosen(session, model, spec.version, policy.defaults)
    plan = _plan(spec, evidence.config(row)[0], first=model.production_version is None)
    if not decision.allowed:
        raise await _refusal(session, row, decision)
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


async def to_stage(
    session: AsyncSession, name: str, to: Stage, spec: PromoteSpec, *, cause: Cause, now: datetime
) -> StageChangeView:
    """Move a version to a stage where it answers nobody. In Staging its servers run, for pinned requests and replay."""
    if spec.strategy or spec.steps or spec.bake_s is not None:
        raise InvalidInput(f"A move to {to} takes no strategy, steps or bake_s: no traffic moves.")
    await versions.model(session, name, lock=True)
    row = await _named_or_newest(session, name, spec.version, to)
    decision = stages.decide_stage(evidence.candidate(row), to, rollout=await _open(session, name))
    if not decision.allowed:
        raise await _refusal(session, row, decision)
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
    session: AsyncSession, model: ModelRow, row: ModelVersionRow, defaults: Defaults, *, alone: bool = False
) -> Decision:
    """What a promotion of `row` to Production would be answered now. `alone`: whatever rollout is open."""
    production = model.production_version
    incumbent = None
    if production is not None and production != row.version:
        incumbent = evidence.incumbent(await versions.version(session, model.name, production), row)
    return stages.decide_promotion(
        evidence.candidate(row),
        evidence.gates(row, defaults),
        incumbent=incumbent,
        rollout=None if alone else await _open(session, model.name),
    )


async def _chosen(
    session: AsyncSession, model: ModelRow, named: str | None, defaults: Defaults
) -> tuple[ModelVersionRow, Decision]:
    """The version named; else the newest one after Production that passes; else the newest, to tell why not."""
    if named is not None:
        row = await versions.version(session, model.name, named)
        return row, await decide(session, model, row, defaults)
    floor = int(model.production_version or 0)
    rows = [row for row in await versions.versions(session, model.name) if int(row.version) > floor]
    tried = [(row, await decide(session, model, row, defaults)) for row in rows if row.deleted_at is None]
    if not tried:
        newer = f" newer than Production version {floor}" if floor else ""
        raise NotFound(f"Model {model.name} has no version{newer} to promote.", model=model.name)
    return next((pair for pair in tried if pair[1].allowed), tried[0])


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


def _plan(spec: PromoteSpec, config: ModelConfig | None, *, first: bool) -> Plan:
    """The plan asked for, completed from model.yaml. A model's first version has nobody to share traffic with or to
    go back to: unless the request says otherwise it goes live at once."""
    declared = config.rollout if config else None
    strategy = spec.strategy or (Strategy(declared.strategy) if declared and not first else None)
    strategy = strategy or (Strategy.IMMEDIATE if first and not spec.bake_s else Strategy.BLUE_GREEN)
    shares = strategy in {Strategy.CANARY, Strategy.AB_TEST, Strategy.SHADOW}
    if shares and first:
        raise InvalidInput(f"There is no Production version a {strategy} could be compared with; use immediate.")
    if spec.steps and not shares:
        raise InvalidInput(f"The strategy {strategy} has no steps; use canary or ab_test.")
    if spec.bake_s and strategy in {Strategy.IMMEDIATE, Strategy.SHADOW}:
        raise InvalidInput(f"The strategy {strategy} has no bake period; use blue_green.")
    bake = timedelta(0)
    if strategy not in {Strategy.IMMEDIATE, Strategy.SHADOW}:
        bake_s = spec.bake_s if spec.bake_s is not None else declared.bake_s if declared else 0.0
        bake = timedelta(seconds=bake_s)
    if not shares:
        return Plan(strategy, bake=bake)
    asked = tuple((step.weight, step.hold_s) for step in spec.steps or ())
    if not asked and declared and declared.strategy == strategy:
        asked = tuple((step.weight, step.hold_s) for step in declared.steps)
    asked = asked or (_RAMP if strategy is Strategy.CANARY else _AB_TEST)
    steps = tuple(Step(round(weight * PER_PERCENT), timedelta(seconds=hold)) for weight, hold in asked)
    if strategy is Strategy.SHADOW:  # its weight is the share that is copied; customers get none of it
        hold = sum((step.hold for step in steps), timedelta(0))
        return Plan(strategy, (Step(0, hold),), shadow_weight=steps[0].weight if spec.steps else BUCKETS)
    return Plan(strategy, steps, bake=bake)


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
    )
