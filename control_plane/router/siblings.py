"""How the workers of one router share its connections, and a limit's share among them.

Few busy workers answer more than many idle ones: what waits together is sent together, read together and scored in one
call of the model. So connections gather with the first worker, and the next ones get theirs once it has no processor
time left (`domain.sharing` decides). A connection moves between two requests: its socket is handed over, and the client
notices nothing.
"""

import asyncio
import fcntl
import math
import mmap
import os
import socket
import struct
import time
from dataclasses import replace
from pathlib import Path
from typing import Final

import structlog

from control_plane.domain import sharing
from control_plane.domain.sharing import Move, Seen
from control_plane.router.http import Connection, Listener
from control_plane.router.limits import Limits

LOOK_S: Final = 0.05
MOVE_S: Final = 1.0  # between two decisions to hand over, and the time constant of what they are taken by
SHARE_S: Final = 0.25  # between two looks at how a limit is shared
_AT_ONCE: Final = 64  # sockets read in one call
_SLOT: Final = struct.Struct("=ddddq")
_log: structlog.stdlib.BoundLogger = structlog.get_logger()


class Board:
    """Shared memory with one entry per worker, and a way to hand it sockets; made by the parent before it forks.

    An entry is written by its worker alone, and by the parent once that has died.
    """

    def __init__(self, slots: int) -> None:
        self.slots = slots
        self._memory = mmap.mmap(-1, slots * _SLOT.size)
        self.inboxes, self._outboxes = list[socket.socket](), list[socket.socket]()
        for _ in range(slots):
            inbox, outbox = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
            inbox.setblocking(False)
            outbox.setblocking(False)
            self.inboxes.append(inbox)
            self._outboxes.append(outbox)

    def close(self) -> None:
        """Of this process: others keep what they have."""
        for end in (*self.inboxes, *self._outboxes):
            end.close()

    def clear(self, slot: int) -> None:
        """Nobody is there any more."""
        self.write(Seen(slot))

    def write(self, seen: Seen) -> None:
        entry = (seen.beat, seen.busy, seen.demand, seen.share, seen.connections)
        _SLOT.pack_into(self._memory, seen.slot * _SLOT.size, *entry)

    def read(self) -> list[Seen]:
        """Every entry, by slot."""
        return [Seen(slot, *_SLOT.unpack_from(self._memory, slot * _SLOT.size)) for slot in range(self.slots)]

    def send(self, slot: int, descriptor: int) -> bool:
        """Hand a socket to a worker. False: its inbox is full."""
        try:
            socket.send_fds(self._outboxes[slot], [b"."], [descriptor])
        except OSError:
            return False
        return True


class Siblings:
    """One worker among the others: accepts, hands over, takes over, and takes its share of the limits."""

    def __init__(self, board: Board, slot: int, listening: socket.socket, listener: Listener, limits: Limits) -> None:
        self._board, self._slot = board, slot
        self._listening, self._listener, self._limits = listening, listener, limits
        self._loop = asyncio.get_running_loop()
        self._server: asyncio.Server | None = None
        self._me = Seen(slot)
        self._looked = (time.monotonic(), time.thread_time())
        self._move: Move | None = None
        self._decided, self._shared = time.monotonic(), 0.0
        self._lock: int | None = None
        self._opening: set[asyncio.Task[None]] = set()

    async def begin(self, lock: Path) -> None:
        """Take connections from now on, by the rule. `lock`: a file all workers of the router can open."""
        try:
            lock.parent.mkdir(parents=True, exist_ok=True)
            self._lock = os.open(lock, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        except OSError as exc:  # a full disk: shares stay even
            _log.warning("siblings.no_lock", error=str(exc))
        self._limits.take_part(1 / self._board.slots if self._lock is None else 0.0)
        self._loop.add_reader(self._board.inboxes[self._slot].fileno(), self._take_over)
        await self.look()

    async def run(self) -> None:
        while True:
            await asyncio.sleep(LOOK_S)
            try:
                await self.look()
            except Exception:  # noqa: BLE001  (connections there are go on being served)
                _log.exception("siblings.failed", slot=self._slot)

    async def end(self) -> None:
        """Accept nothing more; what is handed to us from now on waits for our successor."""
        self._loop.remove_reader(self._board.inboxes[self._slot].fileno())
        self._board.clear(self._slot)
        await self._accept(False)
        self._listening.close()
        if self._opening:
            await asyncio.wait(self._opening)
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    async def look(self) -> None:
        now = self._measure()
        seen = self._board.read()
        await self._accept(sharing.takes_new(self._slot, seen, now))
        if now - self._decided >= MOVE_S:
            self._decided = now
            self._move = sharing.hands_over(self._slot, seen, now)
        if self._move is not None:
            self._hand_over(self._move)
        if now - self._shared >= SHARE_S:
            self._shared = now
            self._share(now)

    def _measure(self) -> float:
        (at, spent), now, used = self._looked, time.monotonic(), time.thread_time()
        self._looked = now, used
        took = max(now - at, 1e-3)
        new = 1 - math.exp(-took / MOVE_S)
        me = self._me
        self._me = replace(
            me,
            beat=now,
            busy=me.busy + new * ((used - spent) / took - me.busy),
            demand=me.demand + new * (self._limits.asked() / took - me.demand),
            connections=len(self._listener.connections),
        )
        self._board.write(self._me)
        return now

    async def _accept(self, wanted: bool) -> None:
        if wanted and self._server is None:
            mine = self._listening.dup()  # a server closes the one it has
            self._server = await self._loop.create_server(lambda: Connection(self._listener), sock=mine)
        elif not wanted and self._server is not None:
            server, self._server = self._server, None
            server.close()

    def _hand_over(self, move: Move) -> None:
        """Those that are idle at this moment; the others another time."""
        left = move.connections
        for connection in list(self._listener.connections):
            if not left:
                break
            left -= connection.release(lambda descriptor: self._board.send(move.to, descriptor))
        self._move = Move(move.to, left) if left else None

    def _take_over(self) -> None:
        inbox = self._board.inboxes[self._slot]
        for _ in range(_AT_ONCE):
            try:
                _, descriptors, _, _ = socket.recv_fds(inbox, 1, 1)
            except BlockingIOError:
                return
            for descriptor in descriptors:
                task = self._loop.create_task(self._open(socket.socket(fileno=descriptor)))
                self._opening.add(task)
                task.add_done_callback(self._opening.discard)

    async def _open(self, taken: socket.socket) -> None:
        taken.setblocking(False)
        try:
            await self._loop.connect_accepted_socket(lambda: Connection(self._listener), taken)
        except OSError:  # gone before we came to it
            taken.close()

    def _share(self, now: float) -> None:
        """One worker at a time, so that together they never take more than there is."""
        if self._lock is None:
            return
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return  # another one is at it: the next time
        try:
            share = sharing.fair_share(self._slot, self._board.read(), now)
            self._me = replace(self._me, share=share)
            self._board.write(self._me)
        finally:
            fcntl.flock(self._lock, fcntl.LOCK_UN)
        self._limits.take_part(share)
