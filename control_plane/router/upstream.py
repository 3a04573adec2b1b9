"""Calls to model servers: a minimal HTTP/1.1 client on kept-alive connections, pipelined where the server is ours.

A general client costs more than the model's own answer; this one writes a prepared head and lets httptools' parser find
the end of the answer, then calls back. The only things it does beyond that are the ones a data plane cannot be without:
a deadline for everything together, patience with a server that is just starting, one retry when a connection breaks.
"""

import asyncio
from collections import deque
from collections.abc import Coroutine, Iterable
from contextlib import suppress
from typing import Any, Literal, Protocol, cast
from urllib.parse import urlsplit

import httptools

from control_plane.router.rest import Rest

MAX_ANSWER = 16 * 2**20  # bytes; a longer answer counts as broken
LINES = 4  # most connections to a Unix socket
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.002, 0.05  # between tries to connect
_DIAL_S = 1.0
_LOOK_S = 0.005  # between two looks at deadlines

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
    """Connections to one address, `unix:/path` or `http(s)://host:port`.

    Behind a Unix socket is a server of ours, which answers the requests of one connection together and in order. There
    a connection is a line that carries one batch at a time: what is asked while it waits for answers goes out with the
    last of them, in one write, is read in one read and scored in one call of the model. So batches grow with the load
    by themselves, and who comes alone waits for nobody. A line that keeps others waiting for two looks at deadlines is
    passed by on another one, which leads to another worker of the server. Elsewhere a connection carries one request
    at a time, and the last used is used first.
    """

    def __init__(self, address: str, *, lines: int = LINES, rest: Rest | None = None) -> None:
        """`lines`: most connections to a Unix socket. `rest`: of the worker, between two batches."""
        self.address = address
        self._lines = lines if address.startswith("unix:") else 0
        self._rest = rest
        self._usable: list[_Connection] = []  # the lines, that in use first; or the connections without a request
        self._open: set[_Connection] = set()
        self._line: _Connection | None = None  # takes what is asked in this tick
        self._held: deque[Call] = deque()  # for the next batch
        self._stuck = False  # some were held at the last look at deadlines, and no line has come back since
        self._tasks: set[asyncio.Task[None]] = set()
        self._dialling = 0
        self._watching = False
        self._loop = asyncio.get_running_loop()
        self._closed = False

    def submit(self, call: Call) -> None:
        """Carry the call out. Requests sent here are harmless when sent twice, so a lost connection is tried again."""
        connection = self._line or self._free()
        if connection is not None:
            self._send(connection, call)
        elif self._lines and self._usable:
            self._hold(call)
        else:
            self._spawn(self._wait(call))

    def go_on(self) -> None:
        """Rests are over: what is held leaves, unless its line waits for answers."""
        if self._held and self._usable and not self._usable[0].calls:
            self._send_held(self._usable[0])

    def close(self) -> None:
        """Close idle connections now and busy ones when they are done; what is held goes out first."""
        self._closed = True
        if self._held and self._usable:
            self._send_held(self._usable[0])
        self._usable.clear()
        self._line = None
        self._close_idle()

    async def end(self) -> None:
        """Close all connections now, whatever they do, and wait until they are gone."""
        self._closed = True
        for task in list(self._tasks):
            task.cancel()
        for connection in list(self._open):
            connection.transport.abort()
        while self._open or self._tasks:
            await asyncio.sleep(0)
            await asyncio.sleep(0)

    def opened(self, connection: "_Connection") -> None:
        """The connection is made."""
        if self._rest is not None:
            self._rest.watch(connection.transport.get_extra_info("socket").fileno())
        self._open.add(connection)
        self._usable.insert(0, connection)

    def done(self, connection: "_Connection") -> None:
        """The connection has answered all it was asked."""
        self._nothing_under_way(connection)
        if not self._closed and not self._lines:
            self._usable.append(connection)
        elif connection not in self._usable:
            connection.transport.close()
        elif connection is self._usable[0]:
            self._stuck = False
            if self._held and not self._resting():
                self._send_held(connection)

    def unusable(self, connection: "_Connection") -> None:
        """Nothing more may be asked over the connection."""
        if connection in self._usable:
            self._usable.remove(connection)
        if self._line is connection:
            self._line = None
        self._nothing_under_way(connection)
        self._release()

    def lost(self, connection: "_Connection", calls: Iterable[Call]) -> None:
        """The connection is gone, and with it the answers of `calls`."""
        self._open.discard(connection)
        self.unusable(connection)
        for call in calls:
            if self._closed or isinstance(call, _Again):
                call.failed("dead")
            else:  # the server closed it while we wrote, or one worker of it died: another one may live
                self._spawn(self._wait(_Again(call)))

    def _free(self) -> "_Connection | None":
        """A connection that waits for no answer, if there is one."""
        if not self._lines:
            while self._usable:
                if not (connection := self._usable.pop()).transport.is_closing():
                    return connection
            return None
        if not self._usable or (line := self._usable[0]).calls or self._resting():
            return None
        self._line = line
        self._loop.call_soon(self._next_tick, line)
        return line

    def _resting(self) -> bool:
        """The next batch waits for the end of a rest."""
        return self._rest is not None and self._rest.holds(self)

    def _nothing_under_way(self, connection: "_Connection") -> None:
        if self._rest is not None:
            self._rest.answered(connection)

    def _hold(self, call: Call) -> None:
        self._held.append(call)
        self._watch()

    def _send_held(self, connection: "_Connection") -> None:
        held, self._held = self._held, deque()
        for call in held:
            connection.send(call)
        self._flush(connection)

    def _flush(self, line: "_Connection") -> None:
        line.flush()
        if self._rest is not None:
            self._rest.begin(line)

    def _close_idle(self) -> None:
        for connection in [each for each in self._open if not each.calls]:
            connection.transport.close()

    def _release(self) -> None:
        """What is held for lines that are gone looks for others."""
        if not self._usable:
            held, self._held = self._held, deque()
            for call in held:
                self._spawn(self._wait(call))

    def _next_tick(self, line: "_Connection") -> None:
        if self._line is line:
            self._line = None
        self._flush(line)

    def _send(self, connection: "_Connection", call: Call) -> None:
        connection.send(call)
        if not self._lines:
            connection.flush()
        self._watch()

    def _watch(self) -> None:
        if not self._watching:
            self._watching = True
            self._loop.call_later(_LOOK_S, self._look)

    def _look(self) -> None:
        """Deadlines: one timer for all calls, for a timer each would cost more than all else about a call."""
        now = self._loop.time()
        busy = [connection for connection in self._open if connection.calls]
        self._watching = bool(busy or self._held)
        if self._watching:
            self._loop.call_later(_LOOK_S, self._look)
        if self._held and self._stuck and self._usable:
            self._pass_by()
        self._stuck = bool(self._held)
        for connection in busy:
            connection.give_up_late(now)

    def _pass_by(self) -> None:
        """The line in use is slow, or its worker hangs: take another one."""
        line = min(self._usable, key=_load)
        if line.calls and len(self._usable) + self._dialling < self._lines:
            self._spawn(self._one_more())
            return
        self._usable.remove(line)
        self._usable.insert(0, line)
        self._send_held(line)

    async def _one_more(self) -> None:
        with suppress(OSError):  # then those there are have to do
            await self._dial(self._loop.time() + _DIAL_S)
        if self._closed:
            self._close_idle()
        elif self._held and self._usable:
            self._send_held(self._usable[0])

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _wait(self, call: Call) -> None:
        """Carry the call out over the next connection there is, its own or another's."""
        pause = _FIRST_PAUSE_S
        while (connection := self._line or self._free()) is None:
            refused = False
            if not self._lines or not (self._usable or self._dialling):
                try:
                    await self._dial(call.deadline)
                    continue
                except OSError:  # refused, no such socket yet, EAGAIN: its backlog is full, or too late
                    refused = True
            if self._lines and self._usable:
                self._hold(call)
                return
            now = self._loop.time()
            if now + pause >= (min(call.deadline, call.patience) if refused else call.deadline):
                call.failed("deadline" if now >= call.deadline else "dead")
                return
            await asyncio.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE_S)
        self._send(connection, call)

    async def _dial(self, deadline: float) -> None:
        """Make a connection. OSError when that is not possible, or not in time."""
        self._dialling += 1
        made = _Connection(self)
        try:
            async with asyncio.timeout_at(deadline):
                if self.address.startswith("unix:"):
                    await self._loop.create_unix_connection(lambda: made, self.address[5:])
                    return
                url = urlsplit(self.address)
                tls = True if url.scheme == "https" else None
                port = url.port or (443 if tls else 80)
                await self._loop.create_connection(lambda: made, url.hostname or "", port, ssl=tls)
        except BaseException:
            made.abandoned()
            raise
        finally:
            self._dialling -= 1


