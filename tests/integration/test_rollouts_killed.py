"""A reconciler that dies, or is stopped, at every boundary of a rollout: inside its transactions and between them."""

import os
import signal
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from datetime import timedelta
from pathlib import Path
from typing import Any

import psutil
import pytest
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker

from control_plane.adapters.store import audit
from control_plane.adapters.store.rollouts import Entry
from control_plane.domain.rollouts import TERMINAL, Conclusion, Phase
from tests.support.customers import Customers, Truth
from tests.support.faults import POINTS
from tests.support.processes import eventually
from tests.support.reconciler import answering, environment, reconciler, rollout_of, router, stages, supervisor
from tests.support.releases import AB_TEST, RAMP, World, recounted

pytestmark = pytest.mark.integration
SHORT_RAMP: dict[str, Any] = RAMP | {"steps": RAMP["steps"][:2]}
BLUE_GREEN: dict[str, Any] = {"strategy": "blue_green", "bake_s": 1}


@pytest.fixture
async def world(
    maker: async_sessionmaker[AsyncSession], engine: AsyncEngine, dsn: str, redis: str, home: Path, tmp_path: Path
) -> AsyncIterator[World]:
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(supervisor(home))
        await stack.enter_async_context(router(redis))
        yield World(maker, engine, environment(dsn, redis, home), home, tmp_path / "reconciler.log")


async def _begun(world: World, plan: dict[str, Any]) -> Entry:
    """A rollout nobody leads yet."""
    with reconciler(world.env, world.log):
        await world.install()
    return await world.promote("2", plan)


async def _as_if_nothing_had_happened(world: World, entry: Entry, decided: list[str]) -> None:
    """One audit row per decision, each decision once, and no step left before customers had it for its hold."""
    async with world.sessions() as session:
        assert (await audit.verify(session)).first_bad is None
        rows = await audit.page(session, before=None, limit=200)
    mine = [row for row, _ in rows if str(entry.id) in str(row["after"]) and row["actor"]["person"] == "reconciler"]
    assert sorted(row["action"].removeprefix("rollout.") for row in mine) == sorted(decided)
    shown, steps = await world.shown(entry), entry.rollout.plan.steps
    for run in await world.runs(entry):
        if run.decided in {"step", "cut_over"}:
            assert run.at - shown[run.step] >= steps[run.step].hold


async def _killed_all_the_time(world: World, entry: Entry, customers: Customers, points: tuple[str, ...]) -> list[str]:
    """Where it died: at each of `points` in turn, again and again, until the rollout is over."""
    died: list[str] = []
    while True:
        point = points[len(died) % len(points)]
        if not await world.die_in(entry, customers, f"kill@{point}"):
            return died
        died.append(point)
        assert len(died) < 40, died


async def test_a_reconciler_killed_at_every_boundary_ends_the_rollout_as_if_nothing_had_happened(world: World) -> None:
    entry = await _begun(world, SHORT_RAMP)
    died = await _killed_all_the_time(world, entry, world.customers(Truth(buys=0.4)), ("saved",))
    assert len(died) == 4, died
    ended = await rollout_of(world.sessions, entry)
    assert (ended.rollout.phase, ended.rollout.conclusion) == (Phase.SUCCEEDED, Conclusion.BETTER)
    assert await stages(world.sessions, "m") == {"1": "Archived", "2": "Production"}
    await _as_if_nothing_had_happened(world, entry, ["step", "step", "cut_over", "succeeded"])
    async with world.sessions() as session:
        await recounted(session, ended)


MATRIX = [
    pytest.param({"strategy": "immediate"}, Truth(), ["cut_over"], "2", id="immediate"),
    pytest.param(BLUE_GREEN, Truth(), ["cut_over", "succeeded"], "2", id="blue_green"),
    pytest.param(
        BLUE_GREEN | {"bake_s": 600}, Truth(fails=0.9), ["cut_over", "aborted"], "1", id="blue_green taken back"
    ),
    pytest.param(SHORT_RAMP, Truth(buys=0.4), ["step", "step", "cut_over", "succeeded"], "2", id="canary"),
    pytest.param(SHORT_RAMP, Truth(buys=0.001), ["step", "aborted"], "1", id="canary taken back"),
    pytest.param(AB_TEST, Truth(buys=0.4), ["step", "cut_over"], "2", id="ab_test"),
]


@pytest.mark.slow
@pytest.mark.timeout(1800)  # four lives of a process for each decision
@pytest.mark.parametrize(("plan", "truth", "decided", "answers"), MATRIX)
async def test_four_deaths_at_every_boundary_of_every_strategy_change_nothing(
    world: World, plan: dict[str, Any], truth: Truth, decided: list[str], answers: str
) -> None:
    entry = await _begun(world, plan)
    customers = world.customers(truth, stable=Truth(buys=0.1 if truth.buys > 0.01 else 0.4))
    died = await _killed_all_the_time(world, entry, customers, POINTS)
    assert len(died) == len(POINTS) * len(decided), died
    assert (await rollout_of(world.sessions, entry)).rollout.phase in TERMINAL
    assert await answering(world.sessions, "m") == {answers: 10_000}
    assert (await stages(world.sessions, "m"))[answers] == "Production"
    await _as_if_nothing_had_happened(world, entry, decided)


@pytest.mark.slow
async def test_four_deaths_before_a_shadow_is_shown_change_nothing(world: World) -> None:
    entry = await _begun(world, {"strategy": "shadow", "steps": [{"weight": 50, "hold_s": 600}]})
    customers = world.customers(Truth())
    for point in POINTS:
        assert await world.die_in(entry, customers, f"kill@{point}")
    with reconciler(world.env, world.log):

        async def told() -> bool:
            return (await rollout_of(world.sessions, entry)).told_at is not None

        await eventually(told, what="the shadow is published")
        assert (await rollout_of(world.sessions, entry)).rollout.phase is Phase.PROGRESSING
        await world.abort(entry)
        await eventually(told, what="the end of it is published")
    assert await answering(world.sessions, "m") == {"1": 10_000}
    await _as_if_nothing_had_happened(world, entry, ["step"])


@pytest.mark.slow
@pytest.mark.parametrize("point", POINTS)
async def test_a_leader_stopped_in_the_middle_of_a_move_wakes_up_to_refused_writes(
    world: World, tmp_path: Path, point: str
) -> None:
    env, second_log = world.env | {"MLCP_LEASE_S": "1.5"}, tmp_path / "second.log"
    entry = await _begun(world, BLUE_GREEN)
    with reconciler(env, world.log, fault=f"stop@{point}") as first:

        async def stopped() -> bool:
            return psutil.Process(first.pid).status() == psutil.STATUS_STOPPED

        await eventually(stopped, what=f"{point}: {world.log}", every=0.02)
        with reconciler(env, second_log):

            async def over() -> bool:
                now = await rollout_of(world.sessions, entry)
                return now.rollout.phase is Phase.SUCCEEDED and now.told_at is not None

            await eventually(over, what=f"the second ends it: {second_log}")
            before = await rollout_of(world.sessions, entry)
            os.kill(first.pid, signal.SIGCONT)

            async def noticed() -> bool:
                return "leadership lost" in world.log.read_text()

            await eventually(noticed, what=f"the first notices: {world.log}")
            assert await rollout_of(world.sessions, entry) == before
    await _as_if_nothing_had_happened(world, entry, ["cut_over", "succeeded"])
    assert before.told_at is not None
    assert before.told_at - before.created_at > timedelta(0)
