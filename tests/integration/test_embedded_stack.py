"""The supervisor with a real Postgres and Redis; our own processes are stand-ins (`embedded_fakes`)."""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.support.processes import free_port, wait_until

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[2]
CORE = {"postgres", "redis", "mlflow", "api", "reconciler", "worker", "shipper", "ingester", "router"}


@dataclass
class Host:
    """A home of its own, and the commands of a user on it."""

    home: Path
    env: dict[str, str] = field(default_factory=dict)
    began: list[subprocess.Popen[str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        kept = {name: value for name, value in os.environ.items() if not name.startswith("MLCP_")}
        ports = {f"MLCP_{name}_PORT": str(free_port()) for name in ("API", "ROUTER", "MLFLOW")}
        self.env = kept | ports | {"MLCP_HOME": str(self.home), "MLCP_MIN_MEMORY_MB": "64"} | self.env

    def command(self, *argv: str, **env: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "tests.integration.embedded_fakes", *argv],
            cwd=ROOT, env=self.env | env, capture_output=True, text=True, timeout=240,
        )  # fmt: skip

    def start(self) -> int:
        """Pid of a supervisor whose stack is ready."""
        self.home.mkdir(exist_ok=True)
        log = (self.home.parent / "supervisor.log").open("a")
        argv = [sys.executable, "-m", "tests.integration.embedded_fakes"]
        self.began.append(
            subprocess.Popen(argv, cwd=ROOT, env=self.env, stdout=log, stderr=log, start_new_session=True, text=True)
        )
        log.close()
        pid = self.began[-1].pid
        wait_until(lambda: self.is_ready(pid), what="the stack is ready")
        return pid

    def status(self) -> dict[str, Any]:
        try:
            return dict(json.loads((self.home / "run" / "status.json").read_text()))
        except FileNotFoundError:
            return {}

    def is_ready(self, pid: int) -> bool:
        status = self.status()
        return status.get("supervisor_pid") == pid and status["state"] == "ready"

    def process(self, name: str) -> dict[str, Any]:
        return next(row for row in self.status()["processes"] if row["name"] == name)

    def tell(self, name: str, manner: str) -> None:
        (self.home / "fakes").mkdir(exist_ok=True, parents=True)
        (self.home / "fakes" / name).write_text(manner)

    def wish(self, id_: str, **changes: Any) -> Path:
        argv = [sys.executable, "-m", "tests.integration.embedded_fakes", "child", "model"]
        wish = {"name": f"churn-1-{id_}", "argv": argv, "env": {}, "grace_s": 5, "port": None, "socket": "/s"} | changes
        path = self.home / "run" / "wanted" / f"{id_}.json"
        path.with_suffix(".new").write_text(json.dumps(wish))
        return path.with_suffix(".new").rename(path)

    def ours(self) -> list[psutil.Process]:
        """Every process on this machine that belongs to this home, dead ones left out."""
        found: list[psutil.Process] = []
        for process in psutil.process_iter():
            try:
                told = process.environ().get("MLCP_HOME") == str(self.home)
                if (told or str(self.home) in " ".join(process.cmdline())) and process.pid != os.getpid():
                    found.append(process)
            except psutil.Error:
                continue
        return found

    def clean(self) -> None:
        self.command("stop")
        for process in self.ours():
            process.kill()
        for began in self.began:
            began.wait(240)
        shutil.rmtree(self.home, ignore_errors=True)


@pytest.fixture
def host() -> Iterator[Host]:
    folder = Path(tempfile.mkdtemp(prefix="mlcp-"))  # a short path: sockets lie below it
    host = Host(folder / "var")
    yield host
    host.clean()
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def shared() -> Iterator[Host]:
    """A running stack for tests that leave it running."""
    folder = Path(tempfile.mkdtemp(prefix="mlcp-"))
    host = Host(folder / "var")
    host.start()
    yield host
    host.clean()
    shutil.rmtree(folder, ignore_errors=True)


def test_every_process_is_there_and_small(shared: Host) -> None:
    rows = {row["name"]: row for row in shared.status()["processes"]}
    assert rows.keys() >= CORE
    assert {rows[name]["state"] for name in CORE} == {"ready"}
    measured = wait_until(lambda: shared.process("supervisor")["pss_mb"], what="memory")
    assert measured < 35
    assert {step["state"] for step in shared.status()["steps"]} == {"done"}


def test_postgres_and_redis_listen_on_unix_sockets_alone(shared: Host) -> None:
    for name in ("postgres", "redis"):
        process = psutil.Process(shared.process(name)["pid"])
        assert [c for c in process.net_connections(kind="inet") if c.status == psutil.CONN_LISTEN] == []
        assert Path(shared.process(name)["socket"]).is_socket()


@pytest.mark.parametrize("name", ["api", "postgres", "redis", "router"])
def test_a_killed_process_is_back_by_itself(shared: Host, name: str) -> None:
    before = shared.process(name)
    os.kill(before["pid"], signal.SIGKILL)

    def back() -> bool:
        now = shared.process(name)
        return now["state"] == "ready" and now["pid"] not in (None, before["pid"])

    wait_until(back, what=f"{name} is back")
    assert shared.process(name)["last_exit"] == -9
    assert shared.process(name)["restarts"] == before["restarts"] + 1


def test_a_wish_is_carried_out_changed_and_taken_back(shared: Host) -> None:
    wish = shared.wish("018f0001")
    first = wait_until(lambda: _ready(shared, "churn-1-018f0001"), what="the model server is ready")
    assert shared.process("churn-1-018f0001")["socket"] == "/s"
    shared.wish("018f0001", env={"CHANGED": "1"})
    second = wait_until(
        lambda: (pid := _ready(shared, "churn-1-018f0001")) != first and pid, what="the changed one runs"
    )
    assert psutil.Process(second).environ()["CHANGED"] == "1"
    wish.unlink()
    wait_until(lambda: not psutil.pid_exists(second), what="it is stopped")
    wait_until(lambda: _row(shared, "churn-1-018f0001") is None, what="it is no longer shown")


def test_a_model_server_that_cannot_start_shows_as_failed_and_harms_nobody(shared: Host) -> None:
    wish = shared.wish("018f0002", argv=[sys.executable, "-c", "raise SystemExit(7)"])
    try:
        wait_until(lambda: (_row(shared, "churn-1-018f0002") or {}).get("state") == "failed", what="it is failed")
        assert shared.process("churn-1-018f0002")["last_exit"] == 7
        assert shared.status()["state"] == "ready"
    finally:
        wish.unlink()


def test_a_second_supervisor_says_that_one_runs(shared: Host) -> None:
    again = shared.command()
    assert again.returncode == 3
    assert f"already running (pid {shared.status()['supervisor_pid']})" in again.stderr


def test_down_ends_everything_keeps_the_data_and_the_second_start_finds_it(host: Host) -> None:
    pid = host.start()
    sockets = host.home / "run" / "s" / "pg"
    _psql(host, sockets, "create table kept (n int); insert into kept values (42)")
    assert host.command("stop").returncode == 0
    assert host.began[-1].wait(240) == 0
    assert host.ours() == []
    assert host.status()["state"] == "stopping"
    assert host.start() != pid
    assert _psql(host, sockets, "select n from kept") == "42"


def test_what_a_killed_supervisor_left_is_ended_before_the_next_start(host: Host) -> None:
    pid = host.start()
    host.wish("018f0003")
    wait_until(lambda: _ready(host, "churn-1-018f0003"), what="the model server is ready")
    left = {row["pid"] for row in host.status()["processes"]} - {pid}
    os.kill(pid, signal.SIGKILL)
    host.began[-1].wait(240)
    assert all(psutil.pid_exists(each) for each in left)  # predictions go on meanwhile
    again = host.start()
    assert not {process.pid for process in host.ours()} & left
    wait_until(lambda: _ready(host, "churn-1-018f0003"), what="the model server is back")
    owners = [process for process in host.ours() if process.pid != again and process.ppid() != again]
    assert all(_descends(process, again) for process in owners)


def test_down_after_a_killed_supervisor_ends_what_is_left(host: Host) -> None:
    pid = host.start()
    os.kill(pid, signal.SIGKILL)
    host.began[-1].wait(240)
    stopped = host.command("stop")
    assert (stopped.returncode, stopped.stderr.splitlines()[-1]) == (0, "mlcp: stopped")
    assert host.ours() == []
    assert "nothing runs" in host.command("stop").stderr


def test_a_postgres_left_by_a_killed_run_is_stopped_even_if_nobody_noted_it(host: Host) -> None:
    pid = host.start()
    server = host.process("postgres")["pid"]
    os.kill(pid, signal.SIGKILL)
    host.began[-1].wait(240)
    (host.home / "run" / "pids.json").unlink()
    host.start()
    assert not psutil.pid_exists(server)


def test_stopping_is_bounded_and_nobody_survives_it(host: Host) -> None:
    host.tell("worker", "deaf")
    host.start()
    began = time.monotonic()
    assert host.command("stop").returncode == 0
    assert time.monotonic() - began < 30
    assert host.ours() == []


def test_a_process_that_cannot_start_stops_the_whole_start_with_its_last_words(host: Host) -> None:
    host.tell("api", "exit")
    refused = host.command()
    assert refused.returncode == 1
    status = host.status()
    assert status["state"] == "failed"
    assert "api does not start" in status["error"]
    assert "api starts, told 'exit'" in status["error"]
    assert host.ours() == []


def test_a_start_that_is_stopped_half_way_leaves_nothing(host: Host) -> None:
    host.tell("mlflow", "late")
    host.tell("embedded.mlflow_server", "late")
    log = (host.home.parent / "supervisor.log").open("a")
    argv = [sys.executable, "-m", "tests.integration.embedded_fakes"]
    child = subprocess.Popen(argv, cwd=ROOT, env=host.env, stdout=log, stderr=log, start_new_session=True, text=True)
    log.close()
    host.began.append(child)
    wait_until(lambda: host.status().get("state") == "starting", what="starting")
    wait_until(lambda: _ready(host, "redis"), what="redis is ready")
    child.send_signal(signal.SIGINT)
    assert child.wait(240) == 0
    assert host.ours() == []


@pytest.mark.parametrize("name", ["MLCP_API_PORT", "MLCP_ROUTER_PORT", "MLCP_MLFLOW_PORT"])
def test_a_busy_port_refuses_the_start_in_one_line(host: Host, name: str) -> None:
    import socket

    with socket.socket() as listener:
        listener.bind(("127.0.0.1", int(host.env[name])))
        listener.listen()
        _refused(host, host.command(), f"port {host.env[name]} is taken by", name)


def test_too_little_memory_refuses_the_start_in_one_line(host: Host) -> None:
    _refused(host, host.command(MLCP_MIN_MEMORY_MB="100000000"), "MB of memory available", "MLCP_MIN_MEMORY_MB")


def test_too_little_disk_refuses_the_start_in_one_line(host: Host) -> None:
    _refused(host, host.command(MLCP_MIN_FREE_MB="100000000"), "MB free on the disk", "MLCP_MIN_FREE_MB")


def test_a_home_that_cannot_be_made_refuses_the_start_in_one_line(host: Host) -> None:
    home = host.home.parent / "file" / "var"
    home.parent.write_text("in the way")
    _refused(host, host.command(MLCP_HOME=str(home)), "cannot be written", "MLCP_HOME")


def _may_mount() -> bool:
    unshare = shutil.which("unshare")
    return bool(unshare) and subprocess.run([str(unshare), "-m", "true"], capture_output=True).returncode == 0


if _may_mount():  # a user may not, and then the claim stands on its unit test

    def test_a_full_disk_refuses_the_start_in_one_line(host: Host) -> None:
        host.home.mkdir()
        start = (
            f"mount -t tmpfs -o size=32k none {host.home} && exec {sys.executable} -m tests.integration.embedded_fakes"
        )
        argv = ["unshare", "-m", "sh", "-c", start]
        done = subprocess.run(argv, cwd=ROOT, env=host.env, capture_output=True, text=True, timeout=240)
        _refused(host, done, "is full", "MLCP_HOME")


def test_wrong_settings_refuse_the_start_each_in_a_line(host: Host) -> None:
    refused = host.command(MLCP_API_PORT="http", MLCP_ROUTER_WORKERS="0")
    assert refused.returncode == 2
    assert [line.split()[1] for line in refused.stderr.splitlines()] == ["MLCP_API_PORT", "MLCP_ROUTER_WORKERS"]


def _refused(host: Host, done: subprocess.CompletedProcess[str], *words: str) -> None:
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert all(word in line for word in words), line
    assert host.ours() == []
    assert not (host.home / "pg").exists()


def _row(host: Host, name: str) -> dict[str, Any] | None:
    return next((row for row in host.status()["processes"] if row["name"] == name), None)


def _ready(host: Host, name: str) -> int | None:
    row = _row(host, name)
    return row["pid"] if row and row["state"] == "ready" else None


def _descends(process: psutil.Process, from_: int) -> bool:
    return from_ in {parent.pid for parent in process.parents()}


def _psql(host: Host, sockets: Path, statement: str) -> str:
    from control_plane.embedded import binaries

    program = binaries.postgres() / "psql"
    argv = [program, "-h", sockets, "-U", "postgres", "-d", "mlcp", "-XAtqc", statement]
    return subprocess.run(argv, capture_output=True, text=True, check=True, timeout=240).stdout.strip()
