"""Processes of our own modules, forked from one that has imported them: most of what a start costs is the imports.

They are processes like any other: own environment, own session, own memory from the first write on. The one they are
forked from is started by the first of them and ends with the test run.
"""

import atexit
import contextlib
import os
import runpy
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from multiprocessing import get_context
from pathlib import Path
from typing import Final

MODULES: Final = (
    "control_plane.api",
    "control_plane.ingest.ingester",
    "control_plane.ingest.shipper",
    "control_plane.reconciler",
    "control_plane.router",
    "control_plane.worker",
    "tests.support.faults",
)
_context = get_context("forkserver")


class Forked:
    """`python -m MODULE ARGUMENTS`, with as much of subprocess.Popen as tests ask for."""

    def __init__(self, argv: Sequence[str], *, log: Path, env: Mapping[str, str], cwd: Path | None = None) -> None:
        _context.set_forkserver_preload([__name__, *_imported()])
        self.args = list(argv)
        log.write_bytes(b"")
        told = (list(argv[2:]), str(log), dict(env), str(cwd or Path.cwd()))
        self._process = _context.Process(target=_become, args=told)
        self._process.start()
        assert self._process.pid is not None
        self.pid = self._process.pid
        with contextlib.suppress(ProcessLookupError):  # it has ended
            while self.poll() is None and os.getpgid(self.pid) != self.pid:  # until then it is of another session
                time.sleep(0.001)

    @property
    def returncode(self) -> int | None:
        return self._process.exitcode

    def poll(self) -> int | None:
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        self._process.join(timeout)
        if (code := self._process.exitcode) is None:
            raise subprocess.TimeoutExpired(self.args, timeout or 0.0)
        return code

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


def can_be(argv: Sequence[str]) -> bool:
    return list(argv[:2]) == [sys.executable, "-m"] and argv[2] in MODULES


def _imported() -> list[str]:
    return [module if module.count(".") > 1 else f"{module}.__main__" for module in MODULES]


def _become(argv: list[str], log: str, env: dict[str, str], cwd: str) -> None:
    os.setsid()
    out = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
    os.dup2(out, 1)
    os.dup2(out, 2)
    os.environ.clear()
    os.environ.update(env)
    os.chdir(cwd)
    module, sys.argv = argv[0], list(argv)
    for name in (module, f"{module}.__main__"):
        if name in _imported():
            sys.modules.pop(name, None)  # it is run, where it was imported
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    finally:
        atexit._run_exitfuncs()  # multiprocessing leaves them out
