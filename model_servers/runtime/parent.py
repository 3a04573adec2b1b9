"""The parent of the workers: binds, forks, restarts, drains. It answers no request itself.

Everything that can be shared is loaded before the fork. The parent stays single-threaded, so that a fork at any time
is safe.
"""

import gc
import logging
import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from model_servers import priority
from model_servers.runtime import sockets, worker
from model_servers.runtime.engine import Engine
from model_servers.runtime.shared import Board
from model_servers.runtime.sockets import Listening
from model_servers.runtime.spec import Spec

_log = logging.getLogger(__name__)
UNUSABLE: Final = 4  # exit code: the model cannot be loaded
CANNOT_START: Final = 6  # exit code: workers die before they are ready
_ATTEMPTS: Final = 3  # deaths in a row before readiness
_SIGNALS: Final = {signal.SIGCHLD, signal.SIGTERM, signal.SIGINT}
_AUX_NICE: Final = 5  # batches and explanations give way to predictions


@dataclass(slots=True)
class _Slot:
    number: int
    listening: Listening
    board: Board
    aux: bool
    index: int  # on its board
    pid: int = 0
    deaths: int = 0  # in a row, before readiness
    start_at: float = 0.0  # monotonic
    missed: bool = False  # its worker died, and the next one is not ready yet


class Parent:
    def __init__(self, spec: Spec, engine: Callable[[], Engine]) -> None:
        """`engine` is called in each worker after the fork; what it shares with others it closes over."""
        self._spec = spec
        self._engine = engine
        self._lifeline = os.pipe()  # workers hold the read end and drain when we are gone, however we went
        main = sockets.listen(spec.socket)
        board = Board(spec.workers)
        self._slots = [_Slot(i, main, board, aux=False, index=i) for i in range(spec.workers)]
        if spec.aux_socket:
            self._slots.append(_Slot(spec.workers, sockets.listen(spec.aux_socket), Board(1), aux=True, index=0))
        self._announced = False
        self._unusable = False

    def run(self) -> int:
        """Exit code: 0 after a drain, UNUSABLE or CANNOT_START when workers cannot become ready."""
        signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
        gc.collect()
        gc.freeze()  # objects from before the fork are never moved about by a collection, so their pages stay shared
        for slot in self._slots:
            self._start(slot)
        while True:
            arrived = signal.sigtimedwait(_SIGNALS, 0.02 if not self._announced else 1.0)
            if arrived and arrived.si_signo in {signal.SIGTERM, signal.SIGINT}:
                return self._drain()
            self._reap()
            if self._unusable:
                self._kill(signal.SIGKILL)
                return UNUSABLE
            if any(slot.deaths >= _ATTEMPTS for slot in self._slots):
                _log.error("workers die before they are ready", extra={"attempts": _ATTEMPTS})
                self._kill(signal.SIGKILL)
                return CANNOT_START
            for slot in self._slots:
                if not slot.pid and time.monotonic() >= slot.start_at:
                    self._start(slot)
                elif slot.missed and slot.board.is_ready(slot.index):
                    slot.missed = False
                    _log.info("worker replaced", extra={"slot": slot.number, "worker": slot.pid})
            if not self._announced and all(slot.board.is_ready(slot.index) for slot in self._slots):
                self._announce()

    def _start(self, slot: _Slot) -> None:
        slot.board.clear(slot.index)
        pid = os.fork()
        if pid:
            slot.pid = pid
            return
        code = 1
        try:
            os.close(self._lifeline[1])
            for other in self._slots:
                if other.listening is not slot.listening:
                    other.listening.socket.close()
            if slot.aux:
                os.setsid()  # in ours, it would use up the share of the workers that predict
                priority.of_session(_AUX_NICE)
            worker.run(
                self._spec,
                slot.listening.socket,
                slot=slot.index,
                aux=slot.aux,
                board=slot.board,
                lifeline=self._lifeline[0],
                engine=self._engine,
            )
            code = 0
        except worker.CannotLoad as exc:
            _log.error("refused: the model cannot be loaded: %s", exc)
            code = UNUSABLE
        except BaseException:  # noqa: BLE001  (a child must never return into the parent's code)
            _log.exception("worker failed", extra={"slot": slot.number})
        finally:
            logging.shutdown()
            os._exit(code)

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if not pid:
                return
            for slot in self._slots:
                if slot.pid == pid:
                    self._buried(slot, os.waitstatus_to_exitcode(status))

    def _buried(self, slot: _Slot, code: int) -> None:
        was_ready = slot.board.is_ready(slot.index)
        extra = {"slot": slot.number, "worker": slot.pid, "exit": code, "was_ready": was_ready}
        _log.warning("worker died", extra=extra)
        if folder := os.environ.get("PROMETHEUS_MULTIPROC_DIR"):
            from prometheus_client import multiprocess

            multiprocess.mark_process_dead(slot.pid, folder)  # type: ignore[no-untyped-call]
        slot.pid, slot.missed = 0, True
        self._unusable = self._unusable or (code == UNUSABLE and not was_ready)
        slot.board.clear(slot.index)
        slot.deaths = 0 if was_ready else slot.deaths + 1
        slot.start_at = time.monotonic() + 0.2 * slot.deaths

    def _announce(self) -> None:
        self._announced = True
        _log.info("ready", extra={"workers": self._spec.workers, "socket": self._spec.socket})
        if path := os.environ.get("MLCP_READY_FILE"):
            Path(path).write_text(str(os.getpid()))

    def _drain(self) -> int:
        _log.info("draining")
        for slot in self._slots:
            slot.listening.close()
        self._kill(signal.SIGTERM)
        deadline = time.monotonic() + self._spec.grace_s + 1
        while any(slot.pid for slot in self._slots) and time.monotonic() < deadline:
            signal.sigtimedwait({signal.SIGCHLD}, 0.1)
            while True:
                try:
                    pid, _ = os.waitpid(-1, os.WNOHANG)
                except ChildProcessError:
                    return 0
                if not pid:
                    break
                for slot in self._slots:
                    slot.pid = 0 if slot.pid == pid else slot.pid
        self._kill(signal.SIGKILL)
        return 0

    def _kill(self, number: signal.Signals) -> None:
        for slot in self._slots:
            if slot.pid:
                os.kill(slot.pid, number)
