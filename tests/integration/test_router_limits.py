"""One limit shared by the workers of several routers, with a real Redis and without one."""

import asyncio
import time
from collections.abc import Sequence
from pathlib import Path

import httpx
import pytest

from control_plane.adapters import bus
from control_plane.router.limits import burst
from tests.support.data_plane import ADMIN, client, document, router, save, target, worker
from tests.support.fake_model_server import FakeModelServer, serving
from tests.support.processes import redis_argv, running, wait_until

pytestmark = pytest.mark.integration
NOWHERE = "unix:///nowhere/redis.sock"
BODY = {"features": {"a": 1}}
RATE = 40.0


async def passed(clients: Sequence[httpx.AsyncClient], seconds: float) -> tuple[int, int, float]:
    """How many requests passed and were refused, and how long that took."""
    began = time.monotonic()
    counts = {200: 0, 429: 0}

    async def ask(product: httpx.AsyncClient) -> None:
        while time.monotonic() < began + seconds:
            answer = await product.post("/ml/churn/predict", json=BODY)
            counts[answer.status_code] += 1
            await asyncio.sleep(0.005)

    await asyncio.gather(*(ask(product) for product in clients))
    return counts[200], counts[429], time.monotonic() - began


def homes(tmp_path: Path, sealed: bytes) -> list[Path]:
    made = [tmp_path / "host-a", tmp_path / "host-b"]
    for home in made:
        save(home, sealed)
    return made


async def test_workers_of_two_routers_share_a_limit_and_leave_it_to_the_one_that_is_asked(
    tmp_path: Path, redis: str
) -> None:
    server = FakeModelServer(tmp_path / "1.sock")
    a, b = homes(tmp_path, document(1, target("1", server.address), key_rps=RATE))
    async with serving(server):
        with router(a, redis, workers=2) as url_a, router(b, redis, workers=2) as url_b:
            async with client(url_a) as one, client(url_a) as two, client(url_b) as three, client(url_b) as four:
                count, refused, took = await passed([one, two, three, four], 4)
                assert refused > 0
                assert count <= RATE * took + burst(RATE, 4)
                # One connection is one worker: it has its own quarter, the rest comes from its idle siblings.
                count, refused, took = await passed([one], 6)
                assert RATE / 4 * took + burst(RATE, 4) < count <= RATE * took + burst(RATE, 4)
            async with client(url_a, ADMIN) as unlimited:
                for _ in range(int(RATE / 2)):  # as many as are answered in time on a slow machine, six at a time
                    answers = await asyncio.gather(*(unlimited.post("/ml/churn/predict", json=BODY) for _ in range(6)))
                    assert {answer.status_code for answer in answers} == {200}


async def test_without_redis_each_worker_keeps_its_share_even_over_a_restart(tmp_path: Path) -> None:
    server = FakeModelServer(tmp_path / "1.sock")
    a, b = homes(tmp_path, document(1, target("1", server.address), key_rps=RATE))
    folder = tmp_path / "r"
    folder.mkdir()
    url = f"unix://{folder}/redis.sock"

    def told() -> bool:
        files = [home / "router" / "workers" for home in (a, b)]
        return all(file.exists() and file.read_text() == "4" for file in files)

    async with serving(server):
        with router(a, url, workers=2) as url_a, router(b, url, workers=2) as url_b:
            with running(redis_argv(folder), log=tmp_path / "redis.log"):
                wait_until(told, what="that they are four")
            async with client(url_a) as one, client(url_a) as two, client(url_b) as three, client(url_b) as four:
                await passed([one, two, three, four], 2)
                count, refused, took = await passed([one, two, three, four], 3)
        assert refused > 0
        assert RATE * took / 2 < count <= RATE * took + burst(RATE, 4), "of a router all goes to the worker asked"
        with router(a, NOWHERE, workers=1) as alone:
            async with client(alone) as product:
                count, _, took = await passed([product], 3)
        assert count <= RATE / 4 * took + RATE / 4 + 1, "a quarter: as many were alive when Redis was"


async def test_the_answer_beyond_the_limit_is_a_problem_document_and_counted(home: Path, tmp_path: Path) -> None:
    server = FakeModelServer(tmp_path / "1.sock")
    save(home, document(1, target("1", server.address), rate_limit_rps=0.5))
    async with serving(server), worker(home, NOWHERE, router_workers=1) as url, client(url) as product:
        first = await product.post("/ml/churn/predict", json=BODY)
        second = await product.post("/ml/churn/predict", json=BODY, headers={"x-request-id": "r"})
        explained = await product.post("/ml/churn/explain", json=BODY)
        metrics = (await product.get("/metrics")).text
    assert (first.status_code, second.status_code, explained.status_code) == (200, 429, 429)
    assert second.headers["content-type"] == "application/problem+json"
    assert 1 <= int(second.headers["retry-after"]) <= 2
    assert second.headers["ratelimit-policy"] == '"model";q=1;w=2'
    assert second.headers["ratelimit"].startswith('"model";r=0;t=')
    assert second.headers["x-request-id"] == "r"
    assert second.json()["type"].endswith("/rate-limited")
    assert 'model_requests_rate_limited_total{limit="model",model_name="churn"} 2.0' in metrics
    assert len(server.requests) == 1


async def test_a_worker_is_a_newcomer_once_and_again_to_a_redis_that_came_back_empty(redis: str) -> None:
    connection = bus.connect(redis)
    traded = [await bus.trade(connection, name, []) for name in ("a", "b", "a")]
    assert [(t.workers, t.newcomer) for t in traded] == [(1, True), (2, True), (2, False)]
    await bus.leave(connection, "b")
    assert (await bus.trade(connection, "a", [])).workers == 1
    await connection.flushall()
    assert (await bus.trade(connection, "a", [])).newcomer
    await connection.aclose()


async def test_the_pool_gives_what_was_given_and_no_more(redis: str) -> None:
    connection = bus.connect(redis)
    assert (await bus.trade(connection, "a", [bus.Offer("key:k", 0, 5, 20)])).granted == {}
    given = await bus.trade(connection, "b", [bus.Offer("key:k", 30, 0, 20)])
    assert given.wanted == {"key:k"}
    taken = [(await bus.trade(connection, "a", [bus.Offer("key:k", 0, 15, 20)])).granted for _ in range(3)]
    assert taken == [{"key:k": 15.0}, {"key:k": 5.0}, {}]
    await connection.aclose()
