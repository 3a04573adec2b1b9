"""One supervised process: started, watched until ready, started again with back-off when it dies, stopped."""

import asyncio
import contextlib
import logging
import os
import signal
import subprocess
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

from control_plane.embedded import logs, processes
from model_servers import priority

log = logging.getLogger(__name__)

FIRST_DELAY_S = 0.5
GOES_FIRST = -5  # niceness of what answers customers
LONGEST_DELAY_S = 30.0
HEALTHY_S = 60.0  # alive and ready for so long: the next death starts from the shortest delay again
_LOOK_S = 0.05
_REST_OF_GROUP_S = 2.0  # what a dead leader leaves behind gets so long to end by itself


class State(StrEnum):
    STARTING = "starting"
    READY = "ready"
    BACKOFF = "backoff"
    STOPPED = "stopped"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Spec:
    """What to run and how to know that it does its work."""

    name: str
    argv: tuple[str, ...]
    env: Mapping[str, str]  # the whole environment, not an addition
    after: tuple[str, ...] = ()  # names that must have been ready before the first start
    prepare: Callable[[], None] | None = None  # before every start, in a thread
    ready: Callable[[], Awaitable[bool]] | None = None  # None: the process writes the file MLCP_READY_FILE names
    ready_within_s: float | None = 120.0  # else it is killed and started again; None: it may take its time
    tries: int = 5  # failed starts in a row before it has ever been ready: then it counts as FAILED
    gives_up: bool = True  # and is not started again; False: tried on, at the longest delay
    once: bool = False  # runs to its end; exit code 0 is its readiness
    port: int | None = None
    socket: str | None = None
    grace_s: float = 10.0  # between the stop signal and SIGKILL
    stop_signal: signal.Signals = signal.SIGTERM
    user: tuple[int, int] | None = None  # uid, gid to run as
    niceness: int = 0  # once it is ready; below 0 only where the supervisor may
    realtime: int = 0  # the priority of what it forks to answer customers while that may be (`realtime`); 0: none


