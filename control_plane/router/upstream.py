"""Calls to model servers: a minimal HTTP/1.1 client on kept-alive connections, one request at a time on each.

A general client costs more than the model's own answer; this one writes a prepared head and lets httptools' parser find
the end of the answer. The only things it does beyond that are the ones a data plane cannot be without: a deadline
for everything together, patience with a server that is just starting, and one retry when a connection breaks.
"""

import asyncio
from collections import deque
from typing import Literal, Protocol
from urllib.parse import urlsplit

import httptools

MAX_ANSWER = 16 * 2**20  # bytes; a longer answer counts as broken
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.002, 0.05  # between tries to connect

Failure = Literal["dead", "deadline"]


class CallFailed(Exception):
    """No answer. `reason`: the target is dead (refused or lost, twice) or the deadline has passed."""

    def __init__(self, reason: Failure) -> None:
        super().__init__(reason)
        self.reason: Failure = reason


class _Lost(Exception):
    """The connection ended before the answer did."""


class _Parser(Protocol):
    def feed_data(self, data: bytes) -> None: ...
    def get_status_code(self) -> int: ...
    def should_keep_alive(self) -> bool: ...


class Pool:
    """Connections to one address, `unix:/path` or `http(s)://host:port`. The busiest are used first."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.idle: deque[_Connection] = deque()
        self._open: set[_Connection] = set()
        self._loop = asyncio.get_running_loop()
        self._closed = False

    async def call(self, head: bytes, body: bytes, *, deadline: float, patience: float) -> tuple[int, bytes]:
        """Send a request and return status and body of the answer.

        `head` ends where the value of content-length begins. Both times are on the loop's clock: `deadline` for
        everything, `patience` for retrying a refused connection.

        Raises:
            CallFailed: no answer in time. Sending twice is harmless for what this client is used for.
        """
        request = b"%b%d\r\n\r\n%b" % (head, len(body), body)
        if self.idle:
            try:
                return await self.idle.pop().exchange(request, deadline)
            except _Lost:  # the server closed it while we wrote, or a worker of it died
                pass
        else:
            connection = await self._connect(deadline, patience)
            try:
                return await connection.exchange(request, deadline)
            except _Lost:
                pass
        connection = await self._connect(deadline, patience)
        try:
            return await connection.exchange(request, deadline)
        except _Lost as exc:
            raise CallFailed("dead") from exc

    def close(self) -> None:
        """Close idle connections now and busy ones when they are done."""
        self._closed = True
        for connection in list(self.idle):
            connection.transport.close()
        self.idle.clear()

    def done(self, connection: "_Connection") -> None:
        """The connection's answer is complete."""
        if self._closed:
            connection.transport.close()
        else:
            self.idle.append(connection)

    def lost(self, connection: "_Connection") -> None:
        """The connection is gone."""
        if connection in self.idle:
            self.idle.remove(connection)

    async def _connect(self, deadline: float, patience: float) -> "_Connection":
        pause = _FIRST_PAUSE_S
        while True:
            try:
                async with asyncio.timeout_at(deadline):
                    return await self._connect_once()
            except TimeoutError as exc:
                raise CallFailed("deadline") from exc
            except OSError as exc:  # refused, no such socket yet, or EAGAIN: its backlog is full
                if self._loop.time() + pause >= min(deadline, patience):
                    raise CallFailed("dead") from exc
            await asyncio.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE_S)

    async def _connect_once(self) -> "_Connection":
        if self.address.startswith("unix:"):
            made = await self._loop.create_unix_connection(lambda: _Connection(self), self.address[5:])
            return made[1]
        url = urlsplit(self.address)
        tls = True if url.scheme == "https" else None
        port = url.port or (443 if tls else 80)
        host = url.hostname or ""
        return (await self._loop.create_connection(lambda: _Connection(self), host, port, ssl=tls))[1]


class _Connection(asyncio.Protocol):
    __slots__ = ("_answer", "_chunks", "_loop", "_parser", "_pool", "_size", "_timer", "transport")

    transport: asyncio.Transport

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._loop = asyncio.get_running_loop()
        self._answer: asyncio.Future[tuple[int, bytes]] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._chunks: list[bytes] = []
        self._size = 0
        self._parser: _Parser = httptools.HttpResponseParser(self)

    async def exchange(self, request: bytes, deadline: float) -> tuple[int, bytes]:
        if self.transport.is_closing():
            raise _Lost
        answer: asyncio.Future[tuple[int, bytes]] = self._loop.create_future()
        self._answer = answer
        self._timer = self._loop.call_at(deadline, self._late)
        self.transport.write(request)
        return await answer

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        if self._answer is None:  # an answer nobody asked for
            self.transport.close()
            return
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self.transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self._pool.lost(self)
        self._fail(_Lost())

    # httptools callbacks

    def on_body(self, chunk: bytes) -> None:
        self._chunks.append(chunk)
        self._size += len(chunk)
        if self._size > MAX_ANSWER:
            self.transport.close()

    def on_message_complete(self) -> None:
        answer, timer = self._answer, self._timer
        assert answer is not None
        assert timer is not None
        timer.cancel()
        chunks = self._chunks
        body = chunks[0] if len(chunks) == 1 else b"".join(chunks)
        self._answer, self._chunks, self._size = None, [], 0
        if self._parser.should_keep_alive():
            self._pool.done(self)
        else:
            self.transport.close()
        if not answer.done():
            answer.set_result((self._parser.get_status_code(), body))

    def _late(self) -> None:
        self._fail(CallFailed("deadline"))
        self.transport.close()  # the late answer must not be taken for the next one

    def _fail(self, error: Exception) -> None:
        answer, self._answer = self._answer, None
        if self._timer is not None:
            self._timer.cancel()
        if answer is not None and not answer.done():
            answer.set_exception(error)


def request_head(method: str, path: str, *, host: str = "model", headers: dict[str, str] | None = None) -> bytes:
    """Everything of a request's head up to the value of content-length. ValueError for a header that is not ASCII."""
    lines = [f"{method} {path} HTTP/1.1", f"host: {host}", "content-type: application/json"]
    lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
    text = "\r\n".join(lines)
    if not text.isascii() or text.count("\n") != len(lines) - 1:
        raise ValueError("a header must be one line of ASCII")
    return f"{text}\r\ncontent-length: ".encode()
