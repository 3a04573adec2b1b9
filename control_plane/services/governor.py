"""From signals to what is done: each decided once, each operation carried out once, each looked at afterwards.

A decision and the operations it names are one transaction; each operation and the note that it is done are another.
A crash between any two is taken up where it was; inside one nothing has happened.
"""

import dataclasses
from datetime import datetime, timedelta
from fnmatch import fnmatchcase
from typing import Any
from uuid import UUID

import structlog
from pydantic_core import to_jsonable_python
from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.adapters.store import audit, drift, jobs, versions
from control_plane.adapters.store import policies as policy_store
from control_plane.adapters.store import rollouts as rollout_store
from control_plane.adapters.store import signals as store
from control_plane.adapters.store.tables import PolicyActRow
from control_plane.contracts.approvals import ApprovalView
from control_plane.contracts.models import RetrainSpec
from control_plane.contracts.policies import ActView, DecisionView
from control_plane.contracts.rollouts import PromoteSpec
from control_plane.domain.audit import Actor
from control_plane.domain.governance import checks, decide, policy
from control_plane.domain.governance.decide import Outcome, Signal, Situation, Status
from control_plane.domain.governance.policy import TELLS, Operation, Policy, Severity, Source
from control_plane.domain.notices import Notice
from control_plane.domain.rollouts import Phase
from control_plane.errors import Conflict, ControlPlaneError, NotFound
from control_plane.services import approvals, notices, performance, policies, promotion, proposals, replays, signals
from control_plane.services.cutover import Cause
from control_plane.services.proposals import Proposal

CAUSE = Cause(Actor("policy"), "policy", automated=True)
_LONGEST_COOL_DOWN = timedelta(days=90)
_STATES = {Outcome.DO: "wanted", Outcome.ASK: "wanted", Outcome.LEAVE: "left", Outcome.HOLD: "held"}

log = structlog.get_logger()


async def decide_one(session: AsyncSession, signal_id: UUID, *, platform: promotion.Policy, now: datetime) -> None:
    """Decide about a signal nobody has decided about, and note what is to be done."""
    row = await store.claim(session, signal_id)
    if row is None:
        return
    signal = await _known(session, store.signal(row))
    in_force = await policies.in_force(session, platform.governance)
    seen = await situation(session, signal.model, platform=platform, now=now)
    found = decide.decide(in_force, signal, seen, now=now)
    before = await figures(session, signal.model, now=now)
    for step in found.steps:
        await store.add_act(
            session,
            signal_id,
            operation=step.operation,
            model=signal.model,
            outcome=step.outcome,
            state=_STATES[step.outcome],
            why=step.why,
            created_at=now,
            before=before,
        )
    newest = await policy_store.newest(session)
    version = None if newest is None else newest.version
    decision: dict[str, Any] = {"diagnosis": found.diagnosis, "severity": found.severity, "text": found.text}
    decision["inputs"] = _inputs(in_force, version, signal, seen)
    await store.decided(session, signal_id, decision, now=now)
    await audit.append(
        session,
        "policy.decide",
        actor=CAUSE.actor,
        object=f"signal:{signal_id}" if signal.model is None else f"model:{signal.model}",
        trigger=CAUSE.trigger,
        after={"signal": str(signal_id), "steps": [dataclasses.asdict(step) for step in found.steps]},
        reasons=[found.text],
        evidence=decision["inputs"],
    )


async def dry_run(
    session: AsyncSession, signal: Signal, with_policy: Policy, *, platform: promotion.Policy, now: datetime
) -> DecisionView:
    """What would be decided now. Nothing is written."""
    signal = await _known(session, signal)
    seen = await situation(session, signal.model, platform=platform, now=now)
    found = decide.decide(with_policy, signal, seen, now=now)
    acts = [ActView(operation=step.operation, outcome=step.outcome, why=step.why) for step in found.steps]
    return DecisionView(
        source=signal.source,
        name=signal.name,
        model=signal.model,
        status=signal.status,
        at=signal.at,
        diagnosis=found.diagnosis,
        severity=found.severity,
        text=found.text,
        acts=acts,
        inputs=_inputs(with_policy, None, signal, seen),
    )


