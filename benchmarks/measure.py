"""What processes use, read from /proc: CPU seconds and proportional set size of whole process trees. Linux only."""

import os
import threading
import time
from collections.abc import Iterable
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")


def children() -> dict[int, list[int]]:
    """Every process's children, by pid."""
    found: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and (fields := _stat(int(entry.name))):
            found.setdefault(int(fields[1]), []).append(int(entry.name))
    return found


def descendants(root: int, *, but: Iterable[int] = ()) -> set[int]:
    """`root` and everything below it; trees that begin at a pid in `but` are left out."""
    tree, left_out, found, open_ = children(), set(but), set[int](), [root]
    while open_:
        pid = open_.pop()
        if pid not in left_out:
            found.add(pid)
            open_ += tree.get(pid, [])
    return found


def cpu_s(pids: Iterable[int]) -> float:
    """CPU seconds the processes have used, those of their children that have ended included."""
    total = 0
    for pid in pids:
        if fields := _stat(pid):
            total += sum(int(ticks) for ticks in fields[11:15])  # utime, stime, cutime, cstime
    return total / _TICKS


def pss_mb(pids: Iterable[int]) -> float:
    """Proportional set size: shared pages are divided among those that share them."""
    total = 0
    for pid in pids:
        try:
            rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
        except OSError:
            continue
        total += next((int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Pss:")), 0)
    return total / 1024


def busy_share(seconds: float) -> float:
    """Share of the machine's CPU time that was not idle during the next `seconds`."""
    before = _machine()
    time.sleep(seconds)
    idle, total = (now - then for now, then in zip(_machine(), before, strict=True))
    return 1 - idle / total


def machine_s() -> float:
    """CPU seconds that were not idle since boot, of all CPUs together."""
    idle, total = _machine()
    return (total - idle) / _TICKS


class Peak:
    """The largest PSS below `root` while the block runs."""

    def __init__(self, root: int) -> None:
        self.root, self.mb = root, 0.0

    def __enter__(self) -> "Peak":
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._stop.wait(0.25):
            self.mb = max(self.mb, pss_mb(descendants(self.root)))


def _stat(pid: int) -> list[str] | None:
    """Fields of /proc/PID/stat from the state on; None for a process that is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None


def _machine() -> tuple[int, int]:
    """(idle, all) ticks of all CPUs since boot."""
    fields = [int(field) for field in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
    return fields[3] + fields[4], sum(fields)
