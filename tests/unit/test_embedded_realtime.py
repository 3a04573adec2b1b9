"""Who is scheduled in real time, and until when."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from control_plane.domain.sharing import ASLEEP, AWAKE, CEILING, FLOOR
from control_plane.embedded import realtime
from control_plane.embedded.realtime import Awake, Realtime
from tests.support.processes import wait_until

PRIORITY = 2
_FORKS = """
import os, sys, time
for own_session in (False, True):
    if not os.fork():
        if own_session:
            os.setsid()
        open(sys.argv[1] + str(own_session), "w").write(str(os.getpid()))
        time.sleep(600)
time.sleep(600)
"""


@dataclass
class Machine:
    """Two processors and what its processes have used, moved on by hand."""

    now: float = 0.0
    used: dict[int, float] = field(default_factory=dict[int, float])
    policies: dict[int, bool] = field(default_factory=dict[int, bool])
    refuses: Callable[[int], OSError | None] = lambda pid: None
    calls: int = 0

    def schedule(self, pid: int, priority: int) -> None:
        self.calls += 1
        if error := self.refuses(pid):
            raise error
        assert priority in (0, PRIORITY)
        self.policies[pid] = bool(priority)

    def made(self) -> Realtime:
        return Realtime(2, used_s=self.used.get, schedule=self.schedule, clock=lambda: self.now)

    def passes(self, **shares: float) -> dict[int, int]:
        """One second in which each process, p1, p2, ..., uses so much of one processor."""
        self.now += 1.0
        for name, share in shares.items():
            pid = int(name[1:])
            self.used[pid] = self.used.get(pid, 0.0) + share
        return {int(name[1:]): PRIORITY for name in shares}


def test_all_are_real_time_until_they_take_most_of_the_machine_and_again_when_they_take_less() -> None:
    machine = Machine()
    scheduler = machine.made()

    def for_a_while(share: float, seconds: int = 20) -> dict[int, bool]:
        for _ in range(seconds):
            scheduler.look(machine.passes(p1=share, p2=share))
        return machine.policies

    assert for_a_while(0.0) == {1: True, 2: True}
    assert for_a_while(CEILING - 0.01) == {1: True, 2: True}
    assert for_a_while(1.0) == {1: False, 2: False}
    assert for_a_while(FLOOR + 0.01) == {1: False, 2: False}, "not back and forth"
    assert for_a_while(FLOOR - 0.01) == {1: True, 2: True}
    for_a_while(0.0)
    assert for_a_while(1.0, seconds=1) == {1: True, 2: True}, "a moment is no load"
    assert for_a_while(1.0, seconds=9) == {1: False, 2: False}


def test_a_successor_is_scheduled_like_the_others_and_nobody_twice() -> None:
    machine = Machine()
    scheduler = machine.made()
    scheduler.look(machine.passes(p1=0.1, p2=0.1))
    scheduler.look(machine.passes(p1=0.1, p2=0.1))
    assert machine.calls == 2
    scheduler.look(machine.passes(p1=0.1, p3=50.0))  # what it used before we knew it is not of this second
    assert machine.policies == {1: True, 2: True, 3: True}
    assert machine.calls == 3


def test_each_has_its_own_priority() -> None:
    told: dict[int, int] = {}
    Realtime(2, used_s={1: 0.0, 2: 0.0}.get, schedule=told.__setitem__).look({1: 1, 2: 2})
    assert told == {1: 1, 2: 2}


def test_who_ends_meanwhile_stops_nobody_else_and_who_may_not_is_asked_once() -> None:
    machine = Machine(refuses=lambda pid: ProcessLookupError() if pid == 1 else None)
    machine.made().look(machine.passes(p1=0.1, p2=0.1))
    assert machine.policies == {2: True}
    forbidden = Machine(refuses=lambda pid: PermissionError(1, "Operation not permitted"))
    scheduler = forbidden.made()
    for _ in range(3):
        scheduler.look(forbidden.passes(p1=0.1, p2=0.1))
    assert forbidden.calls == 1
    assert scheduler.share == 0.0, "nor does anything else follow from what they take"


@contextmanager
def forking(tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    parent = subprocess.Popen([sys.executable, "-c", _FORKS, f"{tmp_path}/"], start_new_session=True)
    try:
        yield parent
    finally:
        for pid in [int(file.read_text()) for file in tmp_path.iterdir()]:
            os.kill(pid, signal.SIGKILL)
        parent.kill()
        parent.wait()


def test_of_real_processes_the_workers_are_meant_and_neither_parent_nor_batches(tmp_path: Path) -> None:
    with forking(tmp_path) as parent:
        wait_until(lambda: len([file for file in tmp_path.iterdir() if file.read_text()]) == 2, what="both")
        (worker,) = realtime.workers(parent.pid)
        assert worker == int((tmp_path / "False").read_text())
        assert (realtime.used_s(worker) or 0.0) < 10
        try:
            realtime.schedule(worker, PRIORITY)
        except PermissionError:
            assert os.sched_getscheduler(worker) == os.SCHED_OTHER
        else:
            assert os.sched_getscheduler(worker) == os.SCHED_RR | os.SCHED_RESET_ON_FORK
            assert os.sched_getparam(worker).sched_priority == PRIORITY
            realtime.schedule(worker, 0)
            assert os.sched_getscheduler(worker) == os.SCHED_OTHER
    assert realtime.workers(parent.pid) == []
    assert realtime.used_s(parent.pid) is None


def holding(device: Path) -> int:
    """How many files of this process are that one."""
    files = Path("/proc/self/fd")
    links = list[str]()
    for file in files.iterdir():
        with suppress(FileNotFoundError):  # closed meanwhile, as that of this very listing
            links.append(os.readlink(file))
    return links.count(str(device))


def test_processors_stay_awake_while_customers_ask_much_and_not_back_and_forth(tmp_path: Path) -> None:
    device = tmp_path / "latency"
    device.write_bytes(b"\xff" * 4)
    awake = Awake(device)
    for share, held in (
        (0.0, 0),
        (AWAKE - 0.01, 0),
        (AWAKE + 0.01, 1),
        (1.0, 1),
        (ASLEEP + 0.01, 1),
        (ASLEEP - 0.01, 0),
        (AWAKE - 0.01, 0),
        (AWAKE + 0.01, 1),
    ):
        awake.look(share)
        assert holding(device) == held, share
    assert device.read_bytes() == bytes(4), "no microsecond"
    awake.close()
    assert holding(device) == 0


def test_the_kernel_is_asked_and_where_we_may_not_ask_it_is_asked_once(tmp_path: Path) -> None:
    real = Path("/dev/cpu_dma_latency")
    try:
        real.open("r+b", buffering=0).close()
    except OSError:
        may = False
    else:
        may = True
    awake = Awake()
    awake.look(1.0)
    assert holding(real) == int(may)
    if may:
        assert real.read_bytes() == bytes(4), "the shortest that anybody asks for"
    awake.close()
    absent = tmp_path / "latency"
    awake = Awake(absent)
    awake.look(1.0)
    absent.write_bytes(bytes(4))
    awake.look(1.0)
    assert holding(absent) == 0
