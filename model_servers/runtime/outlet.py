"""A streamed answer to a client that may not read yet: what it does not take is kept on disk, not in memory.

Many HTTP clients send a whole body before they read a byte of the answer. Held back, they would never come to read it.
"""

import asyncio
import tempfile
from typing import IO, Final

from model_servers.runtime.request import Outgoing

_PIECE: Final = 262_144
_MOST_KEPT: Final = 8 * 2**30  # bytes on disk; beyond that the sender is held back after all


class Outlet:
    """Pieces go out in order. `close` it, whatever happened."""

    def __init__(self, out: Outgoing) -> None:
        self._out = out
        self._file: IO[bytes] | None = None
        self._sent = self._kept = 0  # positions in the file
        self._flushing: asyncio.Task[None] | None = None

    async def put(self, piece: bytes) -> None:
        """Raises ConnectionError once the client has hung up."""
        if self._flushing is not None and (self._flushing.done() or self._kept - self._sent > _MOST_KEPT):
            await self._caught_up()
        if self._flushing is None and not self._out.blocked:
            self._out.send(piece)  # the piece that fills its buffer must not wait for it either
            return
        if self._file is None:
            self._file = tempfile.TemporaryFile(prefix="mlcp-answers-")  # noqa: SIM115  (closed in `close`)
        self._file.seek(self._kept)
        self._kept += self._file.write(piece)
        if self._flushing is None:
            self._flushing = asyncio.get_running_loop().create_task(self._flush(self._file))

    async def end(self) -> None:
        """Everything has been sent."""
        await self._caught_up()
        self._out.end()

    def close(self) -> None:
        if self._flushing is not None:
            self._flushing.cancel()
        if self._file is not None:
            self._file.close()

    async def _caught_up(self) -> None:
        if self._flushing is not None:
            await self._flushing
            self._flushing = None

    async def _flush(self, file: IO[bytes]) -> None:
        await self._out.ready()
        while self._sent < self._kept:
            file.seek(self._sent)
            piece = file.read(min(_PIECE, self._kept - self._sent))
            self._sent += len(piece)
            await self._out.write(piece)
        file.seek(0)
        file.truncate()
        self._sent = self._kept = 0