async def act_one(session: AsyncSession, act_id: UUID, *, platform: promotion.Policy, now: datetime) -> None:
    """Carry out what was decided, and note it, in one transaction. Raises whatever keeps it; then nothing happened."""
    act = await store.claim_act(session, act_id)
    if act is None:
        return
    operation, result = Operation(act.operation), dict[str, Any]()
    in_force = await policies.in_force(session, platform.governance)
    if operation not in TELLS and (halt := await policy_store.halt(session)) is not None:
        raise Conflict(f"Everything is halted: {halt.reason}")
    check_at = None
    if operation in TELLS:
        log.warning("policy.notify", model=act.model, operation=operation, why=act.why)
        if operation is Operation.NOTIFY:
            await notices.tell(session, await _notice(session, act), now=now)
        await audit.append(
            session,
            f"policy.{operation}",
            actor=CAUSE.actor,
            object=f"signal:{act.signal_id}" if act.model is None else f"model:{act.model}",
            trigger=CAUSE.trigger,
            after={"signal": str(act.signal_id)},
            reasons=[act.why],
        )
    else:
        proposal = await _proposal(session, act)
        if act.outcome == Outcome.ASK:
            ruling = policy.ruling(in_force, operation, automated=True)
            if ruling.tier is not policy.Tier.APPROVAL:
                raise Conflict("The policy has changed since this was decided.")
            waiting = await approvals.propose(session, proposal, ruling, platform=platform, cause=CAUSE, now=now)
            result = {"approval": str(waiting.id)}
        else:
            done = await proposals.carry_out(session, proposal, policy=platform, cause=CAUSE, now=now)
            assert not isinstance(done, ApprovalView)
            result, check_at = proposals.result(done), now + timedelta(seconds=in_force.limits.check_after_s)
    await store.change_act(session, act_id, state="done", done_at=now, result=result, check_at=check_at)


async def fail_one(session: AsyncSession, act_id: UUID, error: ControlPlaneError, *, now: datetime) -> None:
    """Note why an act could not be carried out."""
    if await store.claim_act(session, act_id) is not None:
        reasons = "; ".join(map(str, error.extra.get("reasons") or (error.detail,)))
        await store.change_act(session, act_id, state="failed", done_at=now, why=reasons)


async def check_due(session: AsyncSession, *, now: datetime) -> int:
    """Look whether what was done has helped, where it is time to."""
    due = await store.to_check(session, now=now)
    for act in due:
        after = await figures(session, act.model, now=now)
        effect, said = checks.compare(act.before or {}, after)
        await store.change_act(session, act.id, checked_at=now, after=after, effect=effect)
        await audit.append(
            session,
            "policy.check",
            actor=CAUSE.actor,
            object=f"model:{act.model}",
            trigger=CAUSE.trigger,
            before=act.before,
            after=after,
            reasons=[f"{act.operation} because of {act.signal_id}: {effect}. {said}"],
        )
    return len(due)


async def raise_due(session: AsyncSession, *, platform: promotion.Policy, now: datetime) -> None:
    """The signals of the policy's schedules, each once per period and model."""
    in_force = await policies.in_force(session, platform.governance)
    if not in_force.schedules:
        return
    names = [row.name for row in await versions.models(session, after=None, limit=1_000)]
    newest = await policy_store.newest(session)
    for schedule in in_force.schedules:
        at = policy.last_due(schedule, now)
        if at is None or (schedule.cron is not None and (newest is None or at < newest.applied_at)):
            continue  # a moment before the policy was there is not made up for
        for name in names:
            if any(fnmatchcase(name, pattern) for pattern in schedule.models):
                due = Signal(Source.SCHEDULE, schedule.name, name, Severity.INFO, Status.FIRING, at)
                await signals.notice(session, f"{schedule.name}:{name}:{at.isoformat()}", due, now=now)


async def situation(session: AsyncSession, name: str | None, *, platform: promotion.Policy, now: datetime) -> Situation:
    """What the decision about a signal of this model depends on."""
    halt = await policy_store.halt(session)
    halted = "" if halt is None else halt.reason
    acted = await store.acted(session, since=now - _LONGEST_COOL_DOWN)
    if name is None:
        return Situation(halted, acted)
    model = await versions.model(session, name)
    entry = await rollout_store.open_of(session, name)
    candidate: str | None = None
    try:
        preview = await promotion.preview(session, name, PromoteSpec(), policy=platform, now=now)
        candidate = None if preview.reasons else preview.candidate_version
    except ControlPlaneError:
        pass
    return Situation(
        halted,
        acted,
        rollout_open=entry is not None,
        paused=entry is not None and entry.rollout.phase is Phase.PAUSED,
        previous=model.previous_version,
        training=await jobs.open_training(session, name) is not None,
        candidate=candidate,
        waiting=await store.waiting(session, name),
    )


