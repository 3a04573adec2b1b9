"""More than can be carried: what a router does for those it can still serve."""

import asyncio
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.support.data_plane import KEY, client, document, router, save, target, worker
from tests.support.fake_model_server import FakeModelServer, serving
from tests.support.load import Load
from tests.support.processes import eventually

pytestmark = pytest.mark.integration
NOWHERE = "unix:///nowhere/redis.sock"
BODY: dict[str, Any] = {"features": {"a": 1}}


class Faltering(FakeModelServer):
    """Loses the connections of its first requests, as a worker that dies does; its siblings answer."""

    losses = 1

    async def _read(self, reader: asyncio.StreamReader) -> tuple[str, dict[str, str], bytes]:
        if self.losses:
            await reader.readuntil(b"\r\n\r\n")
            self.losses -= 1
            raise ConnectionResetError
        return await super()._read(reader)


async def test_a_lost_connection_is_tried_once_more_and_not_again(home: Path, tmp_path: Path) -> None:
    server = Faltering(tmp_path / "1.sock")
    save(home, document(1, target("1", server.address)))
    async with serving(server), worker(home, NOWHERE) as url, client(url) as product:
        assert (await product.post("/ml/churn/predict", json=BODY)).status_code == 200
        assert len(server.requests) == 1
        await server.die()
        server.losses = 2
        await server.start()
        assert (await product.post("/ml/churn/predict", json=BODY)).status_code == 503
        assert (server.losses, len(server.requests)) == (0, 1)
        assert (await product.post("/ml/churn/predict", json=BODY)).status_code == 200


async def test_shadow_copies_beyond_their_budget_are_dropped_and_answers_do_not_wait(
    home: Path, tmp_path: Path
) -> None:
    old, new = FakeModelServer(tmp_path / "1.sock", "1"), FakeModelServer(tmp_path / "2.sock", "2")
    new.mode = "hang"
    one, two = target("1", old.address), target("2", new.address)
    save(home, document(1, one, two, arms={"stable": (10_000, one)}, shadows=[(two, 10_000)], deadline_ms=3_000))
    async with serving(old, new), worker(home, NOWHERE) as url, client(url) as product:
        answers = await asyncio.gather(*(product.post("/ml/churn/predict", json=BODY) for _ in range(60)))
        assert {answer.status_code for answer in answers} == {200}

        async def copied() -> bool:
            return len(new.requests) == 16

        await eventually(copied, what="as many copies as the budget has")
        assert len(old.requests) == 60


async def test_under_more_load_than_it_can_carry_what_is_done_reaches_somebody_in_time(
    home: Path, tmp_path: Path
) -> None:
    """At most 160 requests a second can be done and 400 are asked for: whoever waits for his turn waits too long."""
    server = FakeModelServer(tmp_path / "1.sock")
    server.delay_s, server.capacity = 0.025, asyncio.Semaphore(4)
    save(home, document(1, target("1", server.address), deadline_ms=600))
    async with serving(server):
        with router(home, NOWHERE) as url, Load(url, KEY, "churn", BODY, rate=400, connections=256) as load:

            async def adapted() -> bool:
                before = Counter(load.statuses)
                await asyncio.sleep(1)
                now = load.statuses - before
                return now[503] > 0 and now[200] > 20 and now[504] <= now[200] / 10

            await eventually(adapted, what="that some are refused and nearly all others answered in time")
            before, worked_before = Counter(load.statuses), len(server.requests)
            await asyncio.sleep(3)
            during, worked = load.statuses - before, len(server.requests) - worked_before
    assert during[200] >= 0.7 * worked, (during, worked)
    assert during[504] <= 0.2 * during[200], during
