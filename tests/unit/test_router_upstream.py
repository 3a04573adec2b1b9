"""Calls over Unix sockets: many on one connection, answered in order, each lost or late for itself."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import uvloop

from control_plane.router.calls import request_head
from control_plane.router.upstream import LINES, Pool

HEAD = request_head("POST", "/predict")


class Asked:
    """A call that remembers how it ended."""

    def __init__(self, body: bytes, seconds: float = 5.0) -> None:
        self.request = b"%b%d\r\n\r\n%b" % (HEAD, len(body), body)
        self.deadline = asyncio.get_running_loop().time() + seconds
        self.patience = self.deadline
        self.ended: asyncio.Future[bytes | str] = asyncio.get_running_loop().create_future()

    def answered(self, status: int, body: bytes) -> None:
        self.ended.set_result(body)  # a second end of a call raises here

    def failed(self, reason: str) -> None:
        self.ended.set_result(reason)


class Server:
    """Echoes bodies. Counts connections and reads; `held` keeps answers back, `deaths` connections die at once."""

    def __init__(self) -> None:
        self.connections = 0
        self.reads: list[int] = []  # requests in each read
        self.read = asyncio.Event()
        self.held = asyncio.Event()
        self.held.set()
        self.deaths = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while data := await reader.read(1 << 20):
                if self.deaths:
                    self.deaths -= 1
                    return
                bodies = [part.partition(b"\r\n\r\n")[2] for part in data.split(b"POST ")[1:]]
                self.reads.append(len(bodies))
                self.read.set()
                await self.held.wait()
                for body in bodies:
                    writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body))
        except ConnectionError:
            pass
        finally:
            writer.close()


@asynccontextmanager
async def serving(folder: Path, *, lines: int = LINES) -> AsyncIterator[tuple[Server, Pool]]:
    made = Server()
    listening = await asyncio.start_unix_server(made.serve, folder / "s")
    pool = Pool(f"unix:{folder / 's'}", lines=lines)
    try:
        yield made, pool
    finally:
        made.held.set()
        await pool.end()
        listening.close()


async def _ends(calls: list[Asked]) -> list[bytes | str]:
    async with asyncio.timeout(10):
        return list(await asyncio.gather(*(call.ended for call in calls)))


async def test_calls_of_one_tick_leave_in_one_write_and_each_gets_its_own_answer(tmp_path: Path) -> None:
    async with serving(tmp_path) as (server, pool):
        first = Asked(b"first")
        pool.submit(first)
        assert await _ends([first]) == [b"first"]
        calls = [Asked(b"call %d" % n) for n in range(20)]
        for call in calls:
            pool.submit(call)
        assert await _ends(calls) == [b"call %d" % n for n in range(20)]
        assert (server.connections, server.reads) == (1, [1, 20])


async def test_calls_do_not_queue_behind_an_answer_that_does_not_come(tmp_path: Path) -> None:
    async with serving(tmp_path) as (server, pool):
        server.held.clear()
        stuck = Asked(b"stuck")
        pool.submit(stuck)
        await server.read.wait()
        server.held = asyncio.Event()
        server.held.set()
        other = Asked(b"other")
        pool.submit(other)
        assert await _ends([other]) == [b"other"]
        assert not stuck.ended.done()
        assert server.connections == 2


async def test_a_late_call_fails_at_its_deadline_and_those_beside_it_are_answered(tmp_path: Path) -> None:
    async with serving(tmp_path) as (server, pool):
        server.held.clear()
        late, patient = Asked(b"late", 0.05), Asked(b"patient", 5)
        pool.submit(late)
        pool.submit(patient)
        assert await _ends([late]) == ["deadline"]
        server.held.set()
        assert await _ends([patient]) == [b"patient"], "the late answer is not taken for another call's"
        after = Asked(b"after")
        pool.submit(after)
        assert await _ends([after]) == [b"after"]


async def test_closing_sends_what_is_held_and_dials_nothing_anew(tmp_path: Path) -> None:
    async with serving(tmp_path, lines=1) as (server, pool):
        server.held.clear()
        first, *held = calls = [Asked(b"%d" % n) for n in range(4)]
        pool.submit(first)
        await server.read.wait()
        for call in held:
            pool.submit(call)
        pool.close()
        server.held.set()
        assert await _ends(calls) == [b"0", b"1", b"2", b"3"]
        assert (server.connections, server.reads) == (1, [1, 3])


@pytest.mark.parametrize(("deaths", "end"), [(1, "answer"), (9, "dead")])
async def test_calls_of_a_lost_connection_are_tried_once_more_and_not_again(
    tmp_path: Path, deaths: int, end: str
) -> None:
    async with serving(tmp_path) as (server, pool):
        warm = Asked(b"warm")
        pool.submit(warm)
        await _ends([warm])
        server.deaths = deaths
        calls = [Asked(b"%d" % n) for n in range(5)]
        for call in calls:
            pool.submit(call)
        wanted = [b"%d" % n for n in range(5)] if end == "answer" else ["dead"] * 5
        assert await _ends(calls) == wanted


async def test_a_burst_before_the_first_connection_opens_no_more_than_its_lines(tmp_path: Path) -> None:
    async with serving(tmp_path) as (server, pool):
        calls = [Asked(b"%d" % n) for n in range(200)]
        for call in calls:
            pool.submit(call)
        assert await _ends(calls) == [b"%d" % n for n in range(200)]
        assert server.connections <= 2


async def test_a_socket_nobody_listens_on_is_dead_and_a_late_one_is_waited_for(tmp_path: Path) -> None:
    pool = Pool(f"unix:{tmp_path / 's'}")
    impatient = Asked(b"x")
    impatient.patience = 0.0
    pool.submit(impatient)
    assert await _ends([impatient]) == ["dead"]
    patient = Asked(b"y")
    pool.submit(patient)
    await asyncio.sleep(0.03)
    server = Server()
    listening = await asyncio.start_unix_server(server.serve, tmp_path / "s")
    assert await _ends([patient]) == [b"y"]
    await pool.end()
    listening.close()


def test_a_connection_made_too_late_for_who_dialled_carries_no_later_call(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened, stalls = Pool.opened, [0.1, 0.0]

    def stalled(pool: Pool, connection: Any) -> None:
        opened(pool, connection)
        time.sleep(stalls.pop(0))  # the whole loop, for longer than the first call's deadline

    async def two_calls() -> list[bytes | str]:
        async with asyncio.timeout(10), serving(tmp_path) as (_, pool):
            first, second = Asked(b"first", 0.05), Asked(b"second")
            pool.submit(first)
            ends = await _ends([first])
            pool.submit(second)
            return ends + await _ends([second])

    monkeypatch.setattr(Pool, "opened", stalled)
    assert uvloop.run(two_calls()) == ["deadline", b"second"]