async def figures(session: AsyncSession, name: str | None, *, now: datetime) -> dict[str, float | None]:
    """How a model does in the last hour: what is compared before and after. Empty without a model."""
    if name is None:
        return {}
    view = await performance.view(session, name, "1h", now=now)
    failed = sum(version.failures for version in view.versions)
    asked = failed + sum(version.predictions for version in view.versions)
    slowest = [version.latency_ms_p95 for version in view.versions if version.latency_ms_p95 is not None]
    look = await drift.newest_look(session, name)
    readings: list[dict[str, Any]] = (look.look.get("readings") or []) if look else []
    scores: list[Any] = [reading.get("score") for reading in readings]
    known = [float(score) for score in scores if isinstance(score, int | float)]
    return {
        "error_rate": failed / asked if asked else None,
        "p95_ms": max(slowest, default=None),
        "accuracy": view.accuracy,
        "drift_score": max(known, default=None),
    }


async def shown(session: AsyncSession, *, before: UUID | None, limit: int, model: str | None) -> list[DecisionView]:
    """Signals with what was decided and done, newest first."""
    rows = await store.page(session, before=before, limit=limit, model=model)
    acts = await store.acts_of(session, [row.id for row in rows])
    found: list[DecisionView] = []
    for row in rows:
        decision: dict[str, Any] = row.decision or {}
        mine = [ActView.model_validate(act, from_attributes=True) for act in acts if act.signal_id == row.id]
        facts = {name: getattr(row, name) for name in ("id", "source", "name", "model", "status", "at")}
        facts |= {"diagnosis": decision.get("diagnosis"), "severity": decision.get("severity", row.severity)}
        facts |= {"text": decision.get("text", "Not decided yet."), "inputs": decision.get("inputs", {})}
        found.append(DecisionView.model_validate(facts | {"acts": mine}))
    return found


async def _notice(session: AsyncSession, act: PolicyActRow) -> Notice:
    row = await store.load(session, act.signal_id)
    said: dict[str, Any] = row.decision or {}
    title = f"{said.get('diagnosis', row.name)}: {row.name}" + (f" of {act.model}" if act.model else "")
    severity, lines = Severity(said.get("severity", row.severity)), (str(said.get("text", act.why)),)
    return Notice(f"act:{act.id}", "signal.notify", severity, act.model, title, lines)


async def _proposal(session: AsyncSession, act: PolicyActRow) -> Proposal:
    assert act.model is not None
    why = f"{act.operation} because of signal {act.signal_id}: {act.why}"
    match Operation(act.operation):
        case Operation.PAUSE_ROLLOUT:
            await versions.model(session, act.model, lock=True)
            entry = await rollout_store.open_of(session, act.model)
            if entry is None:
                raise Conflict(f"No rollout of {act.model} is open any more.")
            return proposals.steer(act.model, entry.id, "pause", why)
        case Operation.RETRAIN:
            return proposals.retrain(act.model, RetrainSpec(reason=why))
        case Operation.PROMOTE:
            version = await store.retrained(session, act.signal_id)
            return proposals.promote(act.model, PromoteSpec(version=version, reason=why))
        case Operation.ROLL_BACK | Operation.ROLL_BACK_SETTLED:
            asked = await proposals.roll_back(session, act.model, why)
            if asked.operation != act.operation:
                raise Conflict(f"The rollout of {act.model} has ended or begun meanwhile.")
            return asked
        case _:
            raise ValueError(f"nothing proposes {act.operation}")


async def _known(session: AsyncSession, signal: Signal) -> Signal:
    """With the model only if there is one of that name, and with what the replay of a retrained version came to."""
    if signal.model is None:
        return signal
    try:
        await versions.model(session, signal.model)
    except NotFound:
        return dataclasses.replace(signal, model=None)
    if signal.source is Source.RETRAINING and signal.facts.get("replay"):
        try:
            shown = await replays.view(session, signal.model, UUID(str(signal.facts["replay"])))
        except (NotFound, ValueError):  # somebody tries out what would be decided
            return signal
        said = {"replay_state": shown.state, "replay_summary": shown.summary, "replay_gate": shown.gate}
        return dataclasses.replace(signal, facts={**signal.facts, **said})
    return signal


def _inputs(in_force: Policy, version: int | None, signal: Signal, seen: Situation) -> dict[str, Any]:
    acted = [act for act in seen.acted if act.model == signal.model][-20:]
    known = dataclasses.asdict(dataclasses.replace(seen, acted=tuple(acted)))
    found: dict[str, Any] = to_jsonable_python(
        {
            "policy": {"name": in_force.name, "version": version},
            "signal": dataclasses.asdict(signal),
            "situation": known,
        }
    )
    return found