@dataclass(slots=True)
class Child:
    """The life of one process. `run` is its only task; everything else may be read at any time."""

    spec: Spec
    log_path: Path
    ready_file: Path
    changed: Callable[[], None]  # called on every change of state or pid
    state: State = State.STOPPED
    pid: int | None = None
    started_at: float | None = None  # Unix time of the last start
    restarts: int = 0
    last_exit: int | None = None  # exit code, or minus the signal's number
    ready: asyncio.Event = field(default_factory=asyncio.Event)  # set when ready for the first time
    _stop: asyncio.Event = field(default_factory=asyncio.Event)

    def stop(self) -> None:
        """Ask it to end; `run` returns when it has."""
        self._stop.set()

    async def run(self) -> None:
        """Keep the process running until `stop`, until a `once` process succeeds, or until it is given up (FAILED)."""
        delay, failures = FIRST_DELAY_S, 0
        while not self._stop.is_set():
            healthy_s = await self._live()
            if self._stop.is_set() or (self.spec.once and self.ready.is_set()):
                break
            if healthy_s >= HEALTHY_S:
                delay = FIRST_DELAY_S
            failures += 1
            self._now(State.BACKOFF if self.ready.is_set() or failures < self.spec.tries else State.FAILED)
            if self.state is State.FAILED and self.spec.gives_up:
                log.error("%s is given up after %s failed starts", self.spec.name, failures)
                return
            log.warning("%s ended (%s); next start in %.1f s", self.spec.name, self.last_exit, delay)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(delay):
                    await self._stop.wait()
            delay = min(2 * delay, LONGEST_DELAY_S)
            self.restarts += 1
        self._now(State.STOPPED)

    async def _live(self) -> float:
        """One life, from start to the end of the whole process group. Returns for how many seconds it was ready."""
        ready_at: float | None = None
        if self.state is not State.FAILED:  # which lasts until it is ready
            self._now(State.STARTING)
        try:
            if self.spec.prepare:
                await asyncio.to_thread(self.spec.prepare)
            process = self._spawn()
        except Exception:
            log.exception("%s cannot be started", self.spec.name)
            return 0.0
        self.pid, self.started_at = process.pid, time.time()
        self.changed()
        exited: asyncio.Future[int] = asyncio.ensure_future(_exit_of(process))
        stopped = asyncio.ensure_future(self._stop.wait())
        try:
            if not self.spec.once and await self._becomes_ready(exited):
                ready_at = time.monotonic()
                self.ready.set()
                if self.spec.niceness:
                    priority.of_session(self.spec.niceness, process.pid)
                log.info("%s is ready (pid %s)", self.spec.name, self.pid)
                self._now(State.READY)
            if self.spec.once or ready_at is not None:
                both: set[asyncio.Future[Any]] = {exited, stopped}
                await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
            await self._end(process, exited)
        finally:
            stopped.cancel()
            self.ready_file.unlink(missing_ok=True)
        self.last_exit = exited.result()
        if self.spec.once and self.last_exit == 0:
            self.ready.set()
        self.pid = None
        return time.monotonic() - ready_at if ready_at is not None else 0.0

    def _spawn(self) -> subprocess.Popen[bytes]:
        self.ready_file.unlink(missing_ok=True)
        user = self.spec.user
        with logs.open_for(self.log_path) as output:
            return subprocess.Popen(  # noqa: S603  (the command comes from us or from our deployer)
                self.spec.argv,
                env={**self.spec.env, "MLCP_READY_FILE": str(self.ready_file)},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,  # a group of its own, so that all it starts can be ended with it
                user=user[0] if user else None,
                group=user[1] if user else None,
                extra_groups=[] if user else None,
            )

    async def _becomes_ready(self, exited: asyncio.Future[int]) -> bool:
        """False if it dies, is to be stopped, or takes too long."""
        until = time.monotonic() + self.spec.ready_within_s if self.spec.ready_within_s else None
        while not (exited.done() or self._stop.is_set()):
            if await self.spec.ready() if self.spec.ready else self.ready_file.exists():
                return True
            if until is not None and time.monotonic() > until:
                log.error("%s was not ready within %s s", self.spec.name, self.spec.ready_within_s)
                return False
            await asyncio.wait({exited}, timeout=_LOOK_S)
        return False

    async def _end(self, process: subprocess.Popen[bytes], exited: asyncio.Future[int]) -> None:
        """Leader first, with its grace; then whatever is left of its group."""
        if not exited.done():
            process.send_signal(self.spec.stop_signal)
            await asyncio.wait({exited}, timeout=self.spec.grace_s)
        elif processes.group_exists(process.pid):
            processes.signal_group(process.pid, signal.SIGTERM)
            for _ in range(round(_REST_OF_GROUP_S / _LOOK_S)):
                if processes.group_exists(process.pid):
                    await asyncio.sleep(_LOOK_S)
        processes.signal_group(process.pid, signal.SIGKILL)
        await exited

    def _now(self, state: State) -> None:
        self.state = state
        self.changed()


async def end(running: Sequence[tuple[Child, asyncio.Task[None]]], within_s: float) -> None:
    """Stop them all at the same time. `running`: each with the task that is its life; SIGKILL after `within_s`."""
    for child, task in running:
        child.stop()
        if child.pid is None and child.state is State.STOPPED:
            task.cancel()  # it still waits for its turn to start
    tasks = [task for _, task in running]
    if tasks:
        await asyncio.wait(tasks, timeout=within_s)
    for child, _ in running:
        if child.pid:
            log.error("%s did not end in time and is killed", child.spec.name)
            processes.signal_group(child.pid, signal.SIGKILL)
    if tasks:
        await asyncio.wait(tasks, timeout=2)


async def _exit_of(process: subprocess.Popen[bytes]) -> int:
    """The exit code, without a thread per child where the kernel has pidfds."""
    try:
        descriptor = os.pidfd_open(process.pid)
    except (AttributeError, OSError):
        return await asyncio.to_thread(process.wait)
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    loop.add_reader(descriptor, ended.set)
    try:
        await ended.wait()
    finally:
        loop.remove_reader(descriptor)
        os.close(descriptor)
    return process.wait()
