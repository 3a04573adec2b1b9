"""Rollouts decided by evidence, with a real reconciler process and customers whose truth is known."""

import os
import signal
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker

from control_plane.adapters.store import analysis, audit, closing
from control_plane.adapters.store.rollouts import Entry
from control_plane.contracts.rollouts import PromoteSpec
from control_plane.domain.audit import Actor
from control_plane.domain.rollouts import TERMINAL, Conclusion, Phase
from control_plane.services import promotion
from control_plane.services.cutover import Cause
from control_plane.services.promotion import Policy
from tests.support.customers import Customers, Truth
from tests.support.processes import eventually
from tests.support.reconciler import (
    add_versions,
    answering,
    environment,
    reconciler,
    rollout_of,
    router,
    stages,
    supervisor,
)

pytestmark = pytest.mark.integration
CAUSE = Cause(Actor("admin"), "test")
ANALYSIS: dict[str, Any] = {
    "metrics": [
        {"name": "error_rate", "margin": 0.05},
        {"name": "outcome:bought", "role": "goal", "margin": 0.08},
    ],
    "observation_s": 0.2,
    "interval_s": 0.2,
}
RAMP: dict[str, Any] = {
    "strategy": "canary",
    "steps": [{"weight": 10, "hold_s": 0.5}, {"weight": 50, "hold_s": 0.5}, {"weight": 80, "hold_s": 0.2}],
    "bake_s": 1,
    "analysis": ANALYSIS,
}
AB_TEST = {"strategy": "ab_test", "steps": [{"weight": 50, "hold_s": 0.5}], "bake_s": 0, "analysis": ANALYSIS}


@dataclass
class World:
    sessions: async_sessionmaker[AsyncSession]
    engine: AsyncEngine
    env: dict[str, str]
    home: Path
    log: Path

    async def begin(self, plan: dict[str, Any]) -> Entry:
        """Version 1 in Production, a rollout of version 2 open. Call inside of `reconciler`."""
        await add_versions(self.sessions, "m", "1", "2", home=self.home, outcomes={"bought": {"kind": "yes_no"}})
        await self._promote({"version": "1", "strategy": "immediate"})

        async def answers() -> bool:
            return await answering(self.sessions, "m") == {"1": 10_000}

        await eventually(answers, within=60, what=f"version 1 answers: {self.log}")
        return await self._promote({"version": "2", **plan})

    async def _promote(self, spec: dict[str, Any]) -> Entry:
        async with self.sessions.begin() as session:
            given = PromoteSpec.model_validate(spec | {"reason": "test"})
            now = datetime.now(UTC)
            return await promotion.to_production(session, "m", given, policy=Policy(), cause=CAUSE, now=now)

    def customers(self, candidate: Truth, stable: Truth | None = None) -> Customers:
        return Customers(self.engine, self.sessions, "m", {"1": stable or Truth(), "2": candidate})

    async def until_over(self, entry: Entry, customers: Customers, *, within: float = 120) -> Entry:
        """Customers come until the rollout has ended."""

        async def over() -> Entry | None:
            await customers.come(150)
            now = await rollout_of(self.sessions, entry)
            return now if now.rollout.phase in TERMINAL else None

        ended = await eventually(over, within=within, what=f"the rollout ends: {self.log}", every=0.1)
        assert ended is not None
        return ended

    async def runs(self, entry: Entry) -> list[analysis.Run]:
        async with self.sessions() as session:
            return list(reversed(await analysis.runs(session, entry.id, limit=500)))


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
    assert [run.decided for run in runs if run.decided] == ["step", "step", "cut_over"]
    for run in runs:
        if run.decided:
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
        await _recounted(session, ended)


async def _recounted(session: AsyncSession, ended: Entry) -> None:
    """The folded statistics are what counting everything at once says: each unit once, by the variant assigned.

    But for who was still observed when the candidate got more than half, which counts in no comparison. A reconciler
    that was dead when its decision should have reached the routers leaves such customers at the first step, too.
    """
    found = await closing.statistics(session, ended.id)
    rows = await session.execute(
        text(
            "SELECT e.step, e.variant, count(*), count(*) FILTER (WHERE o.value = 'true') FROM exposures e "
            "JOIN predictions p ON p.rollout_id = e.rollout_id AND p.unit_hash = e.unit_hash "
            "JOIN outcomes o ON o.unit_id = p.unit_id WHERE e.rollout_id = :id AND e.folded > 0 "
            "AND e.variant <> 'stable' AND e.step = 0 AND e.first_at + :observation <= :crossed GROUP BY 1, 2"
        ),
        {
            "id": ended.id,
            "observation": timedelta(seconds=ANALYSIS["observation_s"]),
            "crossed": ended.rollout.crossed,
        },
    )
    for step, variant, count, bought in rows:
        arm = found["outcome:bought", step, variant]
        assert (arm.values.count, arm.values.events) == (count, bought)


async def test_a_worse_candidate_comes_back_by_itself_and_few_customers_saw_it(world: World) -> None:
    with reconciler(world.env, world.log):
        entry = await world.begin(RAMP)
        customers = world.customers(Truth(buys=0.05), stable=Truth(buys=0.5))
        ended = await world.until_over(entry, customers)
        assert (ended.rollout.phase, ended.rollout.conclusion) == (Phase.ABORTED, Conclusion.WORSE)
        assert "outcome:bought" in ended.rollout.reason

        async def back() -> bool:
            return await answering(world.sessions, "m") == {"1": 10_000}

        await eventually(back, within=30, what="version 1 answers everybody again")
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

        await eventually(paused, within=60, what=f"the rollout pauses: {world.log}")
        now = await rollout_of(world.sessions, entry)
        assert "Nobody asked" in now.rollout.reason
        assert now.rollout.step == 0
        assert await answering(world.sessions, "m") == {"1": 9_000, "2": 1_000}


async def test_a_reconciler_killed_at_every_boundary_ends_the_rollout_as_if_nothing_had_happened(world: World) -> None:
    customers = world.customers(Truth(buys=0.4))

    async def decided() -> int:
        return len([run for run in await world.runs(entry) if run.decided])

    with reconciler(world.env, world.log):
        entry = await world.begin(RAMP)
    kills = 0
    for boundary in range(3):
        with reconciler(world.env, world.log) as child:

            async def reached(wanted: int = boundary + 1) -> bool:
                await customers.come(150)
                return await decided() >= wanted

            await eventually(reached, within=90, what=f"boundary {boundary}: {world.log}", every=0.02)
            os.kill(child.pid, signal.SIGKILL)
            kills += 1
        async with world.sessions.begin() as session:
            await session.execute(text("UPDATE leases SET expires_at = clock_timestamp()"))  # spares the wait
    with reconciler(world.env, world.log):
        ended = await world.until_over(entry, customers)
    assert kills == 3
    assert ended.rollout.phase is Phase.SUCCEEDED
    assert [run.decided for run in await world.runs(entry) if run.decided] == ["step", "step", "cut_over"]
    async with world.sessions() as session:
        assert (await audit.verify(session)).first_bad is None
        for action, times in (("rollout.cut_over", 2), ("rollout.succeeded", 1)):  # version 1's cut-over, too
            assert len(await audit.page(session, before=None, limit=50, action=action)) == times
        await _recounted(session, ended)
