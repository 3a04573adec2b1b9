"""Rests between two batches: who waits, for how long, and what never does."""

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import uvloop
from hypothesis import given
from hypothesis import strategies as st

from control_plane.domain import sharing
from control_plane.domain.sharing import COMPANY, ENOUGH, GAPS, REST_S, Rests, rests
from control_plane.router.http import Connection, Listener
from control_plane.router.request import Request
from control_plane.router.rest import Rest, Traffic
from control_plane.router.upstream import Pool
from tests.support.calls import Asked, Server, ends
from tests.support.processes import eventually

LONG_S = 0.6  # of a rest in these tests, so that a slow machine cannot mistake one for another thing
BUSY = COMPANY / REST_S  # requests a second


def test_a_worker_rests_where_enough_come_meanwhile_and_never_for_longer_than_enough_take() -> None:
    assert rests(BUSY, connections=100, peak=20) == Rests(REST_S)
    assert rests(BUSY * 0.99, connections=100, peak=20) == Rests()
    assert rests(2 * ENOUGH / REST_S, connections=100, peak=20).seconds == pytest.approx(REST_S / 2)


@pytest.mark.parametrize("connections", [COMPANY, 16, 64, 512])
def test_those_who_all_wait_for_their_answers_make_rounds(connections: int) -> None:
    assert rests(BUSY, connections, peak=connections) == Rests(REST_S, everybody=connections)
    assert rests(BUSY, connections, peak=connections - connections // 4) == Rests(REST_S, everybody=connections)


@pytest.mark.parametrize("connections", range(COMPANY))
def test_a_few_who_wait_for_their_answers_are_never_waited_for(connections: int) -> None:
    assert rests(100_000.0, connections, peak=connections) == Rests()


@given(st.floats(0, 1e6), st.integers(0, 10_000), st.integers(0, 10_000))
def test_a_rest_has_a_bound(rate: float, connections: int, peak: int) -> None:
    made = rests(rate, connections, peak)
    assert 0.0 <= made.seconds <= REST_S
    assert made.everybody in (0, connections)


@given(st.integers(1, 1_000), st.lists(st.integers(0, 1_000), min_size=GAPS + 1, max_size=GAPS + 1))
def test_a_round_waits_for_nobody_once_all_have_come_nor_for_long(everybody: int, coming: list[int]) -> None:
    made, came, before = Rests(REST_S, everybody), 0, 0
    for gaps, more in enumerate(coming):
        came += more
        waits = made.wait(came, before, gaps)
        assert not (waits and (came >= everybody or gaps == GAPS))
        if not waits:
            return
        before = came
    pytest.fail("waits for ever")


def test_a_round_that_half_have_come_to_ends_with_the_first_gap_that_brings_nobody() -> None:
    made = Rests(REST_S, everybody=16)
    assert made.wait(8, 0, gaps=0)
    assert made.wait(9, 8, gaps=1)
    assert not made.wait(9, 9, gaps=2)
    assert made.wait(7, 7, gaps=2)


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
        if serving := asyncio.all_tasks() - {asyncio.current_task()}:
            _, left = await asyncio.wait(serving, timeout=LONG_S)
            for task in left:
                task.cancel()
            await asyncio.gather(*left, return_exceptions=True)
        await asyncio.sleep(0.01)  # transports are closed in the next rounds of the loop

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
async def pools(
    *paths: Path, pending: Callable[[], bool] = lambda: False, traffic: Traffic | None = None
) -> AsyncIterator[tuple[Rest, list[Pool]]]:
    rest = Rest(traffic or Traffic(), pending)
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
    monkeypatch.setattr(sharing, "rests", lambda rate, connections, peak: Rests(LONG_S))


EVERYBODY = 4
ROUND_S = 60.0  # longest round where its length is not the question


@pytest.fixture
def rounds(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    seconds: float = getattr(request, "param", ROUND_S)
    monkeypatch.setattr(sharing, "rests", lambda rate, connections, peak: Rests(seconds, EVERYBODY))
    monkeypatch.setattr(sharing, "GAP_S", LONG_S / 20)


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
def test_batches_leave_between_rests_only_whoever_they_are_for(tmp_path: Path) -> None:
    async def ask() -> None:
        async with pools(tmp_path / "1", tmp_path / "2") as (_, (one, two)):
            began, first, second, third = time.monotonic(), Asked(b"1"), Asked(b"2"), Asked(b"3")
            first.then = lambda: (two.submit(second), two.submit(third))
            one.submit(first)
            assert await answered(second, third) - began >= LONG_S
            assert first.at - began < LONG_S / 2

    with elsewhere(tmp_path / "1", tmp_path / "2") as (one, two):
        uvloop.run(ask())  # as the router does
    assert (one.reads, two.reads) == ([1, 1], [1, 2])


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


@dataclass
class Clients:
    """Each asks `pools[n]` in turn, again as soon as it is answered: thinking for `pause_s`, if that is long enough."""

    traffic: Traffic
    ended: list[asyncio.Future[float]] = field(default_factory=list[asyncio.Future[float]])

    def ask(self, *where: Pool, pause_s: float = 0.0) -> None:
        """Once each of `where`; `ended` gets when each was answered."""
        call, loop = Asked(b"x"), asyncio.get_running_loop()
        end: asyncio.Future[float] = loop.create_future()
        self.ended.append(end)
        self.traffic.under_way += 1

        def then() -> None:
            self.traffic.under_way -= 1
            end.set_result(time.monotonic())
            if len(where) > 1:
                loop.call_later(pause_s, lambda: self.ask(*where[1:], pause_s=pause_s))

        call.then = then
        where[0].submit(call)

    async def all(self, count: int) -> list[float]:
        async def there() -> bool:
            return len(self.ended) == count and all(end.done() for end in self.ended)

        await eventually(there, what=f"{count} answers")
        return [end.result() for end in self.ended]


@pytest.mark.usefixtures("rounds")
def test_a_round_leaves_together_as_soon_as_everybody_has_asked_again(tmp_path: Path) -> None:
    async def ask() -> float:
        traffic = Traffic()
        async with pools(tmp_path / "s", traffic=traffic) as (_, (pool,)):
            clients, began = Clients(traffic), time.monotonic()
            for at in range(EVERYBODY):  # they come back one after the other
                clients.ask(pool, pool, pause_s=at * 0.01)
            return max(await clients.all(2 * EVERYBODY)) - began

    with elsewhere(tmp_path / "s") as (server,):
        took = uvloop.run(ask())
    assert server.reads == [1, EVERYBODY, EVERYBODY]
    assert took < ROUND_S / 2


@pytest.mark.usefixtures("rounds")
def test_a_round_goes_without_who_does_not_ask_again(tmp_path: Path) -> None:
    async def ask() -> None:
        traffic = Traffic()
        async with pools(tmp_path / "s", traffic=traffic) as (_, (pool,)):
            clients = Clients(traffic)
            for at in range(EVERYBODY):
                clients.ask(pool, *([pool] if at else []))
            await clients.all(2 * EVERYBODY - 1)

    with elsewhere(tmp_path / "s") as (server,):
        uvloop.run(ask())
    assert server.reads == [1, EVERYBODY, EVERYBODY - 1]


@pytest.mark.usefixtures("rounds")
def test_all_servers_keep_to_one_round(tmp_path: Path) -> None:
    """Who comes while it is under way waits for its end, though his server has nothing to do."""

    async def ask() -> None:
        traffic = Traffic()
        async with pools(tmp_path / "1", tmp_path / "2", traffic=traffic) as (_, (one, two)):
            clients = Clients(traffic)
            for at in range(EVERYBODY):
                clients.ask(one, two if at % 2 else one)
            await clients.all(2 * EVERYBODY)

    with elsewhere(tmp_path / "1", tmp_path / "2") as (one, two):
        uvloop.run(ask())
    assert (one.reads, two.reads) == ([1, EVERYBODY, EVERYBODY // 2], [1, EVERYBODY // 2])


@pytest.mark.usefixtures("rounds")
@pytest.mark.parametrize("rounds", [2.0], indirect=True)
def test_a_slow_server_holds_up_one_round_and_that_not_for_long(tmp_path: Path) -> None:
    async def ask(slow: Server) -> None:
        traffic = Traffic()
        async with pools(tmp_path / "1", tmp_path / "2", traffic=traffic) as (_, (one, two)):
            slow.seconds = ROUND_S
            clients, began = Clients(traffic), time.monotonic()
            clients.ask(two)
            for _ in range(EVERYBODY - 1):
                clients.ask(one, one, one)

            async def rounds() -> bool:
                return sum(end.done() for end in clients.ended) == 3 * (EVERYBODY - 1)

            await eventually(rounds, what="three rounds of the others")
            times = sorted(end.result() - began for end in clients.ended[1:])
            assert times[EVERYBODY - 1] >= 2.0, "waited for in the round it began in"
            assert times[-1] < 4.0, "and in no other"

    with elsewhere(tmp_path / "1", tmp_path / "2") as (_, slow):
        uvloop.run(ask(slow))


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
