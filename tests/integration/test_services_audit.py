"""Every audited change ends with its audit row, and that row is its transaction's last statement."""

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import event, text
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker

from control_plane.adapters.store import rollouts as store
from control_plane.contracts.keys import KeySpec
from control_plane.contracts.models import ArmSpec, RetrainSpec, TrafficSpec
from control_plane.contracts.rollouts import PromoteSpec
from control_plane.domain import rollouts
from control_plane.domain.rollouts import Observation
from control_plane.domain.stages import Stage
from control_plane.services import cutover, jobs, keys, promotion, rollback, traffic
from control_plane.services import rollouts as steering
from control_plane.services.promotion import Policy
from tests.support.api import SETUP, add_model

pytestmark = pytest.mark.integration
WARM, POLICY = timedelta(minutes=10), Policy()
Act = Callable[[AsyncSession, datetime], Awaitable[object]]


async def look(session: AsyncSession, now: datetime) -> None:
    """The reconciler's part."""
    entry = await store.open_of(session, "fraud")
    assert entry is not None
    new = rollouts.advance(entry.rollout, Observation(True, entry.rollout.since), now=now)
    await cutover.move(session, entry, new, action="rollout.look", cause=SETUP, now=now, warm=WARM)


async def pause(session: AsyncSession, now: datetime) -> None:
    entry = await store.open_of(session, "fraud")
    assert entry is not None
    await steering.steer(session, entry.id, "pause", "x", cause=SETUP, now=now, warm=WARM)


def promote(version: str) -> Act:
    spec = PromoteSpec(version=version, reason="x", bake_s=60)
    return lambda s, now: promotion.to_production(s, "fraud", spec, policy=POLICY, cause=SETUP, now=now)


async def split(session: AsyncSession, now: datetime) -> None:
    revision = (await traffic.view(session, "fraud")).revision
    spec = TrafficSpec(arms=[ArmSpec(version="1", percent=50), ArmSpec(version="3", percent=50)], reason="x")
    await traffic.split(session, "fraud", spec, revision=revision, policy=POLICY, cause=SETUP, now=now)


async def job(session: AsyncSession, now: datetime) -> None:
    wanted = await jobs.retrain(session, "fraud", RetrainSpec(reason="x"), cause=SETUP, now=now)
    await jobs.cancel(session, wanted.id, "x", cause=SETUP, now=now)


async def key(session: AsyncSession, now: datetime) -> None:
    spec = KeySpec.model_validate({"person": "eve", "role": "viewer", "reason": "x"})
    made = await keys.create(session, spec, cause=SETUP, now=now)
    fresh = await keys.rotate(session, made.id, "x", cause=SETUP, now=now)
    await keys.revoke(session, fresh.id, "x", cause=SETUP, now=now)


async def test_the_audit_row_is_the_last_statement_of_every_change(
    engine: AsyncEngine, maker: async_sessionmaker[AsyncSession]
) -> None:
    await add_model(maker, versions=3)
    statements: list[str] = []
    event.listen(engine.sync_engine, "before_cursor_execute", lambda *args: statements.append(args[2]))
    stage = PromoteSpec(version="3", reason="x")
    steps: list[Act] = [
        lambda s, now: promotion.to_stage(s, "fraud", Stage.STAGING, stage, cause=SETUP, now=now),
        promote("1"),
        look,  # cut over
        pause,
        rollback_is_refused,
        abort_first,
        promote("1"),
        look,
        finish,
        split,
        promote("2"),
        look,
        lambda s, now: rollback.roll_back(s, "fraud", "x", cause=SETUP, now=now, warm=WARM),  # while it bakes
        promote("2"),
        look,
        finish,
        lambda s, now: rollback.roll_back(s, "fraud", "x", cause=SETUP, now=now, warm=WARM),  # after it
        job,
        key,
    ]
    for number, step in enumerate(steps):
        async with maker.begin() as session:
            await session.execute(text("UPDATE deployments SET state = 'ready' WHERE state = 'pending'"))
            await step(session, datetime.now(UTC))
        if step is not steps[4]:
            assert statements[-1].startswith("INSERT INTO audit"), f"step {number}: {statements[-1][:80]}"


async def rollback_is_refused(session: AsyncSession, now: datetime) -> None:
    with pytest.raises(Exception, match="is the first of fraud"):
        await rollback.roll_back(session, "fraud", "x", cause=SETUP, now=now, warm=WARM)


async def abort_first(session: AsyncSession, now: datetime) -> None:
    entry = await store.open_of(session, "fraud")
    assert entry is not None
    await steering.steer(session, entry.id, "abort", "x", cause=SETUP, now=now, warm=WARM)


async def finish(session: AsyncSession, now: datetime) -> None:
    await look(session, now + timedelta(hours=1))
