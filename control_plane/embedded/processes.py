"""Facts about processes of this host: who is it really, what memory does its tree take, what is left of a group."""

import contextlib
import os
import signal
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import psutil

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


@dataclass(frozen=True, slots=True)
class Memory:
    """Of a process and all its descendants, in MB (2**20 bytes)."""

    rss_mb: float
    pss_mb: float | None  # proportional set size: shared pages divided among their users; None where unknown


def identity(pid: int) -> str | None:
    """A text no other process ever has, on this host, under this pid. None if there is no such process.

    Start time in clock ticks since boot, together with the boot: unlike wall time it survives a clock adjustment.
    """
    try:
        if _BOOT_ID.exists():
            after_name = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            return None if after_name[0] == "Z" else f"{_BOOT_ID.read_text().strip()}:{after_name[19]}"
        return str(psutil.Process(pid).create_time())
    except (OSError, psutil.NoSuchProcess):
        return None


def group_exists(group: int) -> bool:
    """Whether anybody in it still runs. A dead member nobody has waited for (a container without init) counts not."""
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    for pid in psutil.pids():
        with contextlib.suppress(psutil.Error, OSError):
            if os.getpgid(pid) == group and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
                return True
    return False


def signal_group(group: int, number: signal.Signals) -> None:
    """Harmless if nobody is left."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)


def children() -> Mapping[int, list[int]]:
    """Pid of a parent -> pids of its children, for every process of the host."""
    found: defaultdict[int, list[int]] = defaultdict(list)
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            found[process.ppid()].append(process.pid)
    return found


def tree(pid: int, children_of: Mapping[int, list[int]]) -> list[int]:
    """`pid` and its descendants."""
    pids = [pid]
    for parent in pids:  # grows while it is walked
        pids += children_of.get(parent, [])
    return pids


def memory(pids: Iterable[int]) -> Memory:
    """Processes that end meanwhile count as nothing."""
    rss = pss = 0.0
    known = True
    for pid in pids:
        try:
            rss += psutil.Process(pid).memory_info().rss / 2**20
            pss += _pss_mb(pid)
        except psutil.Error:
            continue
        except OSError:
            known = False
    return Memory(round(rss, 1), round(pss, 1) if known else None)


def _pss_mb(pid: int) -> float:
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except ProcessLookupError:
        return 0.0
    return next(int(line.split()[1]) / 1024 for line in text.splitlines() if line.startswith("Pss:"))
