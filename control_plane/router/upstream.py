"""Calls to model servers: a minimal HTTP/1.1 client on kept-alive connections, one request at a time on each.

A general client costs more than the model's own answer; this one writes a prepared head and lets httptools' parser find
the end of the answer, then calls back. The only things it does beyond that are the ones a data plane cannot be without:
a deadline for everything together, patience with a server that is just starting, one retry when a connection breaks.
"""

import asyncio
from collections import deque
from collections.abc import Mapping
from typing import Literal, Protocol, cast
from urllib.parse import urlsplit

import httptools

MAX_ANSWER = 16 * 2**20  # bytes; a longer answer counts as broken
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.002, 0.05  # between tries to connect

Failure = Literal["dead", "deadline"]


class Call(Protocol):
    """One request under way. Exactly one of the two methods is called, once."""

    request: bytes  # head and body
    deadline: float  # loop time by which it is answered or has failed
    patience: float  # loop time until which a refused connection is tried again

    def answered(self, status: int, body: bytes) -> None: ...

    def failed(self, reason: Failure) -> None:
        """The target is dead (refused, or lost twice), or the deadline has passed."""
        ...


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
        self._connecting: set[asyncio.Task[None]] = set()
        self._loop = asyncio.get_running_loop()
        self._closed = False

    def submit(self, call: Call) -> None:
        """Carry the call out. Requests sent here are harmless when sent twice, so a lost connection is tried again."""
        while self.idle:
            if self.idle.pop().start(call, last=False):
                return
        self._spawn(call, last=False)

    def close(self) -> None:
        """Close idle connections now and busy ones when they are done."""
        self._closed = True
        for connection in list(self.idle):
            connection.transport.close()
        self.idle.clear()

    async def end(self) -> None:
        """Close all connections now, whatever they do, and wait until they are gone."""
        self._closed = True
        for task in list(self._connecting):
            task.cancel()
        for connection in list(self._open):
            connection.transport.abort()
        while self._open or self._connecting:
            await asyncio.sleep(0)
            await asyncio.sleep(0)

    def opened(self, connection: "_Connection") -> None:
        """The connection is made."""
        self._open.add(connection)

    def done(self, connection: "_Connection") -> None:
        """The connection's answer is complete."""
        if self._closed:
            connection.transport.close()
        else:
            self.idle.append(connection)

    def lost(self, connection: "_Connection", call: Call | None, *, last: bool) -> None:
        """The connection is gone, and with it the answer of `call`."""
        self._open.discard(connection)
        if connection in self.idle:
            self.idle.remove(connection)
        if call is None:
            return
        if last or self._closed:
            call.failed("dead")
        else:  # the server closed it while we wrote, or one worker of it died: another one may live
            self._spawn(call, last=True)

    def _spawn(self, call: Call, *, last: bool) -> None:
        task = self._loop.create_task(self._connect(call, last=last))
        self._connecting.add(task)
        task.add_done_callback(self._connecting.discard)

    async def _connect(self, call: Call, *, last: bool) -> None:
        pause = _FIRST_PAUSE_S
        failure: Failure = "dead"
        while True:
            try:
                async with asyncio.timeout_at(call.deadline):
                    connection = await self._connect_once()
            except TimeoutError:
                failure = "deadline"
                break
            except OSError:  # refused, no such socket yet, or EAGAIN: its backlog is full
                if self._loop.time() + pause >= min(call.deadline, call.patience):
                    break
                await asyncio.sleep(pause)
                pause = min(2 * pause, _LONGEST_PAUSE_S)
                continue
            if connection.start(call, last=last):
                return
        call.failed(failure)

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
    __slots__ = ("_call", "_chunks", "_last", "_loop", "_parser", "_pool", "_size", "_timer", "transport")

    transport: asyncio.Transport

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._loop = asyncio.get_running_loop()
        self._call: Call | None = None
        self._last = False
        self._timer: asyncio.TimerHandle | None = None
        self._chunks: list[bytes] = []
        self._size = 0
        self._parser: _Parser = httptools.HttpResponseParser(self)

    def start(self, call: Call, *, last: bool) -> bool:
        """Send the request; False if the connection is closing. `last`: a loss of it is final."""
        if self.transport.is_closing():
            return False
        self._call, self._last = call, last
        self._timer = self._loop.call_at(call.deadline, self._late)
        self.transport.write(call.request)
        return True

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's is none by inheritance
        self._pool.opened(self)

    def data_received(self, data: bytes) -> None:
        if self._call is None:  # an answer nobody asked for
            self.transport.close()
            return
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self.transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        call, self._call = self._call, None
        if self._timer is not None:
            self._timer.cancel()
        self._pool.lost(self, call, last=self._last)

    # httptools

    def on_body(self, chunk: bytes) -> None:
        self._chunks.append(chunk)
        self._size += len(chunk)
        if self._size > MAX_ANSWER:
            self.transport.abort()

    def on_message_complete(self) -> None:
        call, timer, chunks = self._call, self._timer, self._chunks
        if call is None or timer is None:
            return  # its deadline passed within this very read
        timer.cancel()
        self._call, self._chunks, self._size = None, [], 0
        status = self._parser.get_status_code()
        if self._parser.should_keep_alive():
            self._pool.done(self)
        else:
            self.transport.close()
        call.answered(status, chunks[0] if len(chunks) == 1 else b"".join(chunks))

    def _late(self) -> None:
        call, self._call = self._call, None
        self.transport.abort()  # the late answer must not be taken for the next one
        if call is not None:
            call.failed("deadline")


class _Awaited:
    """A call somebody awaits."""

    def __init__(self, request: bytes, deadline: float) -> None:
        self.request, self.deadline, self.patience = request, deadline, 0.0
        self.answer: asyncio.Future[tuple[int, bytes]] = asyncio.get_running_loop().create_future()

    def answered(self, status: int, body: bytes) -> None:
        if not self.answer.done():
            self.answer.set_result((status, body))

    def failed(self, reason: Failure) -> None:
        if not self.answer.done():
            self.answer.set_exception(ConnectionError(reason))


async def fetch(pool: Pool, head: bytes, body: bytes = b"", *, seconds: float) -> tuple[int, bytes]:
    """Status and body of one request, for what is not on the hot path. Raises ConnectionError."""
    call = _Awaited(b"%b%d\r\n\r\n%b" % (head, len(body), body), asyncio.get_running_loop().time() + seconds)
    pool.submit(call)
    return await call.answer


def request_head(method: str, path: str, *, host: str = "model", headers: Mapping[str, str] | None = None) -> bytes:
    """Everything of a request's head up to the value of content-length. ValueError for a header that is not ASCII."""
    lines = [f"{method} {path} HTTP/1.1", f"host: {host}", "content-type: application/json"]
    lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
    text = "\r\n".join(lines)
    if not text.isascii() or text.count("\n") != len(lines) - 1:
        raise ValueError("a header must be one line of ASCII")
    return f"{text}\r\ncontent-length: ".encode()
