"""Open rollouts: look at the candidate, let the domain decide, write what follows in one transaction.

How a bake ends is for `reconcile_analysis`: nothing succeeds without a look at its requests.
"""

from datetime import UTC, datetime

import structlog

from control_plane.adapters.store import deployments
from control_plane.adapters.store import rollouts as store
from control_plane.adapters.store.rollouts import Entry
from control_plane.adapters.store.tables import DeploymentRow
from control_plane.domain import rollouts
from control_plane.domain.rollouts import Observation, Phase
from control_plane.errors import StaleRevision
from control_plane.reconciler.context import CAUSE, Context
from control_plane.services import cutover

log = structlog.get_logger()


async def look(context: Context) -> bool:
    """Whether any rollout is open: time alone may move it."""
    now = datetime.now(UTC)
    async with context.looking() as session:
        entries = await store.all_open(session)
        servers = {(row.model, row.version): row for row in await deployments.live(session)}
    for entry in entries:
        if entry.rollout.phase is Phase.BAKING:
            continue
        seen = observe(context, entry, servers.get((entry.model, entry.candidate_version)))
        new = rollouts.advance(entry.rollout, seen, now=now)
        if new == entry.rollout:
            continue
        try:
            async with context.leading() as session:
                await cutover.move(
                    session,
                    entry,
                    new,
                    action=f"rollout.{verb(entry, new)}",
                    cause=CAUSE,
                    now=now,
                    warm=context.warm,
                    evidence={"candidate_ready": seen.candidate_ready, "deploy_error": seen.deploy_error},
                )
        except StaleRevision:
            continue  # a person was faster; the next look sees what they did
        log.info("rollout", model=entry.model, was=entry.rollout.phase, now=new.phase, why=new.reason)
    return bool(entries)


def observe(context: Context, entry: Entry, row: DeploymentRow | None) -> Observation:
    """What the candidate's deployment says and when routers were told; nothing is measured here.

    A deployment has its deadline from this leader: while nobody led nobody deployed.
    """
    ready = row is not None and row.desired == "running" and row.state == "ready"
    failed = row is not None and row.desired == "running" and row.state == "failed"
    error = (row.error or "it failed") if row is not None and failed else None
    told = entry.told_at
    if told is not None and entry.rollout.phase is Phase.PENDING:
        told = max(told, context.since)
    return Observation(ready, told, deploy_error=error)


def verb(entry: Entry, new: rollouts.Rollout) -> str:
    """What happened, for the audit chain: cut_over, aborted, succeeded or step."""
    if rollouts.is_cut_over(new) and not rollouts.is_cut_over(entry.rollout):
        return "cut_over"
    return new.phase.value if new.phase in rollouts.TERMINAL else "step"
