"""Rollouts: steer them by hand, and show them."""

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.adapters.store import analysis as analysis_store
from control_plane.adapters.store import rollouts as store
from control_plane.adapters.store import routers, versions
from control_plane.adapters.store.analysis import Run
from control_plane.adapters.store.rollouts import Entry
from control_plane.adapters.store.routers import Applied
from control_plane.contracts.base import PER_PERCENT
from control_plane.contracts.rollouts import AnalysisView, ExperimentView, ReachView, RolloutView
from control_plane.domain import rollouts
from control_plane.domain.rollouts import Phase, Rollout, Strategy
from control_plane.errors import Conflict
from control_plane.services import cutover, planning, targeting
from control_plane.services.cutover import Cause

_VERBS: dict[str, Callable[..., Rollout]] = {
    "pause": rollouts.pause,
    "resume": rollouts.resume,
    "abort": rollouts.abort,
    "promote": rollouts.promote,
    "skip": rollouts.skip,
}
_RUNS = 1_000  # looks kept grow with the logarithm of a rollout's age
_STATUS = {Phase.PAUSED: "paused", Phase.SUCCEEDED: "completed", Phase.ABORTED: "aborted"}


async def steer(
    session: AsyncSession, rollout_id: UUID, verb: str, reason: str, *, cause: Cause, now: datetime, warm: timedelta
) -> Entry:
    """pause, resume, abort, promote or skip. Conflict when its phase does not allow that.

    Aborting after the cut-over makes stable Production again.
    """
    entry = await store.load(session, rollout_id)
    await versions.model(session, entry.model, lock=True)
    entry = await store.load(session, rollout_id)  # as it is now that nobody else can move it
    if verb in {"promote", "skip"} and entry.rollout.plan.strategy is Strategy.SHADOW:
        raise Conflict("A shadow rollout moves no traffic; abort it and promote the version by another strategy.")
    new = _VERBS[verb](entry.rollout, reason, now=now)
    return await cutover.move(session, entry, new, action=f"rollout.{verb}", cause=cause, now=now, warm=warm)


async def view(session: AsyncSession, entry: Entry, live_within: timedelta) -> RolloutView:
    """With its analyses."""
    runs = await analysis_store.runs(session, entry.id, limit=_RUNS)
    told = shown(entry, await routers.live(session, live_within), tuple(reversed(runs)))
    return told.model_copy(update={"reach": await _reach(session, entry, runs)})


async def _reach(session: AsyncSession, entry: Entry, runs: Sequence[Run]) -> ReachView | None:
    """As it is in the database; once exposures are forgotten, as the newest decision has it."""
    found = await analysis_store.reach(session, entry.id)
    if found is None:
        kept = next((run.evidence["reach"] for run in runs if run.evidence.get("reach")), None)
        if kept is None:
            return None
        found = int(kept["customers"]), datetime.fromisoformat(kept["first_at"])
    ended = entry.told_at if entry.closed_at is not None else None
    seconds = None if ended is None else round((ended - found[1]).total_seconds(), 3)
    return ReachView(customers=found[0], first_at=found[1], seconds=seconds)


def shown(entry: Entry, live: Sequence[Applied], runs: Sequence[Run] = ()) -> RolloutView:
    state = entry.rollout
    waiting = _waiting_for(entry, live)
    return RolloutView(
        id=entry.id,
        model=entry.model,
        kind="rollback" if entry.kind == "rollback" else "promotion",
        candidate_version=entry.candidate_version,
        stable_version=entry.stable_version,
        strategy=state.plan.strategy,
        steps=planning.steps(state.plan),
        bake_s=state.plan.bake.total_seconds(),
        phase=state.phase,
        step=state.step,
        weight=rollouts.candidate_weight(state) / PER_PERCENT,
        cut_over=rollouts.is_cut_over(state),
        applied=waiting is None,
        waiting_for=waiting,
        failures=state.failures,
        reason=state.reason,
        since=state.since,
        created_at=entry.created_at,
        created_by=entry.created_by,
        closed_at=entry.closed_at,
        revision=entry.revision,
        told_at=entry.told_at,
        conclusion=state.conclusion,
        plan=state.plan.analysis,
        targeting=targeting.view(state.plan.targeting),
        analyses=[_analysis(run) for run in runs],
    )


def _analysis(run: Run) -> AnalysisView:
    facts = {name: run.evidence.get(name) for name in ("srm", "live", "exposed")}
    facts |= {name: getattr(run, name) for name in ("at", "step", "verdict", "conclusion", "why", "decided")}
    return AnalysisView.model_validate(facts | {"measurements": run.evidence.get("measurements") or []})


def experiment(entry: Entry) -> ExperimentView:
    state = entry.rollout
    return ExperimentView.model_validate(
        {
            "id": entry.id,
            "model": entry.model,
            "strategy": state.plan.strategy,
            "status": _STATUS.get(state.phase, "running"),
            "candidate_version": entry.candidate_version,
            "baseline_version": entry.stable_version,
            "weight": rollouts.candidate_weight(state) / PER_PERCENT,
            "started_at": entry.created_at,
            "ended_at": entry.closed_at,
        }
    )


def _waiting_for(entry: Entry, live: Sequence[Applied]) -> str | None:
    """What keeps the state from being what every live router does; None when nothing does. No router is not good
    news: nobody answers then."""
    if entry.rollout.phase is Phase.PENDING:
        return f"the model servers of version {entry.candidate_version}"
    if entry.published_revision is None:
        return "the routing snapshot"
    if not live:
        return "a live router"
    behind = [router.router_id for router in live if router.revision < entry.published_revision]
    return f"{len(behind)} of {len(live)} routers: {', '.join(sorted(behind))}" if behind else None
