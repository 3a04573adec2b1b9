"""What may need an approval: described as exact content, and carried out.

Content is made of what is true at this moment (versions, digests, evidence, the whole plan), so that making it again
tells whether anything it showed has changed. Making it raises what carrying it out would raise.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from hashlib import sha256
from typing import Any, Literal, cast
from uuid import UUID

from pydantic import TypeAdapter
from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.adapters.store import audit, jobs, versions
from control_plane.adapters.store import rollouts as rollout_store
from control_plane.adapters.store.rollouts import Entry
from control_plane.adapters.store.tables import ModelVersionRow
from control_plane.contracts import policies as policy_contract
from control_plane.contracts.jobs import JobView
from control_plane.contracts.models import RetrainSpec, TrafficSpec, TrafficView
from control_plane.contracts.policies import PolicyView
from control_plane.contracts.rollouts import PromoteSpec, StageChangeView
from control_plane.domain.governance.policy import Operation
from control_plane.domain.rollouts import Plan
from control_plane.domain.stages import Stage
from control_plane.errors import Conflict
from control_plane.services import evidence, policies, promotion, rollback, rollouts, traffic
from control_plane.services import jobs as job_service
from control_plane.services.cutover import NO_REASON, Cause
from control_plane.services.promotion import Policy

Done = Entry | JobView | TrafficView | StageChangeView | PolicyView
Verb = Literal["pause", "abort", "promote", "skip"]
_PLAN = TypeAdapter(Plan)
_STEERS: Mapping[Verb, Operation] = {
    "pause": Operation.PAUSE_ROLLOUT,
    "abort": Operation.ROLL_BACK,
    "promote": Operation.SKIP_STEPS,
    "skip": Operation.SKIP_STEPS,
}


@dataclass(frozen=True, slots=True)
class Proposal:
    """`request`: JSON, what `carry_out` is given."""

    operation: Operation
    model: str | None
    request: Mapping[str, Any]
    reason: str


def promote(model: str, spec: PromoteSpec) -> Proposal:
    request = spec.model_dump(mode="json", exclude_none=True)
    return Proposal(Operation.PROMOTE, model, request, spec.reason or NO_REASON)


def deploy(model: str, spec: PromoteSpec) -> Proposal:
    """To Staging."""
    return replace(promote(model, spec), operation=Operation.DEPLOY)


def steer(model: str, rollout: UUID, verb: Verb, reason: str) -> Proposal:
    return Proposal(_STEERS[verb], model, {"rollout": str(rollout), "verb": verb}, reason)


def retrain(model: str, spec: RetrainSpec) -> Proposal:
    return Proposal(Operation.RETRAIN, model, {"reason": spec.reason, **spec.arguments()}, spec.reason)


def split(model: str, spec: TrafficSpec, revision: int) -> Proposal:
    """All back to Production only calms things down."""
    operation = Operation.SET_TRAFFIC if spec.arms else Operation.ROLL_BACK
    request = {"split": spec.model_dump(mode="json"), "revision": revision}
    return Proposal(operation, model, request, spec.reason)


def configure(document: Mapping[str, Any], reason: str) -> Proposal:
    """Another policy. Raises InvalidInput for one that cannot be used."""
    written = policies.written(policy_contract.parsed(dict(document)))
    return Proposal(Operation.CONFIGURE, None, {"document": written}, reason)


async def roll_back(session: AsyncSession, model: str, reason: str) -> Proposal:
    """Which of the two it is depends on whether a rollout is open; the model is locked from here on."""
    await versions.model(session, model, lock=True)
    is_open = await rollout_store.open_of(session, model) is not None
    return Proposal(Operation.ROLL_BACK if is_open else Operation.ROLL_BACK_SETTLED, model, {}, reason)


async def described(
    session: AsyncSession, proposal: Proposal, *, policy: Policy, now: datetime
) -> tuple[Proposal, dict[str, Any]]:
    """The proposal with everything it left open filled in, and its content. Raises as carrying it out would."""
    content: dict[str, Any] = {"format": 1, "operation": proposal.operation, "model": proposal.model}
    pinned, more = await _facts(session, proposal, policy, now)
    return pinned, content | more | {"reason": proposal.reason}


async def carry_out(session: AsyncSession, proposal: Proposal, *, policy: Policy, cause: Cause, now: datetime) -> Done:
    """Write what should be true from now on, once and for all."""
    request, warm = proposal.request, policy.warm
    if proposal.operation is Operation.CONFIGURE:
        return await policies.apply(session, request["document"], proposal.reason, cause=cause, now=now)
    model = _named(proposal)
    if "split" in request:
        wanted, revision = TrafficSpec.model_validate(request["split"]), int(request["revision"])
        return await traffic.split(session, model, wanted, revision=revision, policy=policy, cause=cause, now=now)
    if "rollout" in request:
        rollout_id, verb, why = UUID(request["rollout"]), str(request["verb"]), proposal.reason
        return await rollouts.steer(session, rollout_id, verb, why, cause=cause, now=now, warm=warm)
    match proposal.operation:
        case Operation.PROMOTE:
            spec = PromoteSpec.model_validate(request)
            return await promotion.to_production(session, model, spec, policy=policy, cause=cause, now=now)
        case Operation.DEPLOY:
            spec = PromoteSpec.model_validate(request)
            return await promotion.to_stage(session, model, Stage.STAGING, spec, cause=cause, now=now)
        case Operation.RETRAIN:
            return await job_service.retrain(session, model, RetrainSpec.model_validate(request), cause=cause, now=now)
        case Operation.ROLL_BACK | Operation.ROLL_BACK_SETTLED:
            return await rollback.roll_back(session, model, proposal.reason, cause=cause, now=now, warm=warm)
        case _:
            raise ValueError(f"nothing carries out {proposal.operation}")


def result(done: Done) -> dict[str, Any]:
    """What to look at next, as the approval keeps it."""
    match done:
        case Entry():
            return {"rollout": str(done.id)}
        case JobView():
            return {"job": str(done.id)}
        case TrafficView():
            return {"revision": done.revision}
        case StageChangeView():
            return {"version": done.version, "stage": done.to_stage}
        case PolicyView():
            return {"policy": done.version}


async def _facts(
    session: AsyncSession, proposal: Proposal, policy: Policy, now: datetime
) -> tuple[Proposal, dict[str, Any]]:
    request = proposal.request
    if proposal.operation is Operation.CONFIGURE:
        newest = await policies.current(session, policy.governance)
        changes = [change.model_dump() for change in policies.changes(newest.document, request["document"])]
        return proposal, {"document": request["document"], "replaces": newest.version, "changes": changes}
    model = _named(proposal)
    if "split" in request:
        return proposal, await _of_split(session, model, TrafficSpec.model_validate(request["split"]), policy)
    if "rollout" in request:
        entry = await rollout_store.load(session, UUID(request["rollout"]))
        shown = {"rollout": str(entry.id), "revision": entry.revision, "verb": request["verb"]}
        state = {"phase": entry.rollout.phase, "step": entry.rollout.step}
        return proposal, shown | state | {"version": entry.candidate_version, "stable": entry.stable_version}
    match proposal.operation:
        case Operation.PROMOTE:
            spec = PromoteSpec.model_validate(request)
            row, version, plan = await promotion.ready(session, model, spec, policy=policy, now=now)
            pinned = replace(proposal, request={**request, "version": version.version})
            facts = await _of_version(session, version, row.production_version, policy)
            return pinned, facts | {"plan": _PLAN.dump_python(plan, mode="json")}
        case Operation.DEPLOY:
            spec = PromoteSpec.model_validate(request)
            version = await promotion.stageable(session, model, Stage.STAGING, spec)
            pinned = replace(proposal, request={**request, "version": version.version})
            return pinned, await _of_version(session, version, None, policy)
        case Operation.RETRAIN:
            row = await versions.model(session, model, lock=True)
            if (running := await jobs.open_training(session, model)) is not None:
                raise Conflict(f"Job {running} is training {model} already.", model=model, job=str(running))
            args = {name: value for name, value in request.items() if name != "reason"}
            return proposal, {"arguments": args, "stable": row.production_version}
        case Operation.ROLL_BACK | Operation.ROLL_BACK_SETTLED:
            row = await versions.model(session, model, lock=True)
            if row.previous_version is None:
                raise Conflict(f"Model {model} has no previous Production version to go back to.", model=model)
            back = await versions.version(session, model, row.previous_version)
            return proposal, {"stable": row.production_version, "version": back.version, "digest": back.digest}
        case _:
            raise ValueError(f"nothing describes {proposal.operation}")


async def _of_version(
    session: AsyncSession, version: ModelVersionRow, stable: str | None, policy: Policy
) -> dict[str, Any]:
    """What identifies a version and what it was judged by."""
    known, gates = evidence.candidate(version), evidence.gates(version, policy.defaults)
    beside = None
    if stable is not None and stable != version.version:
        beside = evidence.incumbent(await versions.version(session, version.model, stable), version)
    judged = {
        "metric": known.metric,
        "value": known.value,
        "low": known.low,
        "high": known.high,
        "minimum": gates.minimum,
        "higher_is_better": gates.higher_is_better,
        "cost": known.cost,
        "trivial_cost": known.trivial_cost,
        "same_holdout": None if beside is None else {"candidate": beside.candidate_value, "stable": beside.value},
    }
    return {
        "version": version.version,
        "stage": version.stage,
        "digest": version.digest,
        "stable": stable,
        "config_sha256": _sha256(version.config),
        "evidence_sha256": _sha256(version.evidence),
        "judged": judged,
    }


async def _of_split(session: AsyncSession, model: str, spec: TrafficSpec, policy: Policy) -> dict[str, Any]:
    revision = (await versions.model(session, model, lock=True)).revision
    row, shares, _ = await traffic.splittable(session, model, spec, revision=revision, policy=policy)
    arms: list[dict[str, Any]] = []
    for version, weight in sorted(shares.items(), key=lambda share: int(share[0])):
        digest = (await versions.version(session, model, version)).digest
        arms.append({"version": version, "weight": weight, "digest": digest})
    return {"revision": revision, "stable": row.production_version, "arms": arms}


def _named(proposal: Proposal) -> str:
    if proposal.model is None:
        raise ValueError(f"{proposal.operation} is about a model")
    return proposal.model


def _sha256(document: dict[str, Any]) -> str:
    return sha256(audit.canonical(cast("Mapping[str, object]", document))).hexdigest()
