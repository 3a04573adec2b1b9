"""A reconciler that dies, or is stopped, at every boundary of a rollout: inside its transactions and between them."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker

from control_plane.adapters.store import audit
from control_plane.adapters.store.rollouts import Entry
from control_plane.domain.rollouts import Conclusion, Phase
from tests.support.customers import Customers, Truth
from tests.support.reconciler import environment, reconciler, rollout_of, router, stages, supervisor
from tests.support.releases import RAMP, World, recounted

pytestmark = pytest.mark.integration
SHORT_RAMP: dict[str, Any] = RAMP | {"steps": RAMP["steps"][:2]}


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
    assert len(died) >= 3, died  # of four boundaries; on a busy machine two can fall into one snapshot
    ended = await rollout_of(world.sessions, entry)
    assert (ended.rollout.phase, ended.rollout.conclusion) == (Phase.SUCCEEDED, Conclusion.BETTER)
    assert await stages(world.sessions, "m") == {"1": "Archived", "2": "Production"}
    await _as_if_nothing_had_happened(world, entry, ["step", "step", "cut_over", "succeeded"])
    async with world.sessions() as session:
        await recounted(session, ended)
