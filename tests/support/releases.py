"""A model with two versions, a reconciler's surroundings, and customers whose truth is known: rollouts in tests."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import select, text
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker

from control_plane.adapters.store import analysis, closing
from control_plane.adapters.store.rollouts import Entry
from control_plane.adapters.store.tables import SnapshotRow
from control_plane.contracts.rollouts import PromoteSpec
from control_plane.contracts.snapshot import decode
from control_plane.domain.audit import Actor
from control_plane.domain.rollouts import TERMINAL
from control_plane.services import promotion, rollouts
from control_plane.services.cutover import Cause
from control_plane.services.promotion import Policy
from tests.support.customers import Customers, Truth
from tests.support.processes import eventually
from tests.support.reconciler import add_versions, answering, reconciler, rollout_of

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
        await self.install()
        return await self.promote("2", plan)

    async def install(self) -> None:
        """Version 1 in Production. Call inside of `reconciler`."""
        await add_versions(self.sessions, "m", "1", "2", home=self.home, outcomes={"bought": {"kind": "yes_no"}})
        await self.promote("1", {"strategy": "immediate"})

        async def answers() -> bool:
            return await answering(self.sessions, "m") == {"1": 10_000}

        await eventually(answers, what=f"version 1 answers: {self.log}")

    async def promote(self, version: str, plan: dict[str, Any]) -> Entry:
        async with self.sessions.begin() as session:
            given = PromoteSpec.model_validate(plan | {"version": version, "reason": "test"})
            now = datetime.now(UTC)
            return await promotion.to_production(session, "m", given, policy=Policy(), cause=CAUSE, now=now)

    async def abort(self, entry: Entry) -> None:
        async with self.sessions.begin() as session:
            now, warm = datetime.now(UTC), timedelta(0)
            await rollouts.steer(session, entry.id, "abort", "by hand", cause=CAUSE, now=now, warm=warm)

    def customers(self, candidate: Truth, stable: Truth | None = None) -> Customers:
        return Customers(self.engine, self.sessions, "m", {"1": stable or Truth(), "2": candidate})

    async def until_over(self, entry: Entry, customers: Customers) -> Entry:
        """Customers come until the rollout has ended."""

        async def over() -> Entry | None:
            await customers.come(150)
            now = await rollout_of(self.sessions, entry)
            return now if now.rollout.phase in TERMINAL else None

        ended = await eventually(over, what=f"the rollout ends: {self.log}", every=0.1)
        assert ended is not None
        return ended

    async def runs(self, entry: Entry) -> list[analysis.Run]:
        """The looks that were kept, oldest first."""
        async with self.sessions() as session:
            return list(reversed(await analysis.runs(session, entry.id, limit=500)))

    async def leave_the_lease(self) -> None:
        """Spares the next reconciler the wait for a dead one's."""
        async with self.sessions.begin() as session:
            await session.execute(text("UPDATE leases SET expires_at = clock_timestamp()"))

    async def die_in(self, entry: Entry, customers: Customers, fault: str) -> bool:
        """Whether a reconciler with `fault` (see tests.support.faults) died of it before the rollout was over."""
        with reconciler(self.env, self.log, fault=fault) as child:

            async def ended() -> bool:
                await customers.come(150)
                now = await rollout_of(self.sessions, entry)  # one look: its end is not told with the phase before it
                return (now.rollout.phase in TERMINAL and now.told_at is not None) or child.poll() is not None

            await eventually(ended, what=f"{fault}: {self.log}", every=0.02)
            died = child.poll() is not None
            assert child.poll() in {None, -9}, self.log.read_text()
        await self.leave_the_lease()
        return died

    async def shown(self, entry: Entry) -> dict[int, datetime]:
        """Step -> when the first snapshot that carries it was saved."""
        first: dict[int, datetime] = {}
        async with self.sessions() as session:
            for row in await session.scalars(select(SnapshotRow).order_by(SnapshotRow.revision)):
                route = decode(row.document).models.get("m")
                if route is not None and route.rollout_id == str(entry.id) and route.step is not None:
                    first.setdefault(route.step, row.published_at)
        return first


async def recounted(session: AsyncSession, ended: Entry) -> None:
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
