"""Rollouts that compare two versions on customers, as tests: what decides, and the reports beside it."""

import asyncio

from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.adapters.store import closing
from control_plane.adapters.store.rollouts import Entry
from control_plane.contracts.rollouts import AbTestView, BesideView, OneLookView, PosteriorView, RatioView
from control_plane.domain.analysis import beside, judge
from control_plane.domain.analysis.beside import Beside, OneLook
from control_plane.domain.experiments import srm
from control_plane.domain.experiments.bayes import Posterior
from control_plane.domain.rollouts import Strategy
from control_plane.errors import NotFound
from control_plane.services import analysis, rollouts

COMPARING = (Strategy.AB_TEST, Strategy.CANARY)


async def view(session: AsyncSession, entry: Entry) -> AbTestView:
    """Raises NotFound for a rollout that compares nothing."""
    state = entry.rollout
    if state.plan.strategy not in COMPARING:
        raise NotFound(f"Rollout {entry.id} is {state.plan.strategy}: it compares nothing.", rollout_id=str(entry.id))
    said = rollouts.experiment(entry).model_dump()
    said |= {"phase": state.phase, "conclusion": state.conclusion, "reason": state.reason}
    setup = await analysis.setup(session, entry)
    if setup is None:
        return AbTestView.model_validate(said | {"alpha": None, "metrics": [], "srm": None})
    seen = analysis.seen(setup, state.plan, state.step, await closing.statistics(session, entry.id))
    share, alpha = judge.share_of_alpha(state.plan, setup.plan), setup.plan.alpha
    # In a thread: intervals and posteriors are found by search, which takes tens of milliseconds a metric.
    found = await asyncio.to_thread(beside.reports, setup.metrics, seen.decided, share=share, alpha=alpha)
    ratio = srm.check(seen.stages, alpha=judge.SRM_ALPHA) if seen.stages else None
    shown = None if ratio is None else RatioView(p=ratio.p, mismatch=ratio.mismatch, why=ratio.why)
    return AbTestView.model_validate(said | {"alpha": alpha, "metrics": [_shown(one) for one in found], "srm": shown})


def _shown(one: Beside) -> BesideView:
    return BesideView.model_validate(
        {
            "decides": analysis.measured(one.decides),
            "higher_is_better": one.metric.higher_is_better,
            "lift": one.lift,
            "one_look": _look(one.one_look),
            "posterior": _posterior(one.posterior),
        }
    )


def _look(found: OneLook | None) -> OneLookView | None:
    if found is None:
        return None
    low, high = (found.interval.low, found.interval.high) if found.interval else (None, None)
    return OneLookView(test=found.test, p=found.p, adjusted=found.adjusted, low=low, high=high)


def _posterior(found: Posterior | None) -> PosteriorView | None:
    if found is None:
        return None
    ends = found.interval
    return PosteriorView(better=found.better, loss=found.loss, low=ends.low, high=ends.high)
