"""Rests between two batches: who waits, for how long, and what never does."""

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import pytest
import uvloop
from hypothesis import given
from hypothesis import strategies as st

from control_plane.domain import sharing
from control_plane.domain.sharing import COMPANY, ENOUGH, REST_S, rest_s
from control_plane.router.http import Connection, Listener
from control_plane.router.request import Request
from control_plane.router.rest import Rest, Traffic
from control_plane.router.upstream import Pool
from tests.support.calls import Asked, Server, ends
from tests.support.processes import eventually

LONG_S = 0.6  # of a rest in these tests, so that a slow machine cannot mistake one for another thing
BUSY = COMPANY / REST_S  # requests a second


def test_a_worker_rests_where_enough_come_meanwhile_and_never_for_longer_than_enough_take() -> None:
    assert rest_s(BUSY, connections=100, peak=20) == REST_S
    assert rest_s(BUSY * 0.99, connections=100, peak=20) == 0.0
    assert rest_s(2 * ENOUGH / REST_S, connections=100, peak=20) == pytest.approx(REST_S / 2)


@pytest.mark.parametrize("connections", [1, 2, 16, 64, 512])
def test_nobody_is_waited_for_where_all_who_ask_wait_for_their_answers(connections: int) -> None:
    assert rest_s(100_000.0, connections, peak=connections) == 0.0
    assert rest_s(100_000.0, connections, peak=connections - connections // 4) == 0.0


@given(st.floats(0, 1e6), st.integers(0, 10_000), st.integers(0, 10_000))
def test_a_rest_has_a_bound(rate: float, connections: int, peak: int) -> None:
    assert 0.0 <= rest_s(rate, connections, peak) <= REST_S


@contextmanager
def elsewhere(*paths: Path) -> Iterator[list[Server]]:
    """Servers on a thread of their own: a resting worker's own loop stands still."""
    servers, loop, ready = [Server() for _ in paths], asyncio.new_event_loop(), threading.Event()

    async def serve() -> None:
        stop = asyncio.Event()
        stops.append(stop)
        made = [
            await asyncio.start_unix_server(server.serve, path) for server, path in zip(servers, paths, strict=True)
        ]
        ready.set()
        await stop.wait()
        for each in made:
            each.close()

    stops: list[asyncio.Event] = []
    thread = threading.Thread(target=lambda: loop.run_until_complete(serve()))
    thread.start()
    ready.wait()
    try:
        yield servers
    finally:
        loop.call_soon_threadsafe(stops[0].set)
        thread.join()
        loop.close()


@asynccontextmanager
async def pools(*paths: Path, pending: Callable[[], bool] = lambda: False) -> AsyncIterator[tuple[Rest, list[Pool]]]:
    rest = Rest(Traffic(), pending)
    made = [Pool(f"unix:{path}", rest=rest) for path in paths]
    try:
        for pool in made:
            warm = Asked(b"warm")
            pool.submit(warm)
            await ends([warm])
        rest.look()
        yield rest, made
    finally:
        for pool in made:
            await pool.end()
        rest.close()


@pytest.fixture
def long_rests(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sharing, "rest_s", lambda rate, connections, peak: LONG_S)


def submit(pool: Pool, calls: Sequence[Asked]) -> None:
    for call in calls:
        pool.submit(call)


async def answered(*calls: Asked) -> float:
    """When the last of them was, in monotonic seconds."""
    await ends(list(calls))
    return max(call.at for call in calls)


@pytest.mark.usefixtures("long_rests")
def test_the_answer_wakes_who_rests_and_what_came_meanwhile_leaves_together(tmp_path: Path) -> None:
    async def ask() -> None:
        async with pools(tmp_path / "s") as (_, (pool,)):
            began, first, *others = time.monotonic(), *(Asked(b"%d" % n) for n in range(5))
            first.then = lambda: submit(pool, others)
            pool.submit(first)
            assert await answered(*others) - began >= LONG_S
            assert first.at - began < LONG_S / 2

    with elsewhere(tmp_path / "s") as (server,):
        uvloop.run(ask())  # as the router does
    assert server.reads == [1, 1, 4]


@pytest.mark.usefixtures("long_rests")
def test_each_server_gets_one_batch_in_a_rest(tmp_path: Path) -> None:
    async def ask() -> None:
        async with pools(tmp_path / "1", tmp_path / "2") as (_, (one, two)):
            began, first, second, third = time.monotonic(), Asked(b"1"), Asked(b"2"), Asked(b"3")
            first.then, second.then = lambda: two.submit(second), lambda: two.submit(third)
            one.submit(first)
            assert await answered(third) - began >= LONG_S
            assert second.at - began < LONG_S / 2

    with elsewhere(tmp_path / "1", tmp_path / "2") as (one, two):
        uvloop.run(ask())  # as the router does
    assert (one.reads, two.reads) == ([1, 1], [1, 1, 1])


@pytest.mark.usefixtures("long_rests")
def test_no_rest_holds_up_answers_that_are_due(tmp_path: Path) -> None:
    looks = list[float]()

    def pending() -> bool:
        looks.append(time.monotonic())
        return len(looks) < 5

    async def ask() -> None:
        async with pools(tmp_path / "s", pending=pending) as (_, (pool,)):
            call = Asked(b"x")
            pool.submit(call)
            await ends([call])

    with elsewhere(tmp_path / "s"):
        uvloop.run(ask())  # as the router does
    assert looks[4] - looks[0] < LONG_S / 2


class Slow:
    """An application whose only route answers when it is told to."""

    streams, max_body = False, 1_000

    def __init__(self) -> None:
        self.requests: list[Request] = []

    def route(self, method: bytes, path: bytes) -> "Slow":
        return self

    def handle(self, request: Request) -> None:
        self.requests.append(request)


async def test_connections_that_ask_are_counted_once_a_look_and_who_leaves_is_not_under_way(tmp_path: Path) -> None:
    app = Slow()
    listener = Listener(app)
    server = await asyncio.get_running_loop().create_unix_server(lambda: Connection(listener), tmp_path / "s")
    clients = [await asyncio.open_unix_connection(str(tmp_path / "s")) for _ in range(3)]

    async def asked(count: int) -> None:
        async def come() -> bool:
            return len(app.requests) == count

        await eventually(come, what=f"{count} requests")

    async def under_way(count: int) -> None:
        async def left() -> bool:
            return listener.traffic.under_way == count

        await eventually(left, what=f"{count} under way")

    try:
        for round_ in (1, 2):
            for _, writer in clients:
                writer.write(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
            await asked(3 * round_)
            for request in app.requests[-3:] if round_ == 1 else []:
                request.respond(200, b"{}")
        assert (listener.traffic.asked, listener.traffic.connections) == (6, 3)
        assert (listener.traffic.under_way, listener.traffic.peak) == (3, 3)
        clients[0][1].close()
        app.requests[-1].respond(200, b"{}")
        await under_way(1)
        listener.traffic.again()
        assert (listener.traffic.asked, listener.traffic.connections, listener.traffic.peak) == (0, 0, 1)
        clients[1][1].close()
        await under_way(0)
    finally:
        for _, writer in clients:
            writer.close()
        server.close()
        await server.wait_closed()
