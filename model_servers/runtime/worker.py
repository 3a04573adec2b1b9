"""One pre-forked worker: accepts from the shared socket, answers, drains."""

import asyncio
import gc
import logging
import os
import signal
import socket
from collections.abc import Callable
from hashlib import sha256
from typing import Final

from model_servers.runtime.app import App, failed
from model_servers.runtime.engine import Engine
from model_servers.runtime.http import Connection, Listener
from model_servers.runtime.metrics import Metrics
from model_servers.runtime.shared import Board
from model_servers.runtime.spec import Spec

_log = logging.getLogger(__name__)
_QUIET_S: Final = 0.2  # while draining: no request this long, then idle connections are closed
_YIELD_S: Final = 0.002  # a worker with more connections than another lets it accept first, this long


class CannotLoad(Exception):
    """The model cannot be made to serve; another attempt would end the same way."""


def run(
    spec: Spec,
    listening: socket.socket,
    *,
    slot: int,
    aux: bool,
    board: Board,
    lifeline: int,
    engine: Callable[[], Engine],
) -> None:
    """Serve until SIGTERM, or until `lifeline` (the read end of a pipe the parent holds) closes; then drain."""
    import uvloop

    loop = uvloop.new_event_loop()
    asyncio.set_event_loop(loop)
    try:
        loop.run_until_complete(_serve(spec, listening, slot, aux, board, lifeline, engine))
    finally:
        loop.close()


async def _serve(
    spec: Spec,
    listening: socket.socket,
    slot: int,
    aux: bool,
    board: Board,
    lifeline: int,
    engine: Callable[[], Engine],
) -> None:
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    loop.add_reader(lifeline, stop.set)
    eager = not aux or spec.runtime == "native"  # a foreign model is loaded for batches when the first one comes
    metrics = Metrics(spec.model, spec.version, _identity(spec, slot, aux=aux), later=loop.call_later)
    app = App(spec, _loaded(engine, eager=eager), metrics)
    if eager:
        app.warm_up()
    app.open()
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 100)  # requests leave no cycles behind; connections do
    listener = Listener(app.aux_routes() if aux else app.routes(), crashed=failed)
    accepting = _Accepting(loop, listening, listener, board, slot)
    board.ready(slot)
    await stop.wait()
    loop.remove_reader(lifeline)
    await _drain(listener, accepting, spec.grace_s)
    metrics.flush()


def _identity(spec: Spec, slot: int, *, aux: bool) -> str:
    """Of a worker's place: the same for its successor, another one for every deployment."""
    place = sha256(str(spec.socket).encode()).hexdigest()[:12]
    return f"model-server-{place}-{'aux' if aux else slot}"


def _loaded(engine: Callable[[], Engine], *, eager: bool) -> Engine:
    try:
        made = engine()
        if eager:
            made.load()
    except Exception as exc:  # whatever a foreign model raises while it is loaded; no request has been seen yet
        raise CannotLoad(f"{type(exc).__name__}: {exc}") from exc
    return made


class _Accepting:
    """Takes connections one at a time, so that workers that share a socket share its connections too."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, listening: socket.socket, listener: Listener, board: Board, slot: int
    ) -> None:
        self._loop, self._socket, self._listener = loop, listening, listener
        self._board, self._slot = board, slot
        self._opening: set[asyncio.Task[None]] = set()
        listener.on_change = lambda count: board.connections(slot, count)
        loop.add_reader(listening.fileno(), self._knocked)

    def _knocked(self) -> None:
        if self._board.others_have_fewer(self._slot):
            self._loop.remove_reader(self._socket.fileno())
            self._loop.call_later(_YIELD_S, self._again)
        else:
            self._accept()

    def _again(self) -> None:
        if self._socket.fileno() >= 0:
            self._accept()
            self._loop.add_reader(self._socket.fileno(), self._knocked)

    def _accept(self) -> bool:
        try:
            accepted, _ = self._socket.accept()
        except (BlockingIOError, InterruptedError, ConnectionAbortedError):
            return False
        except OSError as exc:  # out of file descriptors: the client waits in the backlog
            _log.error("cannot accept", extra={"error": exc.strerror})
            return False
        accepted.setblocking(False)
        if accepted.family != socket.AF_UNIX:
            accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        task = self._loop.create_task(self._open(accepted))
        self._opening.add(task)
        task.add_done_callback(self._opening.discard)
        return True

    async def _open(self, accepted: socket.socket) -> None:
        try:
            await self._loop.connect_accepted_socket(lambda: Connection(self._listener), accepted)
        except OSError:  # gone before we came to it
            accepted.close()

    async def stop(self) -> None:
        """Take what already waits in the backlog, then no more."""
        self._loop.remove_reader(self._socket.fileno())
        while self._accept():
            pass
        self._socket.close()
        if self._opening:
            await asyncio.wait(self._opening)


async def _drain(listener: Listener, accepting: _Accepting, grace_s: float) -> None:
    """Answer what has arrived and what still arrives on open connections; each answer ends its connection."""
    listener.draining = True
    await accepting.stop()
    loop = asyncio.get_running_loop()
    deadline, quiet_since, served = loop.time() + grace_s, loop.time(), listener.served
    while listener.connections and loop.time() < deadline:
        await asyncio.sleep(0.01)
        if listener.busy or listener.served != served:
            quiet_since, served = loop.time(), listener.served
        elif loop.time() - quiet_since >= _QUIET_S:
            for connection in list(listener.connections):
                connection.close_if_idle()
    if listener.connections:
        _log.warning("grace is over", extra={"connections": len(listener.connections), "pid": os.getpid()})
    await asyncio.sleep(0)
