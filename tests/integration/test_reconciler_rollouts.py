"""From a promotion to routed answers and back, with MLflow dead all the while."""

import asyncio
import json
import os
import signal
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from control_plane.adapters import bus
from control_plane.adapters.store import audit
from control_plane.adapters.store import rollouts as store
from control_plane.adapters.store.rollouts import Entry
from control_plane.contracts.keys import KeySpec
from control_plane.contracts.rollouts import PromoteSpec
from control_plane.contracts.snapshot import decode
from control_plane.domain.audit import Actor
from control_plane.domain.governance import Role
from control_plane.domain.rollouts import Phase
from control_plane.services import keys, promotion, rollback
from control_plane.services.cutover import Cause
from control_plane.services.promotion import Policy
from tests.support.processes import eventually
from tests.support.reconciler import (
    add_versions,
    answering,
    environment,
    reconciler,
    rollout_of,
    routed,
    router,
    stages,
    supervisor,
)

pytestmark = pytest.mark.integration
CAUSE = Cause(Actor("admin"), "test")
ALL = 10_000


@dataclass
class World:
    sessions: async_sessionmaker[AsyncSession]
    env: dict[str, str]
    home: Path
    log: Path
    redis: str
    router: dict[str, object]

    async def promote(self, model: str, version: str) -> Entry:
        spec = PromoteSpec(version=version, reason="test")
        async with self.sessions.begin() as session:
            now = datetime.now(UTC)
            return await promotion.to_production(session, model, spec, policy=Policy(), cause=CAUSE, now=now)

    async def roll_back(self, model: str) -> Entry:
        async with self.sessions.begin() as session:
            now, warm = datetime.now(UTC), timedelta(minutes=10)
            return await rollback.roll_back(session, model, "test", cause=CAUSE, now=now, warm=warm)

    async def until_answering(self, model: str, version: str) -> None:
        async def look() -> bool:
            return await answering(self.sessions, model) == {version: ALL}

        await eventually(look, what=f"{model} {version} is routed: {self.log}", every=0.01)

    async def phase(self, entry: Entry) -> Phase:
        return (await rollout_of(self.sessions, entry)).rollout.phase


@pytest.fixture
async def world(
    maker: async_sessionmaker[AsyncSession], dsn: str, redis: str, home: Path, tmp_path: Path
) -> AsyncIterator[World]:
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(supervisor(home))
        report = await stack.enter_async_context(router(redis))
        yield World(maker, environment(dsn, redis, home), home, tmp_path / "reconciler.log", redis, report)


async def test_a_promotion_goes_live_and_a_rollback_is_published_within_a_second(world: World) -> None:
    await add_versions(world.sessions, "m", "1", "2", home=world.home)
    with reconciler(world.env, world.log):
        first = await world.promote("m", "1")
        await world.until_answering("m", "1")
        assert await world.phase(first) is Phase.SUCCEEDED  # nobody to go back to: no bake
        second = await world.promote("m", "2")
        await world.until_answering("m", "2")
        assert await world.phase(second) is Phase.BAKING
        assert await stages(world.sessions, "m") == {"1": "Archived", "2": "Production"}
        _, route = await routed(world.sessions, "m")
        assert route is not None
        assert route.previous is not None
        assert route.targets[route.previous].version == "1"  # still warm
        took: list[float] = []
        for _ in range(5):
            started = time.monotonic()
            back = await world.roll_back("m")
            await world.until_answering("m", "1")
            took.append(time.monotonic() - started)
            started = time.monotonic()
            await world.promote("m", "2")
            await world.until_answering("m", "2")
            took.append(time.monotonic() - started)
        assert min(took) < 1.0, took  # about 0.08 s where nothing else runs; this machine may be busy
        assert (await rollout_of(world.sessions, back)).published_revision is not None
        async with world.sessions() as session:
            assert (await audit.verify(session)).first_bad is None


