"""Leadership: one leader, no write by a stale one."""

import asyncio
import os
import signal
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from control_plane.adapters.store import lease
from control_plane.adapters.store.lease import Lease, LeaseLost
from tests.support.processes import eventually
from tests.support.reconciler import environment, reconciler

pytestmark = pytest.mark.integration
Sessions = async_sessionmaker[AsyncSession]
SHORT, LONG = timedelta(seconds=2), timedelta(minutes=5)


async def take(maker: Sessions, holder: str, ttl: timedelta) -> Lease | None:
    async with maker.begin() as session:
        return await lease.acquire(session, "l", holder, ttl)


async def hold(maker: Sessions, mine: Lease) -> None:
    async with maker.begin() as session:
        await lease.hold(session, mine)


async def expire(maker: Sessions) -> None:
    async with maker.begin() as session:
        await session.execute(text("UPDATE leases SET expires_at = clock_timestamp() WHERE name = 'l'"))


async def test_one_of_many_leads_and_its_successor_has_a_higher_epoch(maker: Sessions) -> None:
    won = [one for one in await asyncio.gather(*(take(maker, f"h{i}", LONG) for i in range(5))) if one]
    assert [one.epoch for one in won] == [1]
    assert await take(maker, "late", LONG) is None
    await expire(maker)
    with pytest.raises(LeaseLost):  # expired, though nobody took it
        await hold(maker, won[0])
    second = await take(maker, "late", LONG)
    assert second is not None
    assert second.epoch == 2
    with pytest.raises(LeaseLost):
        async with maker.begin() as session:
            await lease.renew(session, won[0], LONG)
    async with maker.begin() as session:
        await lease.release(session, second)
    third = await take(maker, "next", LONG)
    assert third is not None
    assert third.epoch == 3


async def test_nobody_takes_over_while_the_leader_writes(maker: Sessions) -> None:
    first = await take(maker, "a", SHORT)
    assert first is not None
    async with maker.begin() as session:
        await lease.hold(session, first)
        takeover = asyncio.create_task(take(maker, "b", LONG))
        await asyncio.sleep(SHORT.total_seconds() + 0.2)
        assert not takeover.done()
    second = await takeover
    assert second is not None
    assert second.epoch == 2
    with pytest.raises(LeaseLost):
        await hold(maker, first)


async def leader(maker: Sessions) -> tuple[str, int] | None:
    async with maker() as session:
        query = "SELECT holder, epoch FROM leases WHERE name = 'reconciler' AND expires_at > clock_timestamp()"
        row = (await session.execute(text(query))).first()
        return None if row is None else (row.holder, row.epoch)


async def test_a_leader_stopped_across_its_expiry_wakes_up_to_a_successor_and_writes_nothing(
    maker: Sessions, dsn: str, redis: str, home: Path, tmp_path: Path
) -> None:
    env = environment(dsn, redis, home) | {"MLCP_LEASE_S": "1.5"}
    with reconciler(env, tmp_path / "a.log") as first:

        async def leads(pid: int) -> tuple[str, int] | None:
            found = await leader(maker)
            return found if found and f":{pid}:" in found[0] else None

        held = await eventually(lambda: leads(first.pid), what="the first leads")
        assert held is not None
        with reconciler(env, tmp_path / "b.log") as second:
            await asyncio.sleep(2.5)
            assert await leads(first.pid) == held  # two run, one leads, and it renews
            os.kill(first.pid, signal.SIGSTOP)
            try:
                taken = await eventually(lambda: leads(second.pid), what="the second takes over")
            finally:
                os.kill(first.pid, signal.SIGCONT)
            assert taken is not None
            assert taken[1] == held[1] + 1

            async def noticed() -> bool:
                return "leadership lost" in (tmp_path / "a.log").read_text()

            await eventually(noticed, what="the first notices")
            assert await leads(second.pid) == taken
            with pytest.raises(LeaseLost):
                await hold(maker, Lease("reconciler", *held))
