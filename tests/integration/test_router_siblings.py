"""Workers of one router: connections gather with one of them, move while requests go on, and survive its death."""

import asyncio
import os
import signal
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import psutil
import pytest

from control_plane.domain import sharing
from control_plane.domain.sharing import Move, Seen
from control_plane.router import siblings
from control_plane.router.__main__ import bind
from control_plane.router.siblings import Board
from tests.support.data_plane import children, client, document, records, router_process, save, target, worker
from tests.support.fake_model_server import FakeModelServer, serving
from tests.support.processes import eventually

pytestmark = pytest.mark.integration
NOWHERE = "unix:///nowhere/redis.sock"
CUSTOMERS = 8


def held(pids: Sequence[int], port: int) -> dict[int, int]:
    """Open connections of each worker."""
    found = dict[int, int]()
    for pid in pids:
        try:
            made = psutil.Process(pid).net_connections("tcp")
        except psutil.NoSuchProcess:
            continue
        found[pid] = sum(one.status == psutil.CONN_ESTABLISHED and one.laddr.port == port for one in made)
    return found


@dataclass
class Customers:
    """Each on a connection of its own, one request after the other."""

    url: str
    answers: list[str] = field(default_factory=list[str])  # prediction ids
    broken: int = 0
    stopping: bool = False

    async def one(self, number: int) -> None:
        padding = "x" * (1 if number % 2 else 200_000)  # some arrive in many pieces
        while not self.stopping:
            async with client(self.url) as product:
                while not self.stopping:
                    body = {"features": {"a": len(self.answers), "padding": padding}, "unit_id": f"u{number}"}
                    try:
                        answer = await product.post("/ml/churn/predict", json=body)
                    except httpx.TransportError:
                        self.broken += 1
                        break
                    assert answer.status_code == 200, answer.text
                    self.answers.append(answer.json()["prediction_id"])


@asynccontextmanager
async def customers(url: str) -> AsyncIterator[Customers]:
    these = Customers(url)
    tasks = [asyncio.create_task(these.one(number)) for number in range(CUSTOMERS)]
    yield these
    these.stopping = True
    await asyncio.gather(*tasks)


async def test_connections_gather_with_one_worker_and_again_after_its_death(home: Path, tmp_path: Path) -> None:
    server = FakeModelServer(tmp_path / "1.sock")
    save(home, document(1, target("1", server.address)))
    async with serving(server):
        with router_process(home, NOWHERE, workers=2) as (url, parent):
            port = int(url.rpartition(":")[2])

            async def gathered() -> int | None:
                found = held(children(parent), port)
                return next((pid for pid, count in found.items() if count == CUSTOMERS == sum(found.values())), None)

            async with customers(url) as these:
                first = await eventually(gathered, what="all with one worker")
                assert first is not None
                assert len(children(parent)) == 2
                assert these.broken == 0
                os.kill(first, signal.SIGKILL)

                async def again() -> bool:
                    now = await gathered()
                    return len(children(parent)) == 2 and now is not None and now != first

                await eventually(again, what="all with one worker again")
                assert these.broken <= CUSTOMERS, "only what was on its connections"
                broken, seen = these.broken, len(these.answers)

                async def goes_on() -> bool:
                    return len(these.answers) > seen + 50

                await eventually(goes_on, what="answers")
                assert these.broken == broken
    kept = Counter(str(record.prediction_id) for record in records(home))
    assert {answer for answer in these.answers if kept[answer] != 1} == set()


async def test_a_connection_that_moves_again_and_again_loses_no_request(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    moved = list[Move]()

    def everything(me: int, seen: Sequence[Seen], now: float) -> Move | None:
        if not seen[me].connections:
            return None
        moved.append(Move(1 - me, seen[me].connections))
        return moved[-1]

    monkeypatch.setattr(sharing, "hands_over", everything)
    monkeypatch.setattr(siblings, "MOVE_S", 0.02)
    monkeypatch.setattr(siblings, "LOOK_S", 0.01)
    server = FakeModelServer(tmp_path / "1.sock")
    save(home, document(1, target("1", server.address)))
    board, listening = Board(2), bind("127.0.0.1", 0)
    among = (board, listening)
    async with (
        serving(server),
        worker(home, NOWHERE, slot=0, among=among) as url,
        worker(home, NOWHERE, slot=1, among=among),
        customers(url) as these,
    ):

        async def enough() -> bool:
            return len(these.answers) > 1_000 and {move.to for move in moved} == {0, 1} and len(moved) > 50

        await eventually(enough, what="requests on connections that move")
    assert these.broken == 0
    assert sorted(str(record.prediction_id) for record in records(home)) == sorted(these.answers)
    listening.close()
    board.close()
