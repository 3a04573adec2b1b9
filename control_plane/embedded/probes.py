"""Does it answer? Small questions over sockets, without a client library. An error or a late answer is a no."""

import asyncio
import contextlib
import struct
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

_PATIENCE_S = 2.0
_POSTGRES_PROTOCOL = 3 << 16
_POSTGRES_TERMINATE = b"X\0\0\0\4"


async def http_ok(port: int, path: str) -> bool:
    """True if GET `path` on loopback answers 200."""
    request = f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\n\r\n"
    answer = await _ask(asyncio.open_connection("127.0.0.1", port), request.encode(), 12)
    return answer == b"HTTP/1.1 200"


async def redis_answers(socket: Path) -> bool:
    """True if the server on this unix socket answers PING, so has loaded its data."""
    return await _ask(asyncio.open_unix_connection(str(socket)), b"PING\r\n", 5) == b"+PONG"


async def postgres_accepts(folder: Path) -> bool:
    """True if the server whose socket is in `folder` lets the role postgres in."""
    body = struct.pack("!i", _POSTGRES_PROTOCOL) + b"user\0postgres\0database\0postgres\0\0"
    request = struct.pack("!i", len(body) + 4) + body
    socket = str(folder / ".s.PGSQL.5432")
    return await _ask(asyncio.open_unix_connection(socket), request, 1, _POSTGRES_TERMINATE) == b"R"


async def _ask(
    connecting: Coroutine[Any, Any, tuple[asyncio.StreamReader, asyncio.StreamWriter]],
    request: bytes,
    size: int,
    farewell: bytes = b"",
) -> bytes:
    """The first `size` bytes of the answer; empty when there is none in time."""
    try:
        async with asyncio.timeout(_PATIENCE_S):
            reader, writer = await connecting
            try:
                writer.write(request)
                answer = await reader.readexactly(size)
                writer.write(farewell)
                return answer
            finally:
                writer.close()
                with contextlib.suppress(OSError):
                    await writer.wait_closed()
    except (OSError, TimeoutError, asyncio.IncompleteReadError):
        return b""
