"""Rollouts decided by evidence, with a real reconciler process and customers whose truth is known."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker

from control_plane.adapters.store import audit
from control_plane.domain.rollouts import Conclusion, Phase
from control_plane.services import ab_tests
from tests.support.customers import Truth
from tests.support.processes import eventually
from tests.support.reconciler import answering, environment, reconciler, rollout_of, router, stages, supervisor
from tests.support.releases import AB_TEST, ANALYSIS, RAMP, World, recounted

pytestmark = pytest.mark.integration


@pytest.fixture
async def world(
    maker: async_sessionmaker[AsyncSession], engine: AsyncEngine, dsn: str, redis: str, home: Path, tmp_path: Path
) -> AsyncIterator[World]:
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(supervisor(home))
        await stack.enter_async_context(router(redis))
        yield World(maker, engine, environment(dsn, redis, home), home, tmp_path / "reconciler.log")


async def test_a_better_candidate_ramps_to_everybody_by_itself_and_each_step_has_its_evidence(world: World) -> None:
    with reconciler(world.env, world.log):
        entry = await world.begin(RAMP)
        ended = await world.until_over(entry, world.customers(Truth(buys=0.4)))
        assert (ended.rollout.phase, ended.rollout.conclusion) == (Phase.SUCCEEDED, Conclusion.BETTER)
        assert await answering(world.sessions, "m") == {"2": 10_000}
        assert await stages(world.sessions, "m") == {"1": "Archived", "2": "Production"}
    runs = await world.runs(entry)
    assert [run.decided for run in runs if run.decided] == ["step", "step", "cut_over", "succeeded"]
    for run in runs:
        if run.decided in {"step", "cut_over"}:
            assert run.verdict == "pass"
            goal = next(m for m in run.evidence["measurements"] if m["metric"] == "outcome:bought")
            assert goal["candidate"]["units"] > 0
    second = next(run for run in runs if run.decided and run.step == 1)
    goal = next(m for m in second.evidence["measurements"] if m["metric"] == "outcome:bought")
    assert goal["low"] > 0
    assert abs(goal["effect"] - 0.3) < 0.2
    async with world.sessions() as session:
        assert (await audit.verify(session)).first_bad is None
        told = await audit.page(session, before=None, limit=10, action="rollout.cut_over")
        assert "outcome:bought" in str(told[0][0]["evidence"])
        test = await ab_tests.view(session, ended)
        bought = next(one for one in test.metrics if one.decides.metric == "outcome:bought")
        assert (test.conclusion, bought.decides.comparison) == ("better", "better")
        assert test.srm is not None
        assert not test.srm.mismatch
        assert bought.posterior is not None
        assert bought.posterior.better > 0.99
        assert bought.one_look is not None
        assert bought.one_look.p <= bought.one_look.adjusted < 0.05
        await recounted(session, ended)


async def test_a_worse_candidate_comes_back_by_itself_and_few_customers_saw_it(world: World) -> None:
    with reconciler(world.env, world.log):
        entry = await world.begin(RAMP)
        customers = world.customers(Truth(buys=0.05), stable=Truth(buys=0.5))
        ended = await world.until_over(entry, customers)
        assert (ended.rollout.phase, ended.rollout.conclusion) == (Phase.ABORTED, Conclusion.WORSE)
        assert "outcome:bought" in ended.rollout.reason

        async def back() -> bool:
            return await answering(world.sessions, "m") == {"1": 10_000}

        await eventually(back, what="version 1 answers everybody again")
    assert ended.closed_at is not None
    assert customers.first_exposed is not None
    seconds = (ended.closed_at - customers.first_exposed).total_seconds()
    print(f"{customers.answered_by.get('2', 0)} customers exposed, back {seconds:.1f} s after the first")  # noqa: T201
    assert customers.answered_by["2"] < customers.asked / 2


async def test_an_equal_candidate_ends_without_a_difference_and_stable_stays(world: World) -> None:
    with reconciler(world.env, world.log):
        entry = await world.begin(AB_TEST)
        ended = await world.until_over(entry, world.customers(Truth(buys=0.1)))
    assert (ended.rollout.phase, ended.rollout.conclusion) == (Phase.ABORTED, Conclusion.NO_DIFFERENCE)
    assert ended.rollout.reason.startswith("No difference")
    assert (await stages(world.sessions, "m"))["1"] == "Production"


async def test_a_candidate_whose_calls_fall_back_is_never_promoted_however_well_customers_buy(world: World) -> None:
    plan = RAMP | {"failure_limit": 3}
    with reconciler(world.env, world.log):
        entry = await world.begin(plan)
        ended = await world.until_over(entry, world.customers(Truth(buys=0.9, falls_back=0.4), stable=Truth(buys=0.9)))
    assert ended.rollout.phase is Phase.ABORTED
    assert "fallbacks" in ended.rollout.reason
    assert (await stages(world.sessions, "m"))["1"] == "Production"
    runs = await world.runs(entry)
    assert [run.decided for run in runs if run.decided] == ["failure"] * 3 + ["aborted"]
    assert all(run.step == 0 for run in runs)


async def test_without_traffic_a_rollout_waits_and_then_pauses(world: World) -> None:
    plan = RAMP | {"analysis": ANALYSIS | {"no_traffic_s": 2}}
    with reconciler(world.env, world.log):
        entry = await world.begin(plan)

        async def paused() -> bool:
            return (await rollout_of(world.sessions, entry)).rollout.phase is Phase.PAUSED

        await eventually(paused, what=f"the rollout pauses: {world.log}")
        now = await rollout_of(world.sessions, entry)
        assert "Nobody asked" in now.rollout.reason
        assert now.rollout.step == 0
        assert await answering(world.sessions, "m") == {"1": 9_000, "2": 1_000}
