"""Rollback: back to what answered before, at once, without a gate in the way."""

from datetime import datetime, timedelta

from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.adapters.store import audit, deployments, versions, wake
from control_plane.adapters.store import rollouts as store
from control_plane.adapters.store.rollouts import Entry
from control_plane.domain import rollouts
from control_plane.domain.rollouts import Phase, Plan, Rollout, Strategy
from control_plane.errors import Conflict, NotReady
from control_plane.services import cutover
from control_plane.services.cutover import Cause


async def roll_back(
    session: AsyncSession, name: str, reason: str, *, cause: Cause, now: datetime, warm: timedelta
) -> Entry:
    """Abort the open rollout; with none open, make the previous Production version Production again.

    A warm previous version takes over in this very transaction; a cold one by a rollout that deploys it first. A
    rollback that is under way already is returned as it is: asking twice is what people in a hurry do.

    Raises:
        Conflict: there is nothing to go back to.
        NotReady: the previous version has neither servers nor a digest to start some from.
    """
    model = await versions.model(session, name, lock=True)
    entry = await store.open_of(session, name)
    if entry is not None:
        return await _abort(session, entry, reason, cause=cause, now=now, warm=warm)
    to = model.previous_version
    if to is None:
        raise Conflict(f"Model {name} has no previous Production version to go back to.", model=name)
    server = await deployments.of_version(session, name, to)
    ready = server is not None and server.state == "ready" and server.desired == "running"
    row = await versions.version(session, name, to)
    if not ready and row.digest is None:
        raise NotReady(f"Version {to} of {name} has no ready servers and no digest to start any from.", model=name)
    phase = Phase.SUCCEEDED if ready else Phase.PENDING
    state = Rollout(Plan(Strategy.IMMEDIATE), now, phase=phase, reason=reason)
    stable, who = model.production_version, cause.actor.person
    entry = await store.add(
        session, state, model=name, kind="rollback", candidate=to, stable=stable, created_by=who, now=now
    )
    if ready:
        await cutover.take_over(session, entry, cause=cause, now=now, warm=warm)
        await cutover.report(session, entry, now=now)
    elif row.digest is not None:
        await deployments.ensure(session, name, to, row.digest, now=now, retry=True)
    await wake.notify(session, f"rollback {name}")
    await audit.append(
        session,
        "model.rollback",
        actor=cause.actor,
        object=f"model:{name}",
        trigger=cause.trigger,
        request_id=cause.request_id,
        before={"production": stable},
        after=cutover.told(entry),
        reasons=[reason],
        approver=cause.approver,
    )
    return entry


async def _abort(
    session: AsyncSession, entry: Entry, reason: str, *, cause: Cause, now: datetime, warm: timedelta
) -> Entry:
    if entry.kind == "rollback":
        return entry
    if rollouts.is_cut_over(entry.rollout) and entry.stable_version is None:
        way = f"abort rollout {entry.id} to take the model out of service"
        raise Conflict(f"Version {entry.candidate_version} is the first of {entry.model}; {way}.", model=entry.model)
    new = rollouts.abort(entry.rollout, reason, now=now)
    return await cutover.move(session, entry, new, action="model.rollback", cause=cause, now=now, warm=warm)
