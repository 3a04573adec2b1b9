"""Router, shipper, ingester and Redis killed in turn under traffic: every acknowledged prediction once in Postgres."""

import asyncio
import os
import signal
import sys
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, ExitStack
from pathlib import Path

import httpx
import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from tests.support.data_plane import children, client, document, router_process, save, target
from tests.support.fake_model_server import FakeModelServer, serving
from tests.support.processes import Child, eventually, redis_argv, running

pytestmark = pytest.mark.integration
BODY = {"features": {"a": 1, "text": "é"}}


class Plant:
    """Every process of the log under one roof, each of which can be killed and started again."""

    def __init__(self, home: Path, folder: Path, dsn: str) -> None:
        self.home, self.folder = home, folder
        folder.mkdir()
        self.redis_url = f"unix://{folder}/redis.sock"
        self._env = {"MLCP_HOME": str(home), "MLCP_REDIS_URL": self.redis_url, "MLCP_POSTGRES_DSN": dsn}
        self._argv = {
            "redis": redis_argv(folder),
            "shipper": [sys.executable, "-m", "control_plane.ingest.shipper"],
            "ingester": [sys.executable, "-m", "control_plane.ingest.ingester"],
        }
        self._stacks: dict[str, ExitStack] = {}
        self._children: dict[str, Child] = {}

    def start(self, name: str) -> None:
        if name == "redis":
            (self.folder / "redis.sock").unlink(missing_ok=True)
        stack = ExitStack()
        log = self.home / f"{name}-{time.monotonic_ns()}.log"
        self._children[name] = stack.enter_context(running(self._argv[name], log=log, env=self._env))
        self._stacks[name] = stack

    def kill(self, name: str) -> None:
        self._children[name].send_signal(signal.SIGKILL)
        self._children[name].wait()
        self._stacks.pop(name).close()

    def stop(self) -> None:
        for stack in self._stacks.values():
            stack.close()


@pytest.fixture
async def plant(home: Path, tmp_path: Path, dsn: str) -> AsyncIterator[Plant]:
    plant = Plant(home, tmp_path / "r", dsn)
    try:
        for name in ("redis", "shipper", "ingester"):
            plant.start(name)
        yield plant
    finally:
        plant.stop()


class Customers:
    """Predictions one after the other on a few connections; every acknowledged id kept."""

    def __init__(self, url: str) -> None:
        self._url = url
        self.acknowledged: list[str] = []
        self.lost = 0  # requests whose connection broke with the worker that held it
        self._stop = asyncio.Event()

    async def __aenter__(self) -> "Customers":
        self._tasks = [asyncio.create_task(self._one(n)) for n in range(8)]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._stop.set()
        await asyncio.gather(*self._tasks)

    async def some_more(self) -> None:
        enough = len(self.acknowledged) + 100

        async def there() -> bool:
            return len(self.acknowledged) >= enough

        await eventually(there, what="more predictions")

    async def _one(self, number: int) -> None:
        async with client(self._url) as product:
            while not self._stop.is_set():
                try:
                    answer = await product.post("/ml/churn/predict", json=BODY | {"unit_id": f"u{number}"})
                except httpx.TransportError:
                    self.lost += 1
                    continue
                assert answer.status_code == 200, answer.text
                assert "logged" not in answer.json()
                self.acknowledged.append(answer.json()["prediction_id"])
                await asyncio.sleep(0.01)


async def stored(engine: AsyncEngine) -> list[str]:
    async with engine.connect() as connection:
        rows = await connection.execute(text("SELECT prediction_id::text FROM predictions"))
        return [str(row[0]) for row in rows]


async def test_every_acknowledged_prediction_is_in_postgres_once_whoever_was_killed(
    home: Path, tmp_path: Path, plant: Plant, engine: AsyncEngine
) -> None:
    server = FakeModelServer(tmp_path / "1.sock")
    save(home, document(1, target("1", server.address), deadline_ms=5_000))
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(serving(server))
        url, parent = stack.enter_context(router_process(home, plant.redis_url, workers=2))
        async with Customers(url) as customers:
            await customers.some_more()
            for victim in ("shipper", "ingester", "redis"):
                plant.kill(victim)
                await customers.some_more()
                plant.start(victim)
                await customers.some_more()
            for worker in children(parent):
                os.kill(worker, signal.SIGKILL)
                await customers.some_more()
        assert customers.lost <= 16, "at most what the killed workers held"
        acknowledged = customers.acknowledged

        async def all_there() -> bool:
            return set(acknowledged) <= set(await stored(engine))

        await eventually(all_there, what="every acknowledged prediction in Postgres", every=0.5)
    found = await stored(engine)
    assert len(found) == len(set(found)) <= len(acknowledged) + customers.lost
    async with engine.connect() as connection:
        counted = await connection.scalar(text("SELECT sum(requests)::int FROM windows"))
    assert counted == len(found), "windows count what is stored, once"


async def test_a_full_disk_is_said_in_the_answer_and_predictions_go_on(home: Path, tmp_path: Path) -> None:
    server = FakeModelServer(tmp_path / "1.sock")
    save(home, document(1, target("1", server.address)))
    small = ["/bin/sh", "-c", 'ulimit -f 600; exec "$@"', "sh"]  # no file beyond 600 blocks of 512 bytes
    async with serving(server):
        with router_process(home, "unix:///nowhere/redis.sock", prefix=small) as (url, _):
            async with client(url) as product:
                large = {"features": {"text": "x" * 20_000}}
                answers = [(await product.post("/ml/churn/predict", json=large)).json() for _ in range(60)]
                metrics = (await product.get("/metrics")).text
    unlogged = [answer for answer in answers if answer.get("logged") is False]
    assert 0 < len(unlogged) < len(answers)
    assert all(answer["output"] == {"probability": 0.25} for answer in answers)
    assert f'model_predictions_unlogged_total{{model_name="churn"}} {len(unlogged)}.0' in metrics
