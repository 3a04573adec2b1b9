"""HTTP/1.1 over an accepted socket: as much of it as routers, probes and curl need, and no more.

httptools parses; a complete request is handed to its route in the same event-loop callback, and `Request.respond`
writes head and body in one call. No task, no future and no queue stands between a request and its row: that is worth
several times the throughput of an ASGI server here (docs/adr/0012-model-servers-speak-http-themselves.md). Chunked
bodies, pipelining, `Expect: 100-continue` and HTTP/1.0 work; upgrades and trailers are ignored.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from http import HTTPStatus
from typing import Final, cast

import httptools

from model_servers import oip
from model_servers.runtime import problems
from model_servers.runtime.problems import Refused
from model_servers.runtime.request import Incoming, Request, Route, Routes

_MAX_HEAD: Final = 65_536  # bytes of request line and headers
_MOST_PENDING: Final = 512  # requests of one connection without an answer; it is read on when there are fewer
_LINGER_S: Final = 5.0  # after a refusal the rest of the body is read and dropped this long, so that the answer arrives


class Listener:
    """What all connections of one listening socket share."""

    def __init__(self, routes: Routes, *, crashed: Callable[[Request, Exception], Refused]) -> None:
        """`crashed` logs an exception a route let through and says what to answer."""
        self.routes = routes
        self.crashed = crashed
        self.connections: set[Connection] = set()
        self.draining = False
        self.served = 0  # requests dispatched so far
        self.on_change: Callable[[int], None] | None = None

    def opened(self, connection: "Connection") -> None:
        self.connections.add(connection)
        if self.on_change:
            self.on_change(len(self.connections))

    def lost(self, connection: "Connection") -> None:
        self.connections.discard(connection)
        if self.on_change:
            self.on_change(len(self.connections))

    @property
    def busy(self) -> bool:
        """A request is being read or answered."""
        return any(connection.busy for connection in self.connections)


class Connection(asyncio.Protocol):
    __slots__ = (
        "_blocked",
        "_discarding",
        "_dispatched",
        "_ended",
        "_head_bytes",
        "_listener",
        "_loop",
        "_out",
        "_parser",
        "_paused",
        "_pending",
        "_pieces",
        "_reading",
        "_size",
        "_starting",
        "_transport",
        "_url",
        "closed",
    )

    def __init__(self, listener: Listener) -> None:
        self._listener = listener
        self._loop = asyncio.get_running_loop()
        self._out: list[bytes] = []
        self._parser = httptools.HttpRequestParser(self)
        self._reading: Request | None = None
        self._pending: deque[Request] = deque()  # complete, not answered, in the order they came
        self._dispatched = 0  # how many of them, from the first on, their routes have been given
        self._head_bytes = 0
        self._pieces: list[bytes] = []
        self._size = 0
        self._discarding = False
        self._ended = self._paused = self._starting = False
        self._blocked: asyncio.Future[None] | None = None
        self.closed = False

    @property
    def busy(self) -> bool:
        return self._reading is not None or bool(self._pending) or bool(self._out)

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._listener.opened(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed = True
        self._listener.lost(self)
        if self._reading and self._reading.stream:
            self._reading.stream.end(broken=True)
        self._reading = None
        self._pending.clear()
        self.resume_writing()

    def data_received(self, data: bytes) -> None:
        if self._discarding:
            return
        if self._reading is None or not self._reading.path:
            self._head_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self._discarding = True  # the request itself was read and is answered; what follows is another protocol
        except httptools.HttpParserError:
            self._unparsable(400, "The request is not HTTP/1.1.")
        else:
            if self._reading is not None and not self._reading.path and self._head_bytes > _MAX_HEAD:
                self._unparsable(431, f"At most {_MAX_HEAD} bytes of headers are read.")

    def pause_writing(self) -> None:
        if self._blocked is None:
            self._blocked = asyncio.get_running_loop().create_future()

    def resume_writing(self) -> None:
        if self._blocked and not self._blocked.done():
            self._blocked.set_result(None)
        self._blocked = None

    # httptools

    def on_message_begin(self) -> None:
        self._reading = Request(self)
        self._url = b""
        self._pieces = []
        self._size = 0

    def on_url(self, url: bytes) -> None:
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        request = self._reading
        if request is None:
            return
        match name.lower():
            case b"content-length":
                request.length = int(value)
            case b"x-mlcp-siblings":
                request.siblings = value
            case b"content-type":
                request.content_type = value.partition(b";")[0].strip().lower()
            case b"accept":
                request.accept = value.lower()
            case b"traceparent":
                request.traceparent = value
            case b"expect":
                request.expects_continue = value.lower() == b"100-continue"
            case oip.HEADER_LENGTH:
                request.header_length = value
            case _:
                pass

    def on_headers_complete(self) -> None:
        request = self._reading
        if request is None:
            return
        self._head_bytes = 0
        request.method = self._parser.get_method()
        request.path = self._url.partition(b"?")[0] or b"/"
        if not self._parser.should_keep_alive() or self._parser.should_upgrade():
            request.close_after()
        methods = self._listener.routes.get(request.path)
        route = methods.get(request.method) if methods else None
        if methods is None or route is None:
            return  # refused when its turn comes, after the body
        request.route = route
        if request.length > route.max_body and not route.streams:
            self._too_large(request, route.max_body)
            return
        if request.expects_continue:
            self.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        if route.streams:
            request.stream = Incoming(self._transport)
            self._complete(request)

    def on_body(self, body: bytes) -> None:
        request = self._reading
        if request is None:
            return
        if request.stream:
            request.stream.feed(body)
            return
        limit = request.route.max_body if request.route else _MAX_HEAD
        self._size += len(body)
        if self._size > limit:
            self._too_large(request, limit)
        else:
            self._pieces.append(body)

    def on_message_complete(self) -> None:
        request, self._reading = self._reading, None
        if request is None:
            return
        request.finished = True
        if request.stream:
            request.stream.end()
        else:
            pieces = self._pieces
            request.body = pieces[0] if len(pieces) == 1 else b"".join(pieces)
            self._complete(request)

    # requests: answers leave in the order the requests came

    def _complete(self, request: Request) -> None:
        if self._ended:
            return  # read ahead of an answer that was the last
        pending = self._pending
        pending.append(request)
        if self._dispatched == len(pending) - 1 and self._may_start(request):
            self._dispatch(request)
        if len(pending) >= _MOST_PENDING:
            self._paused = True
            self._transport.pause_reading()

    def _may_start(self, request: Request) -> bool:
        """Nothing is being answered, or only what is answered together with it."""
        if not self._dispatched:
            return True
        route, last = request.route, self._pending[self._dispatched - 1].route
        return route is not None and route.together and last is not None and last.together

    def _dispatch(self, request: Request) -> None:
        listener = self._listener
        listener.served += 1
        self._dispatched += 1
        route = request.route
        if route is None:
            request.refuse(self._no_route(request))
            return
        try:
            route.handle(request)
        except Refused as refused:
            request.refuse(refused)
        except Exception as exc:  # noqa: BLE001  (one request may fail; the worker may not)
            request.refuse(listener.crashed(request, exc))

    def _no_route(self, request: Request) -> Refused:
        methods = self._listener.routes.get(request.path)
        if methods is None:
            return problems.not_found(request.path.decode("ascii", "replace"))
        return problems.wrong_method(request.method.decode("ascii"), [name.decode() for name in methods])

    def answer(self, request: Request, data: bytes) -> None:
        """Write the (rest of the) answer to `request` once all before it are answered, and turn to what may start."""
        if request.answered is not None or self._ended or self.closed:
            return  # once is enough; or nobody listens any more
        request.answered = data
        pending = self._pending
        while pending and (answer := pending[0].answered) is not None:
            first = pending.popleft()
            self._dispatched -= 1
            self._write_soon(answer)
            if not (first.keep_alive and first.finished):
                self._close(unread=not first.finished)
                return
        if self._paused and len(pending) < _MOST_PENDING // 2:
            self._paused = False
            self._transport.resume_reading()
        if not self._starting and self._dispatched < len(pending):
            self._start_waiting()

    def _start_waiting(self) -> None:
        self._starting = True  # what is answered at once does not come back here: that would be deep for a long queue
        pending = self._pending
        while self._dispatched < len(pending) and self._may_start(request := pending[self._dispatched]):
            self._dispatch(request)
        self._starting = False

    def is_last(self, request: Request) -> bool:
        """The answer to `request` ends the connection, for the worker is about to leave and nothing else is pending."""
        return self._listener.draining and bool(self._pending) and self._pending[-1] is request

    def _write_soon(self, data: bytes) -> None:
        """The answers of one tick leave together: a write for each costs more than a row's share of the model."""
        if not self._out:
            self._loop.call_soon(self._flush)
        self._out.append(data)

    def _flush(self) -> None:
        out, self._out = self._out, []
        if out and not self.closed:
            self._transport.write(out[0] if len(out) == 1 else b"".join(out))

    def write(self, data: bytes) -> None:
        if not self.closed:
            self._flush()
            self._transport.write(data)

    @property
    def blocked(self) -> bool:
        """What was written waits for the client to read."""
        return self._blocked is not None

    async def drained(self) -> None:
        """Raises ConnectionError when the client is gone."""
        if self._blocked:
            await self._blocked
        if self.closed:
            raise ConnectionError("the client has hung up")

    def abort(self, request: Request) -> None:
        if self._pending and self._pending[0] is request and not self.closed:
            self._transport.abort()

    def close_if_idle(self) -> None:
        if not self.busy and not self.closed:
            self._transport.close()

    # refusals that end the connection

    def _too_large(self, request: Request, limit: int) -> None:
        self._reading = None
        self._discarding = True
        request.route = Route(lambda refused: refused.refuse(problems.too_large(limit)))
        self._complete(request)

    def _unparsable(self, status: int, detail: str) -> None:
        self._reading = None
        self._discarding = True
        slug = "malformed-request" if status == 400 else "headers-too-large"
        refused = Refused(status, slug, HTTPStatus(status).phrase, detail)
        request = Request(self)
        request.route = Route(lambda broken: broken.refuse(refused))
        self._complete(request)

    def _close(self, *, unread: bool) -> None:
        """With bytes of the client still unread, closing at once would reset the connection under our answer."""
        self._flush()
        self._discarding = self._ended = True
        self._pending.clear()
        self._dispatched = 0
        if not unread:
            self._transport.close()
            return
        if self._transport.can_write_eof():
            self._transport.write_eof()
        asyncio.get_running_loop().call_later(_LINGER_S, self._transport.close)
