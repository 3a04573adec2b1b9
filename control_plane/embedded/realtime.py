"""Real-time scheduling of what answers customers, as long as that takes little of the machine.

Niceness decides how much of a processor a process gets. When it gets it is decided to a tick of the kernel's clock, 4
ms at 250 Hz, and a prediction waits for two processes in turn. Under SCHED_RR they run as soon as they are asked. Left
to it they could keep everything else from running, a rollback among it. So it holds only while all of them together
take less than two thirds of the processors; from there on they are scheduled like anybody else (sched(7)).

An idle processor sleeps and has to wake first, a virtual one by way of its host (some 50 us), three times in a
prediction. While customers ask for a tenth of the machine the kernel is asked to let idle processors wait for work
instead (PM QoS, /dev/cpu_dma_latency). That costs power, so nobody else pays for it.
"""

import contextlib
import logging
import math
import os
import struct
import time
from collections.abc import Callable, Mapping
from io import FileIO
from pathlib import Path
from typing import Final

import psutil

from control_plane.domain import sharing

log = logging.getLogger(__name__)

LOOK_S: Final = 0.5
MEAN_S: Final = 2.0  # over which what they take is averaged
MODEL_SERVER: Final = 1  # the lowest priority there is: whatever else is real-time on this machine goes first
ROUTER: Final = 2  # it has everybody's answers in hand, a model server those of one batch
_CPU_LATENCY: Final = Path("/dev/cpu_dma_latency")
_THROTTLE: Final = Path("/proc/sys/kernel/sched_rt_runtime_us")

Schedule = Callable[[int, int], None]  # pid and priority; raises OSError


def possible() -> bool:
    """The kernel can do it and keeps a part of every processor for others, whatever real-time processes want."""
    try:
        return hasattr(os, "sched_setscheduler") and int(_THROTTLE.read_text()) > 0
    except (OSError, ValueError):
        return False


def schedule(pid: int, priority: int) -> None:
    """The main thread of a process: its event loop. What it forks or starts as a thread is not real-time.

    `priority`: in real time; 0: not real-time.
    """
    policy = os.SCHED_RR | os.SCHED_RESET_ON_FORK if priority else os.SCHED_OTHER
    os.sched_setscheduler(pid, policy, os.sched_param(priority))


def used_s(pid: int) -> float | None:
    """Processor seconds of a process so far; None: it is gone."""
    try:
        times = psutil.Process(pid).cpu_times()
    except psutil.Error:
        return None
    return times.user + times.system


def workers(parent: int) -> list[int]:
    """What the parent of a router or a model server has forked to answer customers: its children in its own session."""
    try:
        children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
    except OSError:
        return []
    found = list[int]()
    for pid in map(int, children):
        with contextlib.suppress(ProcessLookupError):
            if os.getsid(pid) != pid:  # the worker for batches has a session of its own
                found.append(pid)
    return found


class Realtime:
    """Looks at those it is told of, and schedules them."""

    def __init__(
        self,
        processors: int,
        *,
        used_s: Callable[[int], float | None] = used_s,
        schedule: Schedule = schedule,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._processors, self._used_s, self._schedule, self._clock = processors, used_s, schedule, clock
        self._allowed = True
        self._now = False  # whether they are real-time
        self._share = 0.0
        self._before: tuple[float, dict[int, float]] = (clock(), {})
        self._told: dict[int, bool] = {}

    @property
    def share(self) -> float:
        """Of all processors, 0..1: what they take together, averaged over MEAN_S."""
        return self._share

    def look(self, priorities: Mapping[int, int]) -> None:
        """Called every LOOK_S or so, with the priority of each process in real time.

        Where the first one may not be scheduled nobody is, from then on.
        """
        if not self._allowed:
            return
        used = {pid: spent for pid in priorities if (spent := self._used_s(pid)) is not None}
        now, (at, before) = self._clock(), self._before
        self._before = now, used
        spent = sum(max(0.0, used[pid] - before[pid]) for pid in used.keys() & before.keys())
        took = max(now - at, 1e-3)
        self._share += (1 - math.exp(-took / MEAN_S)) * (spent / took / self._processors - self._share)
        self._now = sharing.realtime(self._now, self._share)
        self._told = {pid: told for pid, told in self._told.items() if pid in used}
        for pid in used:
            if self._told.get(pid, False) == self._now:
                continue
            try:
                self._schedule(pid, priorities[pid] if self._now else 0)
            except ProcessLookupError:
                continue
            except OSError as error:  # not root, or a container that may not
                self._allowed, self._share = False, 0.0
                log.info("nobody is scheduled in real time: %s", error.strerror)
                return
            self._told[pid] = self._now


class Awake:
    """Keeps idle processors from sleeping while that pays. When we end, however we do, so does the request."""

    def __init__(self, device: Path = _CPU_LATENCY) -> None:
        self._device = device
        self._request: FileIO | None = None
        self._allowed = True

    @property
    def asks(self) -> bool:
        """Whether the kernel is asked now."""
        return self._request is not None

    def look(self, share: float) -> None:
        """`share`: of all processors that what answers customers takes, 0..1."""
        wanted = sharing.awake(self.asks, share)
        if not wanted:
            self.close()
        elif self._request is None and self._allowed:
            try:
                self._request = self._device.open("r+b", buffering=0)
                self._request.write(struct.pack("=i", 0))  # microseconds that a processor may need to wake
            except OSError as error:  # not root, or a container without it
                self._allowed = False
                self.close()
                log.info("idle processors sleep: %s", error.strerror)

    def close(self) -> None:
        if self._request is not None:
            self._request.close()
            self._request = None
