"""Every process of the stack killed in turn under traffic: each acknowledged prediction is in Postgres exactly once.

Long, so `make prove` runs it. What was answered is compared id by id with what Postgres holds.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx
import pytest

from tests.support.data_plane import children
from tests.support.load import Load
from tests.support.processes import free_port, running
from tests.support.stack import Stack, environment_of, eventually
from tests.support.stored import all_there, missing

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(1200)]
MODEL = "fraud"
RATE = 500.0
CONNECTIONS = 32
Property = Callable[[str, object], None]


def load(stack: Stack) -> Load:
    return Load(stack.url("ROUTER"), stack.key("predictor"), MODEL, stack.example(MODEL), RATE, CONNECTIONS)


@contextmanager
def supervisor_asleep(stack: Stack) -> Iterator[None]:
    """Nobody starts anything again meanwhile."""
    pid = json.loads((stack.home / "run" / "status.json").read_text())["supervisor_pid"]
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def kill(stack: Stack, name: str) -> None:
    """And wait until it is there again."""
    before = stack.process(name)["pid"]
    os.kill(before, signal.SIGKILL)

    def again() -> bool:
        now = stack.process(name)
        return bool(now["pid"] != before and now["state"] == "ready")

    eventually(again, f"{name} again")


def kill_child(stack: Stack, name: str) -> None:
    """One pre-forked worker of a process, whose parent replaces it."""
    parent = stack.process(name)["pid"]
    victim = children(parent)[0]
    before = len(children(parent))
    os.kill(victim, signal.SIGKILL)
    eventually(lambda: victim not in children(parent) and len(children(parent)) == before, "its successor")


def empty_redis(stack: Stack) -> None:
    """It comes back with nothing of what it held."""
    before = stack.process("redis")["pid"]
    with supervisor_asleep(stack):
        os.kill(before, signal.SIGKILL)
        for path in (stack.home / "redis").iterdir():
            if path.is_dir():
                shutil.rmtree(path)
            elif path.name != "server":
                path.unlink()
    eventually(lambda: stack.process("redis")["pid"] != before, "redis again")


@pytest.mark.parametrize("victim", ["router worker", "model server", "shipper", "ingester", "redis", "postgres"])
def test_no_acknowledged_prediction_is_lost_or_doubled_whoever_is_killed(
    stack: Stack, dsn: str, victim: str, record_property: Property
) -> None:
    with load(stack) as traffic:
        eventually(lambda: traffic.answered > RATE, "traffic")
        for _ in range(2):
            match victim:
                case "router worker":
                    kill_child(stack, "router")
                case "model server":
                    kill(stack, f"{MODEL}-")
                case "redis":
                    empty_redis(stack)
                case _:
                    kill(stack, victim)
            seen = traffic.answered
            eventually(lambda seen=seen: traffic.answered > seen + RATE, "traffic after the kill")
    record_property("answers", dict(traffic.statuses))
    record_property("missed", traffic.missed)
    failed = traffic.answered - traffic.statuses[200]
    match victim:
        case "router worker":
            assert failed == traffic.statuses[0] <= 2 * CONNECTIONS, "only what the killed workers were answering"
        case "model server":
            assert failed == traffic.statuses[503] + traffic.statuses[504], "refused until the successor is there"
        case _:
            assert not failed, traffic.statuses
    assert not traffic.unlogged
    all_there(dsn, MODEL, traffic.acknowledged)


def test_a_minute_with_everything_else_dead_fails_no_prediction_and_loses_none(
    stack: Stack, dsn: str, tmp_path: Path, record_property: Property
) -> None:
    dead = ("postgres", "redis", "mlflow", "api")
    router = stack.process("router")["pid"]
    before = {name: stack.process(name)["pid"] for name in dead}

    def again(name: str) -> bool:
        now = stack.process(name)
        return bool(now["pid"] != before[name] and now["state"] == "ready")

    with load(stack) as traffic:
        with supervisor_asleep(stack):
            for pid in before.values():
                os.kill(pid, signal.SIGKILL)
            time.sleep(50)
            started_alone(stack, environment_of(router), tmp_path)
            time.sleep(10)
        eventually(lambda: all(map(again, dead)), "everything again", every=1)
    record_property("answers", dict(traffic.statuses))
    record_property("missed", traffic.missed)
    assert traffic.statuses.keys() == {200}
    assert not traffic.unlogged
    all_there(dsn, MODEL, traffic.acknowledged)


def started_alone(stack: Stack, env: dict[str, str], folder: Path) -> None:
    """A router started now, with everything else dead, answers from the snapshot on disk."""
    port = free_port()
    mine = env | {"MLCP_ROUTER_PORT": str(port), "MLCP_ROUTER_WORKERS": "1", "MLCP_READY_FILE": str(folder / "ready")}
    argv = [sys.executable, "-m", "control_plane.router"]
    with running(argv, log=folder / "log", env=mine) as child:
        eventually((folder / "ready").exists, "the lone router")
        with Load(f"http://127.0.0.1:{port}", stack.key("predictor"), MODEL, stack.example(MODEL), 50, 4) as traffic:
            eventually(lambda: traffic.answered >= 50, "its answers")
        assert child.poll() is None
    assert traffic.statuses.keys() == {200}


def test_a_torn_tail_is_cut_and_the_rest_arrives(stack: Stack, dsn: str) -> None:
    """What a machine that died left half written at the end of a segment."""
    with load(stack) as traffic:
        eventually(lambda: traffic.answered > RATE, "traffic")
        with supervisor_asleep(stack):
            parent = stack.process("router")["pid"]
            workers = children(parent)
            os.kill(parent, signal.SIGSTOP)
            for worker in workers:
                os.kill(worker, signal.SIGKILL)
            torn = 0
            for folder in (stack.home / "spool").glob("predictions-*"):
                if newest := max(folder.glob("*.seg"), default=None):
                    with newest.open("ab") as segment:
                        segment.write(newest.read_bytes()[:37])
                    torn += 1
            assert torn
            os.kill(parent, signal.SIGCONT)
        seen = traffic.answered
        eventually(lambda: traffic.answered > seen + RATE, "traffic after the kill")
    assert traffic.statuses[200] == traffic.answered - traffic.statuses[0]
    all_there(dsn, MODEL, traffic.acknowledged)


def test_a_full_disk_is_said_in_the_answers_and_all_others_arrive(
    stack: Stack, dsn: str, tmp_path: Path, record_property: Property
) -> None:
    """A router and a shipper of their own, whose spool is a file system of four megabytes; the stack's do the rest."""
    assert os.geteuid() == 0, "a small file system is mounted for this test: run it as root"
    home = tmp_path / "home"
    spool = home / "spool"
    spool.mkdir(parents=True)
    (home / "router").mkdir()
    shutil.copy(stack.home / "router" / "snapshot.json", home / "router")
    env = environment_of(stack.process("router")["pid"])
    env |= {"MLCP_HOME": str(home), "MLCP_ROUTER_PORT": str(free_port()), "MLCP_SPOOL_SEGMENT_BYTES": str(2**18)}
    env["MLCP_READY_FILE"] = str(tmp_path / "ready")
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(spool)], check=True)
    try:
        with running([sys.executable, "-m", "control_plane.router"], log=tmp_path / "router.log", env=env):
            eventually((tmp_path / "ready").exists, "the router")
            url = f"http://127.0.0.1:{env['MLCP_ROUTER_PORT']}"
            shipper = [sys.executable, "-m", "control_plane.ingest.shipper"]
            told = env | {"MLCP_READY_FILE": str(tmp_path / "shipper")}
            with ExitStack() as later:
                with Load(url, stack.key("predictor"), MODEL, stack.example(MODEL), RATE, CONNECTIONS) as traffic:
                    eventually(lambda: len(traffic.unlogged) > RATE, "a full disk")
                    later.enter_context(running(shipper, log=tmp_path / "shipper.log", env=told))
                    full, seen = len(traffic.unlogged), len(traffic.acknowledged)
                    eventually(lambda: len(traffic.acknowledged) > seen + RATE, "room again")
                record_property("unlogged", (full, len(traffic.unlogged)))
                record_property("answers", dict(traffic.statuses))
                counted = f'model_predictions_unlogged_total{{model_name="{MODEL}"}} {len(traffic.unlogged)}.0'
                eventually(lambda: counted in httpx.get(f"{url}/metrics").text, counted)
                all_there(dsn, MODEL, traffic.acknowledged)
    finally:
        subprocess.run(["umount", "-l", str(spool)], check=True)
    assert traffic.statuses.keys() == {200}, "a full disk fails no prediction"
    assert missing(dsn, traffic.unlogged) == len(traffic.unlogged)
