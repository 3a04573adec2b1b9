"""Open rollouts by evidence: close units, look, judge, and let what follows happen in the transaction of the look.

Every step of it may be the last before a crash. Units are folded and marked in one transaction; a look, its kept
evidence and the rollout's move are another, which only the leader can commit and only at the revision it has read. What
was not committed is looked at again.
"""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import structlog

from control_plane.adapters import prometheus
from control_plane.adapters.store import analysis as store
from control_plane.adapters.store import closing, deployments, shadow_pairs
from control_plane.adapters.store import rollouts as rollout_store
from control_plane.adapters.store.analysis import Look, Run
from control_plane.adapters.store.rollouts import Entry
from control_plane.domain import rollouts
from control_plane.domain.analysis import comparison, judge, shadow
from control_plane.domain.analysis.comparison import Measurement
from control_plane.domain.analysis.judge import Analysis, Evidence, Tally
from control_plane.domain.analysis.plan import AnalysisPlan
from control_plane.domain.rollouts import Observation, Phase, Rollout, Strategy
from control_plane.errors import StaleRevision
from control_plane.reconciler.context import CAUSE, Context
from control_plane.reconciler.reconcile_rollouts import observe
from control_plane.services import analysis, cutover
from control_plane.services.analysis import Setup

_UNITS = 1_000  # closed in one transaction, which holds the lease row meanwhile
_BATCHES = 20  # of one group in one look
_SETTLE = timedelta(seconds=1)  # from a request until its record can be expected in Postgres
_KEPT_SHARE = 0.02  # a look is kept when nothing new came out of it, too, as often as this share of the rollout's age
_COMPARES = frozenset({Strategy.CANARY, Strategy.AB_TEST, Strategy.SHADOW})

log = structlog.get_logger()


async def look(context: Context) -> bool:
    """Whether there was nothing to watch."""
    now = datetime.now(UTC)
    async with context.looking() as session:
        entries = [entry for entry in await rollout_store.all_open(session) if _watched(entry)]
        before = await store.looks(session, [entry.id for entry in entries])
    for entry in entries:
        last = before.get(entry.id)
        if last is None or _due(entry, last, now):
            try:
                await _look(context, entry, last)
            except StaleRevision:
                continue  # a person, or the other look, was faster
    return not entries


def _watched(entry: Entry) -> bool:
    state = entry.rollout
    if state.phase is Phase.PROGRESSING:
        return state.plan.analysis is not None and state.plan.strategy in _COMPARES
    return state.phase is Phase.BAKING


def _due(entry: Entry, last: Look, now: datetime) -> bool:
    state = entry.rollout
    baked = state.phase is Phase.BAKING and rollouts.is_held(state, told=entry.told_at, now=now)
    return baked or (now - last.looked_at).total_seconds() >= (state.plan.analysis or AnalysisPlan()).interval_s


async def _look(context: Context, entry: Entry, last: Look | None) -> None:
    if entry.rollout.phase is Phase.BAKING:
        await _bake(context, entry, last)
        return
    if entry.rollout.plan.strategy is Strategy.SHADOW:
        await _shadow(context, entry, last)
        return
    async with context.looking() as session:
        setup = await analysis.setup(session, entry)
    if setup is None:
        return
    await _close(context, setup)
    now = datetime.now(UTC)
    readings = [await _read(context, setup, entry, at, now) for at in range(len(setup.queries))]
    async with context.looking() as session:
        found = await closing.statistics(session, entry.id)
        live, asked = await store.live(session, entry.id, entry.model, entry.candidate_version, baking=False, now=now)
        kept = await store.last_run(session, entry.id)
        servers = {(row.model, row.version): row for row in await deployments.live(session)}
    asked = asked or (last.asked_at if last else None)
    told = entry.told_at or now
    idle = (now - max(asked or told, told)).total_seconds()
    folded = analysis.seen(setup, entry.rollout.plan, entry.rollout.step, found)
    evidence = replace(folded, live=live, queries=tuple(readings), idle_s=max(0.0, idle))
    state = entry.rollout
    tally = last.tally if last and last.since == state.since else Tally()
    held = rollouts.is_held(state, told=entry.told_at, now=now)
    judged = judge.judge(state.plan, setup.plan, setup.metrics, evidence, tally, step=state.step, held=held)
    ready = observe(context, entry, servers.get((entry.model, entry.candidate_version)))
    observation = replace(
        ready, verdict=judged.verdict, why=judged.why, pause=judged.pause, conclusion=judged.conclusion
    )
    await _write(context, entry, observation, judged, evidence, Look(now, state.since, asked, judged.tally), kept, now)