class _Connection(asyncio.Protocol):
    __slots__ = ("_chunks", "_out", "_parser", "_pool", "_size", "calls", "transport")

    transport: asyncio.Transport

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self.calls: deque[Call | None] = deque()  # sent and not answered, in order; None: given up
        self._out: list[bytes] = []
        self._chunks: list[bytes] = []
        self._size = 0
        self._parser: _Parser = httptools.HttpResponseParser(self)

    def send(self, call: Call) -> None:
        """With the next `flush`."""
        self.calls.append(call)
        self._out.append(call.request)

    def flush(self) -> None:
        out, self._out = self._out, []
        if out and not self.transport.is_closing():
            self.transport.write(out[0] if len(out) == 1 else b"".join(out))

    def abandoned(self) -> None:
        """Who made it has been stopped, maybe after it was made: then uvloop closes it without `connection_lost`."""
        self._out.clear()
        self.connection_lost(None)

    def give_up_late(self, now: float) -> None:
        """Fail calls whose deadline has passed. Who lets one wait so long is asked nothing more."""
        late: list[Call] = []
        for index, call in enumerate(self.calls):
            if call is not None and call.deadline <= now:
                late.append(call)
                self.calls[index] = None
        if late:
            self._pool.unusable(self)
            self._end_if_given_up()
        for call in late:
            call.failed("deadline")

    def _end_if_given_up(self) -> None:
        if not any(self.calls):
            self.transport.abort()  # a late answer must not be taken for another one

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's is none by inheritance
        self._pool.opened(self)

    def data_received(self, data: bytes) -> None:
        if not self.calls:  # an answer nobody asked for
            self._pool.unusable(self)
            self.transport.close()
            return
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self._pool.unusable(self)
            self.transport.abort()

    def eof_received(self) -> None:
        self._pool.unusable(self)

    def connection_lost(self, exc: Exception | None) -> None:
        calls = [call for call in self.calls if call is not None]
        self.calls.clear()
        self._pool.lost(self, calls)

    # httptools

    def on_body(self, chunk: bytes) -> None:
        self._chunks.append(chunk)
        self._size += len(chunk)
        if self._size > MAX_ANSWER:
            self._pool.unusable(self)
            self.transport.abort()

    def on_message_complete(self) -> None:
        chunks = self._chunks
        self._chunks, self._size = [], 0
        if not self.calls:
            return  # given up within this very read, or more answers than questions
        call = self.calls.popleft()
        status = self._parser.get_status_code()
        if not self._parser.should_keep_alive():
            self._pool.unusable(self)
            self.transport.close()
        elif not self.calls:
            self._pool.done(self)
        if call is not None:
            call.answered(status, chunks[0] if len(chunks) == 1 else b"".join(chunks))
        elif self.calls:
            self._end_if_given_up()


class _Again:
    """A call whose connection was lost: its second loss is final."""

    def __init__(self, call: Call) -> None:
        self._call = call
        self.request, self.deadline, self.patience = call.request, call.deadline, call.patience
        self.answered, self.failed = call.answered, call.failed


def _load(connection: _Connection) -> int:
    return len(connection.calls)
