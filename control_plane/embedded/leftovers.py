"""What an earlier supervisor that was killed has left running: found by pid and start time, and stopped.

A record of every child is kept in `run/pids.json`. A process that the record missed (killed between its start and
the writing), or whose parent died, still carries the mark in its environment.
"""

import contextlib
import json
import logging
import os
import signal
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import psutil

from control_plane.embedded import postgres, processes
from control_plane.embedded.files import write_json
from control_plane.embedded.layout import Layout

log = logging.getLogger(__name__)

MARK = "MLCP_STACK"  # in the environment of every child: the home of the stack it belongs to
_STORES = ("redis", "postgres")  # stopped after everything that uses them, in this order


@dataclass(frozen=True, slots=True)
class Leftover:
    name: str
    pid: int


def record(layout: Layout, running: Mapping[str, int]) -> None:
    """Note the children that run now: name -> pid."""
    entries = {name: {"pid": pid, "identity": processes.identity(pid)} for name, pid in running.items()}
    write_json(layout.run / "pids.json", entries)


def find(layout: Layout) -> list[Leftover]:
    """Recorded processes that still run, then other processes with our mark."""
    found: dict[int, Leftover] = {}
    try:
        entries: dict[str, dict[str, object]] = json.loads((layout.run / "pids.json").read_text())
    except (OSError, json.JSONDecodeError):
        entries = {}
    for name, entry in entries.items():
        pid, identity = entry.get("pid"), entry.get("identity")
        if isinstance(pid, int) and identity is not None and processes.identity(pid) == identity:
            found[pid] = Leftover(name, pid)
    ourselves = {os.getpid(), *(parent.pid for parent in psutil.Process().parents())}
    for process in psutil.process_iter():
        if process.pid in found or process.pid in ourselves:
            continue
        with contextlib.suppress(psutil.Error, OSError):
            if process.environ().get(MARK) == str(layout.home):
                found[process.pid] = Leftover(process.name(), process.pid)
    return list(found.values())


def stop(layout: Layout) -> list[Leftover]:
    """Stop them all: first what uses the stores, then the stores. Returns what was found. Blocks, at most 35 s."""
    found = find(layout)
    if found:
        log.warning("stopping what an earlier run left behind: %s", ", ".join(f"{p.name} ({p.pid})" for p in found))
    _stop([each for each in found if each.name not in _STORES], signal.SIGTERM, within_s=10)
    _stop([each for each in found if each.name == "redis"], signal.SIGTERM, within_s=5)
    _stop([each for each in found if each.name == "postgres"], postgres.STOP_SIGNAL, within_s=15)
    postgres.stop_leftover(layout.home / "pg")
    with contextlib.suppress(FileNotFoundError):
        (layout.run / "pids.json").unlink()
    return found


def _stop(leftovers: Iterable[Leftover], number: signal.Signals, *, within_s: float) -> None:
    running: list[psutil.Process] = []
    for each in leftovers:
        with contextlib.suppress(psutil.NoSuchProcess):
            process = psutil.Process(each.pid)
            process.send_signal(number)
            running.append(process)
    psutil.wait_procs(running, timeout=within_s)
    for process in running:
        if os.getpgid(0) != process.pid:
            processes.signal_group(process.pid, signal.SIGKILL)  # it led its own group: end the rest of it too
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(running, timeout=5)
