"""The life of one supervised process, with real processes."""

import asyncio
import os
import signal
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from control_plane.embedded import child as module
from control_plane.embedded import processes
from control_plane.embedded.child import Child, Spec, State
from tests.support.processes import eventually, niceness_of_session

_READY = "import os, time; open(os.environ['MLCP_READY_FILE'], 'w').write('x'); time.sleep(60)"


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FIRST_DELAY_S", 0.05)
    monkeypatch.setattr(module, "_REST_OF_GROUP_S", 0.2)


@pytest.fixture
def made(tmp_path: Path) -> Iterator[list[Child]]:
    children: list[Child] = []
    yield children
    for each in children:
        if each.pid:
            os.killpg(each.pid, signal.SIGKILL)


def of(code: str, tmp_path: Path, made: list[Child], **changes: object) -> Child:
    spec = replace(Spec("api", (sys.executable, "-c", code), dict(os.environ)), **changes)  # type: ignore[arg-type]
    made.append(Child(spec, tmp_path / "api.log", tmp_path / "ready", changed=lambda: None))
    return made[-1]


async def is_ready(child: Child) -> bool:
    return child.state is State.READY


async def test_it_is_ready_when_it_says_so_and_ends_when_asked(tmp_path: Path, made: list[Child]) -> None:
    child = of(_READY, tmp_path, made)
    life = asyncio.ensure_future(child.run())
    await eventually(lambda: is_ready(child), what="ready")
    pid = child.pid
    child.stop()
    await asyncio.wait_for(life, 240)
    assert (child.state, child.pid, child.last_exit) == (State.STOPPED, None, -signal.SIGTERM)
    assert pid is not None
    assert not processes.group_exists(pid)


async def test_what_is_ready_and_all_it_has_forked_has_its_niceness_and_before_nobody(
    tmp_path: Path, made: list[Child]
) -> None:
    """Whoever goes first is to answer customers, not to start."""
    waits = f"import os, time; pid = os.fork(); open({str(tmp_path / 'pids')!r}, 'a').write(f'{{os.getpid()}}\\n')"
    hold = f"\nwhile not os.path.exists({str(tmp_path / 'go')!r}): time.sleep(0.01)\n"
    child = of(waits + hold + _READY, tmp_path, made, niceness=7)
    life = asyncio.ensure_future(child.run())

    async def forked() -> list[int]:
        found = (tmp_path / "pids").read_text().split() if (tmp_path / "pids").exists() else []
        return [int(pid) for pid in found] if len(found) == 2 else []

    pids = await eventually(forked, what="both run")
    assert [os.getpriority(os.PRIO_PROCESS, pid) for pid in pids] == [os.getpriority(os.PRIO_PROCESS, 0)] * 2
    (tmp_path / "go").touch()
    await eventually(lambda: is_ready(child), what="ready")
    assert [os.getpriority(os.PRIO_PROCESS, pid) for pid in pids] == [7, 7]
    assert niceness_of_session(pids[0]) in {7, None}
    child.stop()
    await asyncio.wait_for(life, 240)


async def test_what_was_killed_comes_back_and_the_rest_of_its_group_is_gone(tmp_path: Path, made: list[Child]) -> None:
    forks = f"import os, time; pid = os.fork(); {_READY}"
    child = of(forks, tmp_path, made)
    life = asyncio.ensure_future(child.run())
    await eventually(lambda: is_ready(child), what="ready")
    first = child.pid
    assert first is not None
    os.kill(first, signal.SIGKILL)

    async def back() -> bool:
        return child.state is State.READY and child.pid not in (None, first)

    await eventually(back, what="back")
    assert (child.restarts, child.last_exit) == (1, -signal.SIGKILL)
    assert not processes.group_exists(first)  # its other half was ended before the next start
    child.stop()
    await asyncio.wait_for(life, 240)


async def test_delays_double_up_to_a_limit(tmp_path: Path, made: list[Child], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LONGEST_DELAY_S", 0.2)
    delays: list[float] = []
    timeout = asyncio.timeout

    def noted(seconds: float) -> asyncio.Timeout:
        delays.append(seconds)
        return timeout(0.001)

    monkeypatch.setattr(module.asyncio, "timeout", noted)
    child = of("raise SystemExit(3)", tmp_path, made, tries=6)
    await child.run()
    assert delays == [0.05, 0.1, 0.2, 0.2, 0.2]
    assert (child.state, child.last_exit) == (State.FAILED, 3)


async def test_health_brings_the_shortest_delay_back(
    tmp_path: Path, made: list[Child], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "HEALTHY_S", 0.0)
    code = "import os; open(os.environ['MLCP_READY_FILE'], 'w').write('x'); import time; time.sleep(0.2)"
    child = of(code, tmp_path, made)
    life = asyncio.ensure_future(child.run())

    async def thrice() -> bool:
        return child.restarts >= 3

    began = time.monotonic()
    await eventually(thrice, what="three restarts")
    assert time.monotonic() - began < 10
    child.stop()
    await asyncio.wait_for(life, 240)


async def test_one_that_is_never_given_up_shows_as_failed_until_it_is_ready(tmp_path: Path, made: list[Child]) -> None:
    flag = tmp_path / "may"
    code = f"import os, time; os.path.exists({str(flag)!r}) or os._exit(9); {_READY}"
    child = of(code, tmp_path, made, tries=2, gives_up=False)
    life = asyncio.ensure_future(child.run())

    async def failed() -> bool:
        return child.state is State.FAILED

    await eventually(failed, what="failed")
    flag.touch()
    await eventually(lambda: is_ready(child), what="ready after all")
    child.stop()
    await asyncio.wait_for(life, 240)


async def test_one_that_is_late_is_started_again(tmp_path: Path, made: list[Child]) -> None:
    child = of("import time; time.sleep(60)", tmp_path, made, ready_within_s=0.2, tries=2)
    await asyncio.wait_for(child.run(), 240)
    assert child.state is State.FAILED


async def test_one_that_does_not_listen_is_killed_after_its_grace(tmp_path: Path, made: list[Child]) -> None:
    child = of(f"import signal; signal.signal(15, signal.SIG_IGN); {_READY}", tmp_path, made, grace_s=0.3)
    life = asyncio.ensure_future(child.run())
    await eventually(lambda: is_ready(child), what="ready")
    child.stop()
    await asyncio.wait_for(life, 240)
    assert child.last_exit == -signal.SIGKILL


async def test_a_one_shot_is_ready_by_succeeding(tmp_path: Path, made: list[Child]) -> None:
    child = of("print('done')", tmp_path, made, once=True)
    await asyncio.wait_for(child.run(), 240)
    assert child.ready.is_set()
    assert (child.state, child.restarts) == (State.STOPPED, 0)
    assert (tmp_path / "api.log").read_text() == "done\n"


async def test_a_program_that_is_not_there_is_a_failed_start(tmp_path: Path, made: list[Child]) -> None:
    child = of("", tmp_path, made, argv=("/nowhere/at/all",), tries=2)
    await asyncio.wait_for(child.run(), 240)
    assert child.state is State.FAILED


async def test_a_stale_ready_file_counts_for_nothing(tmp_path: Path, made: list[Child]) -> None:
    (tmp_path / "ready").write_text("1")
    child = of("import time; time.sleep(60)", tmp_path, made, ready_within_s=0.3, tries=1)
    await asyncio.wait_for(child.run(), 240)
    assert not child.ready.is_set()
