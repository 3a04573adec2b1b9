"""Parent and workers."""

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from tests.support.data_plane import children, environment, router_process
from tests.support.processes import wait_until

pytestmark = pytest.mark.integration
NOWHERE = "unix:///nowhere/redis.sock"


def healthy(url: str) -> bool:
    try:
        return httpx.get(f"{url}/health", timeout=2).status_code == 200
    except httpx.TransportError:
        return False


def test_a_killed_worker_is_replaced_at_once(home: Path) -> None:
    with router_process(home, NOWHERE, workers=2) as (url, parent):
        before = set(children(parent))
        os.kill(min(before), signal.SIGKILL)
        wait_until(lambda: len(set(children(parent)) - {min(before)}) == 2, what="two workers")
        assert healthy(url)


def test_workers_do_not_outlive_a_killed_parent(home: Path) -> None:
    with router_process(home, NOWHERE, workers=2) as (url, parent):
        workers = children(parent)
        os.kill(parent, signal.SIGKILL)
        wait_until(lambda: not any(Path(f"/proc/{pid}/stat").exists() for pid in workers), what="their end")
        assert not healthy(url)


def test_it_ends_in_order_when_told_to(home: Path) -> None:
    with router_process(home, NOWHERE, workers=2) as (_, parent):
        os.kill(parent, signal.SIGTERM)
        wait_until(lambda: not Path(f"/proc/{parent}").exists(), what="the end")
    logs = "".join(path.read_text() for path in home.glob("router-*.log"))
    assert logs.count('"worker.stopped"') == 2
    assert '"error"' not in logs.replace('"error":', "")


def test_a_busy_port_ends_it_with_one_line_that_names_the_setting(home: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        env = environment(MLCP_HOME=str(home), MLCP_REDIS_URL=NOWHERE, MLCP_ROUTER_PORT=str(taken.getsockname()[1]))
        ended = subprocess.run(
            [sys.executable, "-m", "control_plane.router"], env=env, capture_output=True, text=True, timeout=240
        )
    assert ended.returncode == 1
    assert len(ended.stderr.splitlines()) == 1
    assert "MLCP_ROUTER_PORT" in ended.stderr
