"""The one way a rollout's move becomes true: the rollout, stages, Production, warmth and the audit row together.

Services and the reconciler both call `move` (and `take_over`), so there is one implementation of what a cut-over and a
way back mean. Nothing here commits.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.adapters.store import audit, deployments, jobs, rollouts, versions, wake
from control_plane.adapters.store.rollouts import Entry
from control_plane.domain.audit import Actor
from control_plane.domain.governance.decide import Signal, Status
from control_plane.domain.governance.policy import Severity, Source
from control_plane.domain.rollouts import TERMINAL, Phase, Rollout, is_cut_over
from control_plane.domain.stages import Stage, succession
from control_plane.services import signals

NO_REASON: Final = "No reason was given."


@dataclass(frozen=True, slots=True)
class Cause:
    """Who set something off and how: what every audit row says."""

    actor: Actor
    trigger: str  # api | cli | sdk | reconciler | init | ...
    request_id: str | None = None
    automated: bool = False  # a program's doing: approval tiers bind it
    approver: Actor | None = None  # whose yes was the last one needed


async def move(
    session: AsyncSession,
    entry: Entry,
    new: Rollout,
    *,
    action: str,
    cause: Cause,
    now: datetime,
    warm: timedelta,
    evidence: object = None,
) -> Entry:
    """Bring `entry` to `new`, as `domain.rollouts` decided, with everything that follows from it.

    Cut over: the candidate becomes Production, what answered is archived and stays warm through the bake plus `warm`.
    Aborted after that: stable is Production again and the candidate back in Staging. Aborted before: nothing but the
    rollout changes. The audit row is the last statement. Raises StaleRevision when `entry` is no longer current.
    """
    await versions.model(session, entry.model, lock=True)
    saved = await rollouts.save(session, entry, new, now=now)
    was, now_is = is_cut_over(entry.rollout), is_cut_over(new)
    if now_is and not was:
        await take_over(session, saved, cause=cause, now=now, warm=warm)
    elif was and not now_is:
        await _give_back(session, saved, cause=cause, now=now, warm=warm)
    else:
        await versions.touch(session, entry.model)
    if new.phase is Phase.ABORTED:
        await deployments.keep_warm(session, entry.model, entry.candidate_version, until=now + warm)
    if new.phase in TERMINAL and entry.rollout.phase not in TERMINAL:
        await report(session, saved, now=now)
    await wake.notify(session, f"rollout {entry.id}")
    if new.phase is Phase.ABORTED and cause.trigger == "reconciler":  # nobody's wish: it failed
        await signals.notice(session, str(entry.id), _failed(saved, now), now=now)
    await audit.append(
        session,
        action,
        actor=cause.actor,
        object=f"model:{entry.model}",
        trigger=cause.trigger,
        request_id=cause.request_id,
        before=told(entry),
        after=told(saved),
        reasons=[new.reason],
        evidence=evidence,
        approver=cause.approver,
    )
    return saved


async def report(session: AsyncSession, entry: Entry, *, now: datetime) -> None:
    """Have the report of a rollout that is over made. No audit row: the caller's is the last statement."""
    kind = "rollback" if entry.kind == "rollback" or entry.rollout.phase is Phase.ABORTED else "deployment"
    args = {"kind": kind, "rollout_id": str(entry.id)}
    await jobs.want(session, "report", entry.model, args, created_by="schedule", now=now)


async def take_over(session: AsyncSession, entry: Entry, *, cause: Cause, now: datetime, warm: timedelta) -> None:
    """The candidate of `entry` becomes Production. No audit row: the caller's is the last statement.

    What answered goes to Archived when it is replaced, to Staging when it is rolled back.
    """
    model = await versions.model(session, entry.model, lock=True)
    going = model.production_version
    leaves_to = Stage.STAGING if entry.kind == "rollback" else Stage.ARCHIVED
    if going is not None and going != entry.candidate_version:
        await _stage(session, entry, going, leaves_to, cause=cause, now=now)
        await deployments.keep_warm(session, entry.model, going, until=now + entry.rollout.plan.bake + warm)
    await _answer_with(session, entry, entry.candidate_version, cause=cause, now=now)


async def _give_back(session: AsyncSession, entry: Entry, *, cause: Cause, now: datetime, warm: timedelta) -> None:
    await _stage(session, entry, entry.candidate_version, Stage.STAGING, cause=cause, now=now)
    await _answer_with(session, entry, entry.stable_version, cause=cause, now=now)
    if entry.stable_version is not None:
        await deployments.keep_warm(session, entry.model, entry.stable_version, until=now + warm)


async def _answer_with(
    session: AsyncSession, entry: Entry, version: str | None, *, cause: Cause, now: datetime
) -> None:
    if version is not None:
        await _stage(session, entry, version, Stage.PRODUCTION, cause=cause, now=now)
        row = await versions.version(session, entry.model, version)
        if row.digest is not None:
            await deployments.ensure(session, entry.model, version, row.digest, now=now)
    line = succession(await versions.changes(session, entry.model))
    gone = {row.version for row in await versions.versions(session, entry.model) if row.deleted_at is not None}
    before = [earlier for earlier in line[:-1] if earlier != version and earlier not in gone]
    previous = before[-1] if before and version is not None else None
    await versions.set_production(session, entry.model, version, previous)


async def _stage(session: AsyncSession, entry: Entry, version: str, to: Stage, *, cause: Cause, now: datetime) -> None:
    row = await versions.version(session, entry.model, version)
    who, why = cause.actor.person, entry.rollout.reason
    await versions.set_stage(session, row, to, actor=who, reason=why, at=now, rollout_id=entry.id)


def _failed(entry: Entry, now: datetime) -> Signal:
    facts = {**told(entry), "why": entry.rollout.reason}
    return Signal(Source.ROLLOUT, "aborted", entry.model, Severity.WARNING, Status.FIRING, now, facts)


def told(entry: Entry) -> dict[str, object]:
    """A rollout as the audit chain tells it."""
    state = entry.rollout
    return {
        "rollout": str(entry.id),
        "kind": entry.kind,
        "candidate": entry.candidate_version,
        "stable": entry.stable_version,
        "strategy": state.plan.strategy,
        "phase": state.phase,
        "step": state.step,
        "failures": state.failures,
    }