async def _shadow(context: Context, entry: Entry, last: Look | None) -> None:
    """A candidate that answers copies is judged by pairs; that it ends moves nobody."""
    now, state = datetime.now(UTC), entry.rollout
    plan = state.plan.analysis
    if plan is None or entry.stable_version is None:
        return
    async with context.looking() as session:
        metrics, limit_us = await analysis.paired(session, entry, plan)
        found = await shadow_pairs.pairs(
            session,
            entry.model,
            entry.candidate_version,
            entry.stable_version,
            since=state.since,
            until=now - _SETTLE,
            limit_us=limit_us,
        )
        kept = await store.last_run(session, entry.id)
        servers = {(row.model, row.version): row for row in await deployments.live(session)}
    idle = (now - max(found.newest or state.since, state.since)).total_seconds()
    tally = last.tally if last and last.since == state.since else Tally()
    held = rollouts.is_held(state, told=entry.told_at, now=now)
    judged = shadow.judge(plan, metrics, found.metrics, tally, idle_s=idle, held=held, exhausted=found.exhausted)
    ready = observe(context, entry, servers.get((entry.model, entry.candidate_version)))
    observation = replace(
        ready, verdict=judged.verdict, why=judged.why, pause=judged.pause, conclusion=judged.conclusion
    )
    seen = Evidence(idle_s=max(0.0, idle))
    looked = Look(now, state.since, found.newest, judged.tally)
    await _write(context, entry, observation, judged, seen, looked, kept, now)


async def _bake(context: Context, entry: Entry, last: Look | None) -> None:
    """A version that answers everybody is given up by its own failures alone."""
    now = datetime.now(UTC)
    limit = (entry.rollout.plan.analysis or AnalysisPlan()).fallback_limit
    async with context.looking() as session:
        live, asked = await store.live(session, entry.id, entry.model, entry.candidate_version, baking=True, now=now)
        kept = await store.last_run(session, entry.id)
    judged = judge.judge_bake(limit, live)
    seen = Evidence(live=live)
    observation = Observation(True, entry.told_at)
    if entry.stable_version is not None:  # somebody to go back to
        observation = replace(observation, verdict=judged.verdict, why=judged.why, conclusion=judged.conclusion)
    looked = Look(now, entry.rollout.since, asked or (last.asked_at if last else None), Tally())
    await _write(context, entry, observation, judged, seen, looked, kept, now)


async def _close(context: Context, setup: Setup) -> None:
    """Fold what has closed; each batch in a transaction of its own."""
    until = datetime.now(UTC) - _SETTLE
    for group in setup.groups:
        for _ in range(_BATCHES):
            async with context.leading() as session:
                closed = await closing.close(session, setup.subject, group, until=until, limit=_UNITS)
            if closed < _UNITS:
                break


async def _read(context: Context, setup: Setup, entry: Entry, at: int, now: datetime) -> Measurement:
    metric, url = setup.queries[at], context.settings.prometheus_url
    reading = prometheus.Reading(error="no Prometheus is configured")
    if url is not None:
        reading = await prometheus.read(url, analysis.query(metric, entry), now=now.timestamp())
    return comparison.threshold(
        metric.name,
        metric.role,
        reading.value,
        at_most=metric.at_most,
        at_least=metric.at_least,
        error=reading.error,
        stale=reading.stale,
    )


async def _write(
    context: Context,
    entry: Entry,
    observation: Observation,
    judged: Analysis,
    evidence: Evidence,
    looked: Look,
    kept: Run | None,
    now: datetime,
) -> None:
    """The look, its evidence where it is worth keeping, and what follows from it: all or nothing."""
    new = rollouts.advance(entry.rollout, observation, now=now)
    document = analysis.document(judged, evidence)
    decided = _decided(entry.rollout, new)
    if decided is not None:
        document["reach"] = await _reach(context, entry)
    run = Run(now, entry.rollout.step, judged.verdict.value, _said(judged), judged.why, decided, document)
    async with context.leading() as session:
        await store.save_look(session, entry.id, looked)
        if decided is not None or _news(entry, kept, run):
            await store.add_run(session, entry.id, run)
        if new != entry.rollout:
            action = f"rollout.{decided}"
            told = {"verdict": run.verdict, "conclusion": run.conclusion, **document}
            await cutover.move(
                session, entry, new, action=action, cause=CAUSE, now=now, warm=context.warm, evidence=told
            )
    if new != entry.rollout:
        log.info("rollout decided", model=entry.model, what=decided, now=new.phase, why=new.reason)


async def _reach(context: Context, entry: Entry) -> dict[str, object] | None:
    """Kept with a decision: exposures are forgotten some time after the end."""
    async with context.looking() as session:
        found = await store.reach(session, entry.id)
    return None if found is None else {"customers": found[0], "first_at": found[1].isoformat()}


def _decided(was: Rollout, new: Rollout) -> str | None:
    if new == was:
        return None
    if rollouts.is_cut_over(new) and not rollouts.is_cut_over(was):
        return "cut_over"
    if new.phase is not was.phase:
        return new.phase.value
    return "step" if new.step != was.step else "failure"


def _said(judged: Analysis) -> str | None:
    return judged.conclusion.value if judged.conclusion else None


def _news(entry: Entry, kept: Run | None, run: Run) -> bool:
    """Whether a look that decided nothing is worth a row: the first, a changed verdict, and now and then."""
    if kept is None or (kept.verdict, kept.conclusion, kept.step) != (run.verdict, run.conclusion, run.step):
        return True
    return (run.at - kept.at).total_seconds() >= (run.at - entry.created_at).total_seconds() * _KEPT_SHARE