async def test_rate_limits_of_keys_and_models_reach_the_routers(world: World) -> None:
    await add_versions(world.sessions, "m", "1", home=world.home)
    spec = KeySpec(person="checkout", role=Role.PREDICTOR, rate_limit_rps=12.5, reason="agreed")
    async with world.sessions.begin() as session:
        await session.execute(
            text('UPDATE model_versions SET config = config || \'{"serving": {"rate_limit_rps": 40}}\'')
        )
        made = await keys.create(session, spec, cause=CAUSE, now=datetime.now(UTC))
    async with world.sessions.begin() as session:
        fresh = await keys.rotate(session, made.id, "lost", cause=CAUSE, now=datetime.now(UTC))
    assert fresh.rate_limit_rps == made.rate_limit_rps == 12.5
    with reconciler(world.env, world.log):
        await world.promote("m", "1")
        await world.until_answering("m", "1")
        client = bus.connect(world.redis)

        async def published() -> bool:
            document = decode(await bus.snapshot(client) or b"")
            return document.models["m"].rate_limit_rps == 40 and len(document.models["m"].arms) == 1

        await eventually(published, what="the limit of the model in the snapshot")
        grants = decode(await bus.snapshot(client) or b"").keys.values()
        assert [grant.rate_limit_rps for grant in grants] == [12.5]
        await client.aclose()


async def test_nothing_changed_is_not_published_again(world: World) -> None:
    await add_versions(world.sessions, "m", "1", home=world.home)
    with reconciler(world.env, world.log):
        await world.promote("m", "1")
        await world.until_answering("m", "1")
        client = bus.connect(world.redis)

        async def published() -> bool:
            document = await bus.snapshot(client)
            return document is not None and decode(document).revision == (await routed(world.sessions, "m"))[0]

        await eventually(published, what="Redis has the newest snapshot")
        await asyncio.sleep(1.0)  # what follows the cut-over is over
        revision, _ = await routed(world.sessions, "m")
        await client.flushall()
        await eventually(published, what="Redis is told again after it has lost everything")
        assert (await routed(world.sessions, "m"))[0] == revision
        await client.aclose()


async def test_a_reconciler_killed_at_any_moment_leaves_nothing_half_done(world: World) -> None:
    await add_versions(world.sessions, "m", "1", "2", home=world.home)
    entry = await world.promote("m", "1")

    async def leads() -> bool:
        return "leading" in world.log.read_text()

    async def wishes() -> bool:
        return any((world.home / "run" / "wanted").glob("*.json"))

    async def sees(state: str) -> bool:
        async with world.sessions() as session:
            return str(await session.scalar(text("SELECT state FROM deployments"))) == state

    for moment in (leads, wishes, lambda: sees("ready")):
        with reconciler(world.env, world.log) as child:
            await eventually(moment, what="the moment to die", every=0.001)
            os.kill(child.pid, signal.SIGKILL)
        async with world.sessions.begin() as session:
            await session.execute(text("UPDATE leases SET expires_at = clock_timestamp()"))  # spares the wait
    with reconciler(world.env, world.log):
        await world.until_answering("m", "1")
        assert await world.phase(entry) is Phase.SUCCEEDED
        assert await stages(world.sessions, "m") == {"1": "Production", "2": "Development"}
    async with world.sessions() as session:
        cut_over = await audit.page(session, before=None, limit=100, action="rollout.cut_over")
        assert len(cut_over) == 1


async def test_a_version_that_lost_its_traffic_is_stopped_after_the_routers_let_go(world: World) -> None:
    await add_versions(world.sessions, "m", "1", "2", "3", home=world.home)
    env = world.env | {"MLCP_WARM_S": "0"}

    async def states() -> dict[str, str]:
        async with world.sessions() as session:
            rows = await session.execute(text("SELECT version, state FROM deployments"))
            return {row.version: row.state for row in rows}

    with reconciler(env, world.log):
        await world.promote("m", "1")
        await world.until_answering("m", "1")
        entry = await world.promote("m", "2")
        await world.until_answering("m", "2")
        assert (await states())["1"] == "ready"  # warm through the bake
        async with world.sessions.begin() as session:
            await session.execute(text("UPDATE deployments SET warm_until = now() WHERE version = '1'"))

        async def stopped() -> bool:
            return (await states())["1"] == "stopped"

        # The open rollout still names it as the version to go back to.
        await asyncio.sleep(1.5)
        assert not await stopped()
        async with world.sessions.begin() as session:
            await session.execute(text("UPDATE rollouts SET told_at = told_at - interval '1 hour'"))
        await eventually(stopped, what="version 1 is stopped")
        assert await world.phase(entry) is Phase.SUCCEEDED
        assert list((world.home / "run" / "wanted").glob("*.json"))[1:] == []
    with reconciler(env | {"MLCP_ARTIFACT_CACHE_S": "0"}, world.log):

        async def pruned() -> bool:
            return len(os.listdir(world.home / "cache" / "artifacts")) == 2

        await eventually(pruned, what="only the artifacts of Production and the version before are left")


