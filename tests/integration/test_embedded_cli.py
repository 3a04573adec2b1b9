"""`mlcp up | down | status | doctor` as a user types them; behind them the real supervisor around stand-ins."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.support.processes import free_port, wait_until

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[2]
_MLCP = "from control_plane import cli; from control_plane.cli import stack; {changes}; cli.main()"
_FAKES = "stack._MODULE = 'tests.integration.embedded_fakes'"


@dataclass
class Terminal:
    home: Path
    env: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        kept = {name: value for name, value in os.environ.items() if not name.startswith("MLCP_")}
        ports = {f"MLCP_{name}_PORT": str(free_port()) for name in ("API", "ROUTER", "MLFLOW")}
        self.env = kept | ports | {"MLCP_HOME": str(self.home), "MLCP_MIN_MEMORY_MB": "64", "COLUMNS": "80"}

    def argv(self, *command: str, changes: str = _FAKES) -> list[str]:
        return [sys.executable, "-c", _MLCP.format(changes=changes), *command]

    def mlcp(self, *command: str, changes: str = _FAKES) -> subprocess.CompletedProcess[str]:
        argv = self.argv(*command, changes=changes)
        return subprocess.run(argv, cwd=ROOT, env=self.env, capture_output=True, text=True, timeout=240)


@pytest.fixture
def terminal() -> Iterator[Terminal]:
    folder = Path(tempfile.mkdtemp(prefix="mlcp-"))
    terminal = Terminal(folder / "var")
    yield terminal
    terminal.mlcp("down")
    shutil.rmtree(folder, ignore_errors=True)


def test_a_day_with_the_stack(terminal: Terminal) -> None:
    up = terminal.mlcp("up", "--detach")
    assert up.returncode == 0, up.stdout + up.stderr
    assert f"http://127.0.0.1:{terminal.env['MLCP_API_PORT']}/docs" in up.stdout
    assert "postgres: done" in up.stdout  # no terminal: plain lines

    status = terminal.mlcp("status")
    assert status.returncode == 0
    assert max(map(len, status.stdout.splitlines())) <= 80
    for shown in ("postgres", "reconciler", f":{terminal.env['MLCP_ROUTER_PORT']}", "ready", "MB"):
        assert shown in status.stdout

    document = json.loads(terminal.mlcp("status", "--json").stdout)
    assert (document["running"], document["state"]) == (True, "ready")
    assert {
        "name",
        "state",
        "pid",
        "port",
        "socket",
        "rss_mb",
        "pss_mb",
        "started_at",
        "restarts",
        "last_exit",
        "log",
    } <= (document["processes"][0].keys())

    well = terminal.mlcp("doctor")
    assert well.returncode == 0, well.stdout
    assert "mlflow answers" in well.stdout

    again = terminal.mlcp("up", "--detach")
    assert again.returncode == 0
    assert f"Already running (pid {document['supervisor_pid']})" in again.stdout

    down = terminal.mlcp("down")
    assert (down.returncode, down.stdout.splitlines()[0]) == (0, "Stopped.")
    assert "Kept in" in down.stdout
    assert terminal.mlcp("status").returncode == 6
    assert json.loads(terminal.mlcp("status", "--json").stdout)["running"] is False
    assert terminal.mlcp("doctor").returncode == 0  # not to run is no illness


def test_doctor_finds_a_killed_supervisor_open_keys_and_a_dead_process(terminal: Terminal) -> None:
    assert terminal.mlcp("up", "--detach").returncode == 0
    (terminal.home / "keys" / "admin.key").write_text("secret")
    (terminal.home / "keys" / "admin.key").chmod(0o644)
    found = terminal.mlcp("doctor")
    assert found.returncode == 1
    assert "readable by others: admin.key" in found.stdout
    status = json.loads((terminal.home / "run" / "status.json").read_text())
    os.kill(status["supervisor_pid"], signal.SIGKILL)
    wait_until(lambda: terminal.mlcp("status").returncode == 6, what="it is seen to be gone")
    findings = {f["what"]: f for f in json.loads(terminal.mlcp("doctor", "--json").stdout)}
    assert findings["supervisor"]["wrong"]
    assert "gone without having stopped" in findings["supervisor"]["says"]


def test_up_refuses_with_the_reason_and_starts_nothing(terminal: Terminal) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", int(terminal.env["MLCP_API_PORT"])))
        listener.listen()
        refused = terminal.mlcp("up", "--detach")
        doctor = terminal.mlcp("doctor")
    assert refused.returncode == 4
    assert "MLCP_API_PORT" in refused.stderr
    assert "Nothing was started" in refused.stderr
    assert not (terminal.home / "pg").exists()
    assert doctor.returncode == 1
    assert "Set MLCP_API_PORT" in doctor.stdout


def test_up_that_fails_says_why_with_the_last_words(terminal: Terminal) -> None:
    (terminal.home / "fakes").mkdir(parents=True)
    (terminal.home / "fakes" / "reconciler").write_text("exit")
    failed = terminal.mlcp("up", "--detach")
    assert failed.returncode == 1
    assert "reconciler does not start" in failed.stderr
    assert "told 'exit'" in failed.stderr.replace("\n", "")
    assert terminal.mlcp("status").returncode == 6


def test_ctrl_c_on_an_attached_stack_stops_it(terminal: Terminal) -> None:
    log = (terminal.home.parent / "up.log").open("w+")
    # Tests that run in the background of a shell hand on that Ctrl-C is ignored.
    shell = ["env", "--default-signal=INT", *terminal.argv("up")]
    attached = subprocess.Popen(shell, cwd=ROOT, env=terminal.env, stdout=log, stderr=log)
    try:
        wait_until(lambda: "Ctrl-C stops it" in Path(log.name).read_text(), what="it is up")
        attached.send_signal(signal.SIGINT)
        assert attached.wait(240) == 0
    finally:
        attached.kill()
        attached.wait()
        log.close()
    assert "Stopped." in Path(log.name).read_text()
    assert terminal.mlcp("status").returncode == 6


def test_up_without_the_extras_says_which_to_install(terminal: Terminal) -> None:
    changes = _FAKES + "; stack._EXTRAS = {'server': 'asyncpg', 'training': 'no_such_module'}"
    refused = terminal.mlcp("up", changes=changes)
    assert refused.returncode == 6
    assert "pip install 'mlcp[training]'" in " ".join(refused.stderr.split())
    assert not terminal.home.exists()


def test_down_where_nothing_ever_ran_is_no_error(terminal: Terminal) -> None:
    began = time.monotonic()
    down = terminal.mlcp("down")
    assert (down.returncode, "Nothing runs" in down.stdout) == (0, True)
    assert time.monotonic() - began < 10
