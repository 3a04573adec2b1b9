"""What `mlcp doctor` finds on a host whose stack does not run."""

import socket
import time
from pathlib import Path

import pytest

from control_plane import host
from control_plane.cli import stack_doctor, stack_state
from control_plane.cli.stack_doctor import Finding


def found(home: Path, what: str) -> list[Finding]:
    return [finding for finding in stack_doctor.examine(home) if finding.what == what]


@pytest.mark.parametrize("folder", ["there", "absent"])
def test_a_stack_with_data_and_without_keys_is_not_healthy(tmp_path: Path, folder: str) -> None:
    (tmp_path / "pg").mkdir()
    if folder == "there":
        (tmp_path / "keys").mkdir()
    (finding,) = found(tmp_path, "keys")
    assert finding.wrong
    assert "mlcp up makes new ones" in finding.hint
    (tmp_path / "keys").mkdir(exist_ok=True)
    (tmp_path / "keys" / "admin.key").touch(mode=0o600)
    assert not found(tmp_path, "keys")[0].wrong


def test_before_the_first_start_no_key_is_no_illness(tmp_path: Path) -> None:
    (finding,) = found(tmp_path, "keys")
    assert (finding.wrong, finding.hint) == (False, "mlcp up makes them.")


def test_the_containers_limit_counts_as_it_does_for_a_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "memory.max").write_text(f"{300 << 20}\n")
    (tmp_path / "memory.current").write_text(f"{200 << 20}\n")
    (tmp_path / "memory.stat").write_text("inactive_file 0\n")
    monkeypatch.setattr(host, "_CGROUP", tmp_path)
    monkeypatch.setenv("MLCP_MIN_MEMORY_MB", "101")
    (finding,) = found(tmp_path / "var", "memory")
    assert (finding.wrong, finding.says) == (True, "100 MB available")


def test_ports_are_tried_on_the_addresses_they_are_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.2", 0))
        listener.listen()
        port = listener.getsockname()[1]
        monkeypatch.setenv("MLCP_API_PORT", str(port))
        monkeypatch.setenv("MLCP_API_HOST", "127.0.0.2")
        taken = found(tmp_path, "port")[0]
    assert taken.wrong
    assert f"{port} on 127.0.0.2" in taken.says
    assert "MLCP_API_PORT" in taken.hint
    monkeypatch.setenv("MLCP_API_HOST", "192.0.2.1")  # TEST-NET-1: no machine has it
    foreign = found(tmp_path, "port")[0]
    assert foreign.wrong
    assert "MLCP_API_HOST" in foreign.hint


@pytest.mark.parametrize(("state", "wrong"), [("ready", True), ("starting", False)])
def test_a_ready_model_server_and_no_snapshot_are_a_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, state: str, wrong: bool
) -> None:
    """As after a promotion that never reached the router."""
    row = {"name": "churn-1-0a", "state": state, "id": "0a", "restarts": 0, "last_exit": None, "log": "x"}
    document = {"state": "ready", "processes": [row], "at": time.time()}
    monkeypatch.setattr(stack_state, "read", lambda home: stack_state.Status(document, alive=True))
    (finding,) = found(tmp_path, "snapshot")
    assert finding.wrong == wrong
