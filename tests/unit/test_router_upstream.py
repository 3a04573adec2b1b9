"""Calls over Unix sockets: many on one connection, answered in order, each lost or late for itself."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import uvloop

from control_plane.router.upstream import LINES, Pool
from tests.support.calls import Asked, Server, ends


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


async def test_calls_of_one_tick_leave_in_one_write_and_each_gets_its_own_answer(tmp_path: Path) -> None:
    async with serving(tmp_path) as (server, pool):
        first = Asked(b"first")
        pool.submit(first)
        assert await ends([first]) == [b"first"]
        calls = [Asked(b"call %d" % n) for n in range(20)]
        for call in calls:
            pool.submit(call)
        assert await ends(calls) == [b"call %d" % n for n in range(20)]
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
        assert await ends([other]) == [b"other"]
        assert not stuck.ended.done()
        assert server.connections == 2


async def test_a_late_call_fails_at_its_deadline_and_those_beside_it_are_answered(tmp_path: Path) -> None:
    async with serving(tmp_path) as (server, pool):
        server.held.clear()
        late, patient = Asked(b"late", 0.05), Asked(b"patient", 5)
        pool.submit(late)
        pool.submit(patient)
        assert await ends([late]) == ["deadline"]
        server.held.set()
        assert await ends([patient]) == [b"patient"], "the late answer is not taken for another call's"
        after = Asked(b"after")
        pool.submit(after)
        assert await ends([after]) == [b"after"]


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
        assert await ends(calls) == [b"0", b"1", b"2", b"3"]
        assert (server.connections, server.reads) == (1, [1, 3])


@pytest.mark.parametrize(("deaths", "end"), [(1, "answer"), (9, "dead")])
async def test_calls_of_a_lost_connection_are_tried_once_more_and_not_again(
    tmp_path: Path, deaths: int, end: str
) -> None:
    async with serving(tmp_path) as (server, pool):
        warm = Asked(b"warm")
        pool.submit(warm)
        await ends([warm])
        server.deaths = deaths
        calls = [Asked(b"%d" % n) for n in range(5)]
        for call in calls:
            pool.submit(call)
        wanted = [b"%d" % n for n in range(5)] if end == "answer" else ["dead"] * 5
        assert await ends(calls) == wanted


async def test_a_burst_before_the_first_connection_opens_no_more_than_its_lines(tmp_path: Path) -> None:
    async with serving(tmp_path) as (server, pool):
        calls = [Asked(b"%d" % n) for n in range(200)]
        for call in calls:
            pool.submit(call)
        assert await ends(calls) == [b"%d" % n for n in range(200)]
        assert server.connections <= 2


async def test_a_socket_nobody_listens_on_is_dead_and_a_late_one_is_waited_for(tmp_path: Path) -> None:
    pool = Pool(f"unix:{tmp_path / 's'}")
    impatient = Asked(b"x")
    impatient.patience = 0.0
    pool.submit(impatient)
    assert await ends([impatient]) == ["dead"]
    patient = Asked(b"y")
    pool.submit(patient)
    await asyncio.sleep(0.03)
    server = Server()
    listening = await asyncio.start_unix_server(server.serve, tmp_path / "s")
    assert await ends([patient]) == [b"y"]
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
            lost = await ends([first])
            pool.submit(second)
            return lost + await ends([second])

    monkeypatch.setattr(Pool, "opened", stalled)
    assert uvloop.run(two_calls()) == ["deadline", b"second"]
