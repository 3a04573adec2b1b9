"""Keeps the stack running: starts its processes in order, follows `run/wanted`, reports, and stops in reverse order."""

import asyncio
import contextlib
import json
import logging
import os
import time
from collections.abc import Iterable, Mapping
from typing import Any, cast

from control_plane.embedded import leftovers, logs, processes, realtime, stack, status
from control_plane.embedded.child import Child, Spec, State, end
from control_plane.embedded.config import Config
from control_plane.embedded.files import write_json
from control_plane.embedded.layout import Layout
from control_plane.embedded.models import ModelServers
from control_plane.embedded.processes import Memory
from control_plane.embedded.status import Step

log = logging.getLogger(__name__)

_STATUS_EVERY_S = 2.0
_STATUS_PAUSE_S = 0.1
_MEMORY_EVERY_S = 15.0
_STORES = ("redis", "postgres")
# Stopping: the router drains while its model servers still answer, what uses the stores goes before the stores.
_DRAIN_S, _REST_S, _STORES_S = 9.0, 12.0, 8.0  # then SIGKILL; below 30 s in all


class Supervisor:
    """One running stack: `run` once; `stop` may be called from a signal handler."""

    def __init__(self, config: Config, layout: Layout, specs: Iterable[Spec], env: stack.Environments) -> None:
        self._config, self._layout = config, layout
        self._changed, self._ending = asyncio.Event(), asyncio.Event()
        self._core = {spec.name: self._child(spec) for spec in specs}
        lasting = tuple(name for name, child in self._core.items() if not child.spec.once)
        self._bootstrap = self._child(stack.bootstrap(config, env, after=lasting))
        self._models = ModelServers(layout, env.model_servers, self._changed.set)
        self._tasks: dict[int, asyncio.Task[None]] = {}  # by id() of the child
        self._memory: dict[int, Memory] = {}  # by pid
        self._error: str | None = None
        self._ended = False
        self._started_at = time.time()

    def stop(self) -> None:
        self._ending.set()
        self._changed.set()

    async def run(self) -> int:
        """Until `stop`, or until a process of the stack cannot be started at all. Returns the exit code."""
        reporting = asyncio.ensure_future(self._report())
        sampling = asyncio.ensure_future(self._sample())
        following = asyncio.ensure_future(self._models.follow())
        scheduling = asyncio.ensure_future(self._schedule())
        for child in (*self._core.values(), self._bootstrap):
            self._start(child)
        await self._ending.wait()
        log.info("stopping%s", f": {self._error}" if self._error else "")
        self._changed.set()
        following.cancel()
        scheduling.cancel()
        await self._stop_all()
        for task in (reporting, sampling):
            task.cancel()
        self._ended = True
        self._write()
        return 1 if self._error else 0

    def _child(self, spec: Spec) -> Child:
        ready_file = self._layout.ready_file(spec.name)
        return Child(spec, self._layout.log(spec.name), ready_file, changed=self._changed.set)

    def _start(self, child: Child) -> None:
        self._tasks[id(child)] = asyncio.ensure_future(self._life(child))

    async def _life(self, child: Child) -> None:
        for name in child.spec.after:
            await self._core[name].ready.wait()
        await child.run()
        if child.state is State.FAILED:
            said = " | ".join(logs.tail(child.log_path, 3))
            if child is self._bootstrap:
                self._error = _first_failure(self._bootstrap_steps()) or f"the first models are not served: {said}"
                self._changed.set()
            elif child.spec.name in self._core:
                self._error = f"{child.spec.name} does not start ({child.log_path}): {said}"
                self.stop()

    # Reporting

    async def _report(self) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_STATUS_EVERY_S):
                    await self._changed.wait()
            self._changed.clear()
            self._write()
            await asyncio.sleep(_STATUS_PAUSE_S)

    def _write(self) -> None:
        """A full disk must not stop the supervision: what cannot be written now is written later."""
        try:
            leftovers.record(self._layout, {child.spec.name: child.pid for child in self._children() if child.pid})
            write_json(self._layout.status, self._document())
        except OSError as error:
            log.error("the status cannot be written: %s", error)

    async def _sample(self) -> None:
        while True:
            pids = [os.getpid(), *(child.pid for child in self._children() if child.pid)]
            self._memory = await asyncio.to_thread(_measure, pids)
            for child in self._children():
                logs.trim(child.log_path)
            self._changed.set()
            await asyncio.sleep(_MEMORY_EVERY_S if self._state() == "ready" else _MEMORY_EVERY_S / 3)

    async def _schedule(self) -> None:
        """Until cancelled: who answers customers in real time while that takes little, and processors awake for it."""
        if not (self._config.realtime and realtime.possible()):
            return
        processors = len(os.sched_getaffinity(0))
        scheduler = realtime.Realtime(processors)
        with contextlib.closing(realtime.Awake()) as awake:
            while True:
                answering = [child for child in self._children() if child.spec.realtime and child.state is State.READY]
                parents = [(child.pid, child.spec.realtime) for child in answering if child.pid]
                scheduler.look({pid: priority for parent, priority in parents for pid in realtime.workers(parent)})
                awake.look(scheduler.share * processors / (os.cpu_count() or processors))  # it is all that stay awake
                await asyncio.sleep(realtime.LOOK_S)

    def _children(self) -> list[Child]:
        return [*self._core.values(), *self._models.children.values(), self._bootstrap]

    def _state(self) -> str:
        if self._ending.is_set() and not (self._ended and self._error):
            return "stopping"
        if self._error:
            return "failed"
        complete = self._bootstrap.ready.is_set() and all(child.ready.is_set() for child in self._core.values())
        return "ready" if complete else "starting"

    def _bootstrap_steps(self) -> list[Step]:
        try:
            document = cast("dict[str, Any]", json.loads(self._layout.bootstrap.read_bytes()))
            return [Step(**step) for step in document["steps"]]
        except (OSError, ValueError, KeyError, TypeError):
            return []

    def _document(self) -> Mapping[str, Any]:
        steps = [status.step_of(child) for child in self._core.values()] + self._bootstrap_steps()
        shown = [child for child in (*self._core.values(), self._bootstrap) if not child.spec.once or child.pid]
        rows = [self._supervisor_row(), *(status.process_row(child, self._memory_of(child)) for child in shown)]
        rows += [
            status.process_row(child, self._memory_of(child), id=id_) for id_, child in self._models.children.items()
        ]
        known = [memory.pss_mb for memory in self._memory.values() if memory.pss_mb is not None]
        return status.document(
            supervisor_pid=os.getpid(),
            state=self._state(),
            waiting="" if self._state() == "ready" else status.waiting_for(self._children(), steps, now=time.time()),
            steps=steps,
            error=self._error,
            urls={
                "api": f"{self._config.api_url}/docs",
                "predict": f"{self._config.router_url}/ml/<model>/predict",
                "mlflow": self._config.mlflow_url,
            },
            rows=rows,
            pss_mb=round(sum(known), 1) if known else None,
        )

    def _memory_of(self, child: Child) -> Memory | None:
        return self._memory.get(child.pid) if child.pid else None

    def _supervisor_row(self) -> Mapping[str, Any]:
        memory = self._memory.get(os.getpid())
        row: dict[str, Any] = {"name": "supervisor", "state": "ready", "pid": os.getpid(), "port": None, "socket": None}
        row |= {"rss_mb": memory.rss_mb if memory else None, "pss_mb": memory.pss_mb if memory else None}
        row |= {"started_at": self._started_at, "restarts": 0, "last_exit": None}
        return row | {"log": str(self._layout.log("supervisor"))}

    # Stopping

    async def _stop_all(self) -> None:
        first = [self._bootstrap, self._core["router"]] if "router" in self._core else [self._bootstrap]
        last = [self._core[name] for name in _STORES if name in self._core]
        rest = [child for child in self._children() if child not in first and child not in last]
        await self._end(first, _DRAIN_S)
        await self._end(rest, _REST_S)
        await self._end(last, _STORES_S)

    async def _end(self, children: list[Child], within_s: float) -> None:
        lives = self._tasks | {id(child): task for child, task in self._models.running}
        await end([(child, lives[id(child)]) for child in children], within_s)


def _measure(pids: list[int]) -> dict[int, Memory]:
    """Each pid with its descendants; the supervisor (first) without them."""
    children_of = processes.children()
    found = {pid: processes.memory(processes.tree(pid, children_of)) for pid in pids[1:]}
    return {pids[0]: processes.memory(pids[:1]), **found}


def _first_failure(steps: Iterable[Step]) -> str | None:
    return next((f"{step.name}: {step.detail}" for step in steps if step.state == "failed"), None)
