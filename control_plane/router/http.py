"""HTTP/1.1 over accepted sockets: what product services, scrapers and browsers need of it, and no more.

httptools parses. A complete request is handed to its route in the same event-loop callback, and `Request.respond`
writes head and body at once: no task and no future stands between a request and its answer, which is worth more than
everything else done for throughput here (figures: docs/explanation/data-plane.md). Chunked bodies, pipelining,
`Expect: 100-continue` and HTTP/1.0 work; upgrades and trailers are ignored.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any, Final, Protocol, cast

import httptools

from control_plane.router.problems import Refused
from control_plane.router.request import Incoming, Request, Route
from control_plane.router.rest import Traffic

_HEAD_LIMIT: Final = 32_768  # bytes of request line and headers
_HEAD_TIMEOUT_S: Final = 10.0  # for a request that has begun to arrive completely; a streamed body may take longer
_IDLE_S: Final = 120.0  # a kept-alive connection without a request
_LINGER_S: Final = 5.0  # after a refusal unread bytes are dropped this long, so that the answer is not reset away
_AHEAD: Final = 64  # pipelined requests read ahead on one connection


class App(Protocol):
    """What a listener asks: the route of a request line."""

    def route(self, method: bytes, path: bytes) -> Route:
        """Raises Refused, rendered once the body has been read or refused."""
        ...


class Listener:
    """What the connections of one worker share."""

    def __init__(self, app: App) -> None:
        self.app = app
        self.connections: set[Connection] = set()
        self.traffic = Traffic()
        self.draining = False
        self._tasks: set[asyncio.Task[None]] = set()

    def spawn(self, request: Request, work: Coroutine[Any, Any, None]) -> None:
        """Answer `request` by a coroutine; what it raises becomes the answer."""

        async def guarded() -> None:
            try:
                await work
            except Refused as refused:
                request.refuse(refused)
            except ConnectionError:
                pass  # the client left; nobody is there to be told
            except Exception as exc:  # noqa: BLE001  (one request may fail, the worker may not)
                request.refuse(Refused.crashed(request.path, exc, request.headers.get(b"x-request-id")))

        task = asyncio.get_running_loop().create_task(guarded())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def expire(self, now: float) -> None:
        """Close connections that have been idle, or sending one head, for too long. Called about once a second."""
        for connection in list(self.connections):
            connection.expire(now)

    async def drain(self, patience_s: float) -> None:
        """Close idle connections now, busy ones after their answer, every one after `patience_s`."""
        self.draining = True
        end = asyncio.get_running_loop().time() + patience_s
        while self.connections and asyncio.get_running_loop().time() < end:
            for connection in list(self.connections):
                connection.close_if_idle()
            await asyncio.sleep(0.01)
        for connection in list(self.connections):
            connection.abort()


class Connection(asyncio.Protocol):
    __slots__ = (
        "_answering",
        "_blocked",
        "_chunks",
        "_dropping",
        "_listener",
        "_parser",
        "_queue",
        "_reading",
        "_since",
        "_size",
        "_transport",
        "_url",
        "_window",
        "closed",
    )

    _transport: asyncio.Transport

    def __init__(self, listener: Listener) -> None:
        self._listener = listener
        self._parser = httptools.HttpRequestParser(self)
        self._reading: Request | None = None
        self._answering: Request | None = None
        self._queue: deque[Request] = deque()
        self._blocked: asyncio.Future[None] | None = None
        self._chunks: list[bytes] = []
        self._size = 0  # bytes of head or body read so far
        self._url = b""
        self._since = 0.0  # when the present wait began: for a request, or for its end
        self._dropping = False
        self._window = -1  # of the traffic, in which this connection asked last
        self.closed = False

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is none by inheritance
        self._since = asyncio.get_running_loop().time()
        self._listener.connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed = True
        self._listener.connections.discard(self)
        for request in (self._reading, self._answering):
            if request is not None and request.stream is not None:
                request.stream.end(broken=not request.finished)
        if self._answering is not None:
            self._listener.traffic.under_way -= 1
        self._reading = self._answering = None
        self._queue.clear()
        self.resume_writing()

    def data_received(self, data: bytes) -> None:
        if self._dropping:
            return
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self._dropping = True  # the request itself is answered; what follows is another protocol
        except httptools.HttpParserError:
            self._broken(Refused(400, "malformed-request", "Bad request", "The request is not HTTP/1.1."))
            return
        if (reading := self._reading) is not None and reading.route is None:
            self._size += len(data)
            if self._size > _HEAD_LIMIT:
                detail = f"At most {_HEAD_LIMIT} bytes of headers are read."
                self._broken(Refused(431, "headers-too-large", "Request header fields too large", detail))

    def pause_writing(self) -> None:
        if self._blocked is None:
            self._blocked = asyncio.get_running_loop().create_future()

    def resume_writing(self) -> None:
        if self._blocked is not None and not self._blocked.done():
            self._blocked.set_result(None)
        self._blocked = None

    # httptools

    def on_message_begin(self) -> None:
        self._reading = Request(self)
        self._url = b""
        self._size = 0
        self._since = asyncio.get_running_loop().time()

    def on_url(self, url: bytes) -> None:
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._reading is not None:
            self._reading.headers[name.lower()] = value

    def on_headers_complete(self) -> None:
        request = self._reading
        if request is None:
            return
        self._size = 0
        request.method = self._parser.get_method()
        request.path, _, request.query = self._url.partition(b"?")
        if not self._parser.should_keep_alive() or self._parser.should_upgrade() or self._listener.draining:
            request.keep_alive = False
        try:
            request.route = route = self._listener.app.route(request.method, request.path)
        except Refused as refused:
            request.route = refused
            return
        if route.streams:
            request.stream = Incoming(self._transport)
        elif (length := request.headers.get(b"content-length")) is not None and int(length) > route.max_body:
            self._broken(Refused.too_large(route.max_body))
            return
        if request.headers.get(b"expect", b"").lower() == b"100-continue":
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        if request.stream is not None:
            self._complete(request)

    def on_body(self, body: bytes) -> None:
        request = self._reading
        if request is None:
            return
        if request.stream is not None:
            request.stream.feed(body)
            return
        self._size += len(body)
        route = request.route
        limit = _HEAD_LIMIT if route is None or isinstance(route, Refused) else route.max_body
        if self._size > limit:
            self._broken(route if isinstance(route, Refused) else Refused.too_large(limit))
        else:
            self._chunks.append(body)

    def on_message_complete(self) -> None:
        request, self._reading = self._reading, None
        if request is None:
            return
        request.finished = True
        chunks = self._chunks
        if request.stream is not None:
            request.stream.end()
            return
        if chunks:
            request.body = chunks[0] if len(chunks) == 1 else b"".join(chunks)
            self._chunks = []
        self._complete(request)

    # requests, one after the other

    def _complete(self, request: Request) -> None:
        if self._answering is None:
            self._dispatch(request)
            return
        self._queue.append(request)
        if len(self._queue) >= _AHEAD:
            self._transport.pause_reading()

    def _dispatch(self, request: Request) -> None:
        self._answering = request
        self._begin()
        route = request.route
        try:
            if isinstance(route, Refused):
                raise route
            assert route is not None
            route.handle(request)
        except Refused as refused:
            request.refuse(refused)
        except Exception as exc:  # noqa: BLE001  (one request may fail, the worker may not)
            request.refuse(Refused.crashed(request.path, exc, request.headers.get(b"x-request-id")))

    def _begin(self) -> None:
        traffic = self._listener.traffic
        traffic.asked += 1
        traffic.under_way += 1
        traffic.peak = max(traffic.peak, traffic.under_way)
        if self._window != traffic.window:
            self._window = traffic.window
            traffic.connections += 1

    def answer(self, request: Request, data: bytes) -> None:
        """Write the (rest of the) answer to `request` and turn to the next one."""
        if self._answering is not request:
            return  # the client has left
        self._transport.write(data)
        self._answering = None
        self._listener.traffic.under_way -= 1
        if not (request.keep_alive and request.finished):
            self._end(unread=not request.finished)
        elif self._queue:
            self._transport.resume_reading()
            self._dispatch(self._queue.popleft())
        elif self._listener.draining:
            self._transport.close()

    def write(self, data: bytes) -> None:
        if not self.closed:
            self._transport.write(data)

    async def drained(self) -> None:
        """Wait until the client has read enough. Raises ConnectionError when it is gone."""
        if self._blocked is not None:
            await self._blocked
        if self.closed:
            raise ConnectionError("the client has hung up")

    # the connection's end

    def abort(self) -> None:
        if not self.closed:
            self._transport.abort()

    def close_if_idle(self) -> None:
        if self._idle:
            self._transport.close()

    def release(self, take: Callable[[int], bool]) -> bool:
        """Give the socket to another process by `take(descriptor)`, and forget it. False: not now, or not taken.

        Only where nothing is under way: no byte of a request read, none of an answer left to write.
        """
        if not self._idle or self._dropping or self._transport.get_write_buffer_size():
            return False
        if not take(self._transport.get_extra_info("socket").fileno()):
            return False
        self._transport.abort()  # closes our descriptor; the connection lives on with the other one
        return True

    @property
    def _idle(self) -> bool:
        return self._answering is None and self._reading is None and not self._queue and not self.closed

    def expire(self, now: float) -> None:
        if self._answering is not None or self._queue:
            return
        if now - self._since > (_IDLE_S if self._reading is None else _HEAD_TIMEOUT_S):
            self._transport.close()

    def _broken(self, refused: Refused) -> None:
        """Refuse what is being read, as the last answer on this connection."""
        request = self._reading or Request(self)
        self._reading = None
        self._dropping = True
        self._chunks = []
        request.route = refused
        self._complete(request)

    def _end(self, *, unread: bool) -> None:
        self._dropping = True
        self._queue.clear()
        if not unread:
            self._transport.close()
            return
        if self._transport.can_write_eof():
            self._transport.write_eof()
        asyncio.get_running_loop().call_later(_LINGER_S, self._transport.close)
