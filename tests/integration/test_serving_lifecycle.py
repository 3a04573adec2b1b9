"""Start, death and end of a model server's processes."""

import asyncio
import json
import os
import signal
import socket
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support import native_artifacts
from tests.support.model_server import CHURN, ROW, ModelServer, run_to_end, serving, spec_of
from tests.support.processes import eventually, wait_until

pytestmark = pytest.mark.integration
BODY = json.dumps({"features": ROW}).encode()


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return native_artifacts.linear_binary(tmp_path_factory.mktemp("artifact"))


@pytest.fixture
def server(artifact: Path) -> Iterator[ModelServer]:
    with serving(artifact, CHURN) as running:
        yield running


@pytest.mark.parametrize("module", ["model_servers.runtime", "model_servers.launch"])
def test_an_artifact_that_is_not_the_registered_one_is_never_served(tmp_path: Path, module: str) -> None:
    folder = native_artifacts.linear_binary(tmp_path / "artifact")
    spec = spec_of(folder, tmp_path, CHURN)
    (folder / "manifest.json").write_text((folder / "manifest.json").read_text().replace("0.4", "0.5"))
    code, log = run_to_end(spec, tmp_path, module=module)
    assert code == 3
    (line,) = log.splitlines()
    assert "not the one registered" in json.loads(line)["event"]
    assert not Path(spec["socket"]).exists()


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"config": CHURN | {"features": {"other": {"type": "text"}}}}, "disagree on contract, other, senior, tenure"),
        ({"socket": "/tmp/" + "x" * 120}, "longer than 100 bytes"),
        ({"artifact": "/nowhere"}, "not a folder"),
    ],
)
def test_what_cannot_be_served_is_one_clear_line_and_exit_4(
    tmp_path: Path, artifact: Path, change: dict[str, Any], told: str
) -> None:
    code, log = run_to_end(spec_of(artifact, tmp_path, CHURN) | change, tmp_path)
    assert code == 4
    (line,) = log.splitlines()
    assert told in json.loads(line)["event"]


def test_a_broken_artifact_with_the_right_digest_is_exit_4(tmp_path: Path) -> None:
    folder = native_artifacts.linear_binary(tmp_path / "artifact")
    (folder / "arrays.npz").write_bytes(b"no arrays")
    code, log = run_to_end(spec_of(folder, tmp_path, CHURN), tmp_path)
    assert code == 4
    assert len(log.splitlines()) == 1


def test_the_socket_is_for_its_owner_alone(server: ModelServer) -> None:
    for path in (server.spec["socket"], server.spec["aux_socket"]):
        assert stat.S_IMODE(os.stat(path).st_mode) == 0o600


def test_a_served_socket_is_not_taken_over(server: ModelServer, tmp_path: Path) -> None:
    code, log = run_to_end(server.spec, tmp_path)
    assert code == 4
    assert "another process serves" in log
    with server.client() as http:
        assert http.post("/predict", content=BODY).status_code == 200


def test_a_socket_left_behind_by_the_dead_is_replaced(artifact: Path, tmp_path: Path) -> None:
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    with serving(artifact, CHURN, socket=str(path)) as running, running.client() as http:
        assert http.get("/ready").status_code == 200
    assert not path.exists()


class Load:
    """Callers that ask until told to stop, each on its own connection."""

    def __init__(self, server: ModelServer) -> None:
        self.server = server
        self.stopping = False
        self.answered = 0
        self.cut = 0  # connections lost with a request on them
        self.refused = 0
        self.wrong: list[int] = []

    async def caller(self) -> None:
        while not self.stopping:
            try:
                reader, writer = await asyncio.open_unix_connection(self.server.socket)
            except OSError:
                self.refused += 1
                await asyncio.sleep(0.01)
                continue
            try:
                await self.talk(reader, writer)
            except (ConnectionError, asyncio.IncompleteReadError):
                self.cut += 1
            finally:
                writer.close()

    async def talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while not self.stopping:
            writer.write(b"POST /predict HTTP/1.1\r\nhost: m\r\ncontent-length: %d\r\n\r\n%b" % (len(BODY), BODY))
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            length = int(head.partition(b"content-length:")[2].split(b"\r\n")[0])
            await reader.readexactly(length)
            status = int(head.split()[1])
            if status != 200:
                self.wrong.append(status)
            self.answered += 1
            if b"connection: close" in head:
                return


async def test_killing_a_worker_costs_at_most_its_requests_in_flight_and_it_comes_back(server: ModelServer) -> None:
    load = Load(server)
    callers = [asyncio.create_task(load.caller()) for _ in range(8)]
    before = server.workers()

    async def goes_on(more: int) -> None:
        target = load.answered + more

        async def enough() -> bool:
            return load.answered >= target

        await eventually(enough, what="answers go on")

    await goes_on(200)
    for victim in before[:2]:
        lost = load.cut
        os.kill(victim, signal.SIGKILL)
        await goes_on(200)
        assert load.cut - lost <= 8

    async def restarted() -> bool:
        now = server.workers()
        return len(now) == len(before) and not set(now) & set(before[:2])

    await eventually(restarted, what="workers are back")
    await goes_on(200)
    load.stopping = True
    await asyncio.gather(*callers)
    assert (load.wrong, load.refused) == ([], 0)
    assert sum(event["event"] == "worker died" for event in server.events()) == 2


async def test_a_drain_answers_all_it_has_taken_and_takes_no_more(server: ModelServer) -> None:
    load = Load(server)
    callers = [asyncio.create_task(load.caller()) for _ in range(16)]

    async def warm() -> bool:
        return load.answered > 500

    await eventually(warm, what="traffic")
    server.process.send_signal(signal.SIGTERM)
    started = time.monotonic()
    assert await asyncio.to_thread(server.process.wait, 10) == 0
    took = time.monotonic() - started
    load.stopping = True
    await asyncio.gather(*callers)
    assert (load.cut, load.wrong) == (0, [])
    assert took < 5
    assert not server.listens()


def test_workers_do_not_outlive_a_killed_parent(server: ModelServer) -> None:
    workers = server.workers()
    server.process.kill()
    server.process.wait(240)

    def gone() -> bool:
        return not any(Path(f"/proc/{pid}").exists() and "Z" not in _state(pid) for pid in workers)

    wait_until(gone, what="orphans leave")


def _state(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return "Z"


def test_connections_are_spread_over_the_workers(server: ModelServer) -> None:
    with httpx.Client() as _:
        clients = [server.client() for _ in range(20)]
        try:
            for http in clients:
                assert http.get("/live").status_code == 200
            counts = [len(os.listdir(f"/proc/{pid}/fd")) for pid in server.workers()[:2]]
        finally:
            for http in clients:
                http.close()
    assert abs(counts[0] - counts[1]) <= 4