async def test_a_candidate_nobody_can_fetch_waits_and_one_that_serves_something_else_is_aborted(world: World) -> None:
    await add_versions(world.sessions, "m", "1", "2", home=world.home)
    await add_versions(world.sessions, "n", "1")  # its artifact is nowhere but in MLflow, which is dead
    with reconciler(world.env, world.log):
        waiting = await world.promote("n", "1")
        await world.promote("m", "1")
        await world.until_answering("m", "1")
        entry = await world.promote("m", "2")

        async def spec() -> Path | None:
            for file in (world.home / "run" / "deployments").glob("*/server.json"):
                if json.loads(file.read_text())["version"] == "2":
                    return file
            return None

        file = await eventually(spec, what="the candidate's spec", every=0.001)
        assert file is not None
        said = json.loads(file.read_text())
        file.write_text(json.dumps(said | {"digest": "sha256:other"}))  # the server started next announces that

        async def aborted() -> bool:
            return await world.phase(entry) is Phase.ABORTED

        if await answering(world.sessions, "m") != {"2": ALL}:  # else it was faster than the forgery
            await eventually(aborted, what="the rollout is aborted")
            assert "sha256:other" in (await rollout_of(world.sessions, entry)).rollout.reason
            assert await answering(world.sessions, "m") == {"1": ALL}

        async def error() -> str:
            async with world.sessions() as session:
                return str(await session.scalar(text("SELECT error FROM deployments WHERE model = 'n'")) or "")

        assert "MLflow" in (await eventually(error, what="the reason why n waits"))
        assert await world.phase(waiting) is Phase.PENDING


async def test_a_pin_is_audited_once_and_its_release_too(world: World) -> None:
    await add_versions(world.sessions, "m", "1", home=world.home)

    async def actions() -> list[str]:
        async with world.sessions() as session:
            return [record["action"] for record, _ in await audit.page(session, before=None, limit=9)]

    with reconciler(world.env, world.log):
        await world.promote("m", "1")
        await world.until_answering("m", "1")
        pin = {"model": "m", "target": "t", "version": "1", "person": "on-call", "reason": "why", "at": 1.0}
        world.router["pins"] = {"m": pin}

        async def told(action: str) -> bool:
            return action in await actions()

        await eventually(lambda: told("router.pinned"), what="the pin is audited")
        async with router(world.redis, "r-2") as second:
            second["pins"] = {"m": pin}
            await asyncio.sleep(2.5)
            second["pins"] = world.router["pins"] = {}
            await eventually(lambda: told("router.released"), what="the release is audited")
            await asyncio.sleep(1.5)
        seen = await actions()
        assert (seen.count("router.pinned"), seen.count("router.released")) == (1, 1)


async def test_routers_that_know_more_than_a_restored_database_get_a_higher_epoch(world: World) -> None:
    await add_versions(world.sessions, "m", "1", home=world.home)
    with reconciler(world.env, world.log):
        await world.promote("m", "1")
        await world.until_answering("m", "1")
        async with world.sessions.begin() as session:  # as after a restore: what was published since is forgotten
            await session.execute(text("DELETE FROM snapshots WHERE revision > 1"))
            facts = "(true, gen_random_uuid(), 1, now())"
            await session.execute(text(f'INSERT INTO installation ("only", id, epoch, created_at) VALUES {facts}'))

        async def epoch() -> bool:
            return world.router["epoch"] == 2

        await eventually(epoch, what="the router follows the new epoch")
        async with world.sessions() as session:
            assert await session.scalar(text("SELECT epoch FROM installation")) == 2
            assert await store.unpublished(session) == []
