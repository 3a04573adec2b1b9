import os
import shutil
import socket
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from control_plane import host
from control_plane.embedded import checks, config
from control_plane.embedded.config import Config
from tests.support.processes import free_port


@pytest.fixture
def settings(tmp_path: Path) -> Config:
    return config.read({"MLCP_HOME": str(tmp_path / "var"), "MLCP_MIN_MEMORY_MB": "0"})


@pytest.fixture
def busy() -> Iterator[int]:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield listener.getsockname()[1]


@pytest.mark.parametrize("name", ["api_port", "router_port", "mlflow_port"])
def test_a_busy_port_is_one_line_with_its_setting_and_who_has_it(settings: Config, busy: int, name: str) -> None:
    free = {each: free_port() for each in ("api_port", "router_port", "mlflow_port")}
    (reason,) = checks.ports(replace(settings, **{**free, name: busy}))
    assert f"port {busy} is taken by" in reason
    assert f"(pid {os.getpid()})" in reason
    assert f"set MLCP_{name.upper()}" in reason


def test_a_port_named_twice_is_refused(settings: Config) -> None:
    twice, other = free_port(), free_port()
    reasons = checks.ports(replace(settings, api_port=twice, router_port=twice, mlflow_port=other))
    assert reasons == [f"port {twice} is named twice: set MLCP_ROUTER_PORT or MLCP_API_PORT to another port"]


def test_too_little_disk_names_the_settings(settings: Config) -> None:
    assert checks.home(settings) == []
    assert checks.disk(replace(settings, min_free_mb=1)) == []
    (reason,) = checks.disk(replace(settings, min_free_mb=10**9))
    assert "MLCP_MIN_FREE_MB" in reason
    assert "MLCP_HOME" in reason


def test_too_little_memory_names_the_setting(settings: Config) -> None:
    (reason,) = checks.memory(replace(settings, min_memory_mb=10**9))
    assert "MLCP_MIN_MEMORY_MB" in reason


def test_a_containers_limit_counts_not_the_hosts_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "memory.max").write_text(f"{300 << 20}\n")
    (tmp_path / "memory.current").write_text(f"{200 << 20}\n")
    (tmp_path / "memory.stat").write_text(f"anon 1\ninactive_file {50 << 20}\n")
    monkeypatch.setattr(host, "_CGROUP", tmp_path)
    assert host.available_memory_mb() == 150
    (tmp_path / "memory.max").write_text("max\n")
    assert host.available_memory_mb() == pytest.approx(psutil.virtual_memory().available >> 20, rel=0.2)


def test_a_home_that_cannot_be_made_names_its_setting(settings: Config, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (reason,) = checks.home(replace(settings, home=tmp_path / "file" / "var"))
    assert "set MLCP_HOME" in reason


def test_a_full_disk_is_told_apart_from_a_missing_permission(settings: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_space(*_: object, **__: object) -> object:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checks.tempfile, "TemporaryFile", no_space)
    (reason,) = checks.home(settings)
    assert "is full" in reason
    assert "MLCP_HOME" in reason


def test_a_home_of_somebody_else_is_refused(settings: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: settings.home.parent.stat().st_uid + 1)
    (reason,) = checks.home(settings)
    assert "belongs to another user" in reason
    shutil.rmtree(settings.home)
