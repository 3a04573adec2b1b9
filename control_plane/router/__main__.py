"""`python -m control_plane.router`: binds the port, forks the workers, keeps them alive, stops them in order.

The parent holds the listening socket and nothing else: a worker that is killed loses its own connections, while new
ones wait in the socket's queue for its siblings or its successor.
"""

import errno
import os
import select
import signal
import socket
import sys
import time
from typing import Final

import structlog
import uvloop

from control_plane.router import worker
from control_plane.router.siblings import Board
from control_plane.settings import RouterSettings
from control_plane.telemetry import configure_logging, mark_ready

_GRACE_S: Final = worker.DRAIN_S + 3
_BIND_PATIENCE_S: Final = 3.0  # a predecessor's workers may just be draining
_YOUNG_S: Final = 1.0  # a worker that dies younger is started again with a pause
_LONGEST_PAUSE_S: Final = 2.0
_log: structlog.stdlib.BoundLogger = structlog.get_logger()


class Parent:
    """The workers of one router, by slot."""

    def __init__(self, settings: RouterSettings, listening: socket.socket) -> None:
        self._settings, self._listening = settings, listening
        self._board = Board(settings.router_workers)
        self._alive_read, self._alive_write = os.pipe()  # the write end lives as long as this process
        self._ready_read, self._ready_write = os.pipe()
        self._started: dict[int, tuple[int, float]] = {}  # pid -> slot, when
        self._due: dict[int, float] = {}  # slot -> when to start it
        self._pause = 0.0
        self._stopping = False

    def run(self) -> None:
        """Return when every worker has ended after SIGTERM or SIGINT."""
        # A signal only has to wake the select below: it writes to this pipe.
        wake_read, wake_write = os.pipe()
        os.set_blocking(wake_write, False)
        signal.set_wakeup_fd(wake_write)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_stop)
        signal.signal(signal.SIGCHLD, self._on_child)
        self._due = dict.fromkeys(range(self._settings.router_workers), 0.0)
        waited, give_up = 0, 0.0
        while self._started or not self._stopping:
            now = time.monotonic()
            for slot in [slot for slot, at in self._due.items() if at <= now and not self._stopping]:
                del self._due[slot]
                self._fork(slot)
            readable, _, _ = select.select([wake_read, self._ready_read], [], [], 0.2)
            if wake_read in readable:
                os.read(wake_read, 4096)
            if self._ready_read in readable:
                waited += len(os.read(self._ready_read, 4096))
                if waited >= self._settings.router_workers:
                    mark_ready()
                    waited = -(2**60)  # said once
            self._reap()
            if self._stopping:
                give_up = give_up or time.monotonic() + _GRACE_S
                self._signal_all(signal.SIGTERM if time.monotonic() < give_up else signal.SIGKILL)

    def _on_stop(self, *_: object) -> None:
        self._stopping = True

    def _on_child(self, *_: object) -> None:
        """Nothing to do here: that it came ends the wait."""

    def _say_ready(self) -> None:
        os.write(self._ready_write, b".")

    def _fork(self, slot: int) -> None:
        pid = os.fork()
        if pid:
            self._started[pid] = (slot, time.monotonic())
            return
        code = 1
        try:
            signal.set_wakeup_fd(-1)
            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD):
                signal.signal(number, signal.SIG_DFL)
            os.close(self._alive_write)
            structlog.contextvars.bind_contextvars(slot=slot)
            uvloop.run(
                worker.serve(self._settings, self._listening, self._board, slot, self._alive_read, self._say_ready)
            )
            code = 0
        except BaseException:  # noqa: BLE001  (the child must not run on into the parent's loop)
            _log.exception("worker.failed", slot=slot)
        finally:
            sys.stderr.flush()
            os._exit(code)

    def _reap(self) -> None:
        while self._started:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if not pid:
                return
            slot, since = self._started.pop(pid)
            self._board.clear(slot)
            if self._stopping:
                continue
            now = time.monotonic()
            self._pause = 0.0 if now - since > _YOUNG_S else min(2 * self._pause or 0.1, _LONGEST_PAUSE_S)
            self._due[slot] = now + self._pause
            _log.error("worker.died", slot=slot, pid=pid, exit=os.waitstatus_to_exitcode(status), pause_s=self._pause)

    def _signal_all(self, number: signal.Signals) -> None:
        for pid in self._started:
            os.kill(pid, number)


def bind(host: str, port: int) -> socket.socket:
    """The listening socket. OSError when the port is somebody else's."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    give_up = time.monotonic() + _BIND_PATIENCE_S
    while True:
        try:
            listening.bind((host, port))
            break
        except OSError as exc:
            if exc.errno != errno.EADDRINUSE or time.monotonic() > give_up:
                listening.close()
                raise
            time.sleep(0.1)
    listening.listen(4096)
    listening.setblocking(False)
    return listening


def main() -> int:
    settings = RouterSettings()  # pyright: ignore[reportCallIssue]  (the environment has the rest)
    configure_logging("router", level=settings.log_level)
    try:
        listening = bind(settings.router_host, settings.router_port)
    except OSError as exc:
        where = f"{settings.router_host}:{settings.router_port}"
        _log.error("router.no_port", where=where, error=str(exc), change="MLCP_ROUTER_HOST or MLCP_ROUTER_PORT")
        return 1
    Parent(settings, listening).run()
    return 0


if __name__ == "__main__":
    sys.exit(main())
