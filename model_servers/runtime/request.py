"""One HTTP request and the ways to answer it: whole, streamed, or as a problem document."""

import asyncio
from collections import deque
from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import TYPE_CHECKING, Final

from model_servers.runtime import problems
from model_servers.runtime.problems import Refused

if TYPE_CHECKING:
    from model_servers.runtime.http import Connection

JSON: Final = b"application/json"
_HIGH_WATER: Final = 262_144  # bytes of a streamed body held before the sender is made to wait


class Request:
    """One request, and the way to answer it: `respond` exactly once, now or later."""

    __slots__ = (
        "_keep_alive",
        "accept",
        "answered",
        "body",
        "connection",
        "content_type",
        "expects_continue",
        "finished",
        "header_length",
        "length",
        "method",
        "path",
        "route",
        "siblings",
        "stream",
        "traceparent",
    )

    def __init__(self, connection: "Connection") -> None:
        self.connection = connection
        self._keep_alive = True
        self.answered: bytes | None = None  # the answer, while requests before this one have none
        self.method = b""
        self.path = b""
        self.body = b""
        self.length = 0  # declared, 0 when chunked
        self.siblings = b""
        self.traceparent = b""
        self.header_length: bytes | None = None  # of a body that has more than JSON: how much of it is JSON
        self.content_type = b""
        self.accept = b""
        self.expects_continue = False
        self.finished = False  # the body is here
        self.route: Route | None = None
        self.stream: Incoming | None = None

    def respond(self, status: int, body: bytes, content_type: bytes = JSON, extra: bytes = b"") -> None:
        """`extra`: further header lines, each ended by CRLF."""
        self._close_if_leaving()
        self.connection.answer(self, head(status, len(body), content_type, self._keep_alive, extra) + body)

    def refuse(self, refused: Refused) -> None:
        """A problem document, or an error object to who speaks the Open Inference Protocol. Where the body has not been
        read, the connection ends after it."""
        if not self.finished:
            self._keep_alive = False
        if self.path.startswith(b"/v2"):
            self.respond(refused.status, refused.oip_body())
        else:
            self.respond(refused.status, refused.body(), problems.CONTENT_TYPE)

    def _close_if_leaving(self) -> None:
        if self.connection.is_last(self):
            self._keep_alive = False

    def close_after(self) -> None:
        """This answer is the connection's last."""
        self._keep_alive = False

    @property
    def keep_alive(self) -> bool:
        return self._keep_alive

    @property
    def gone(self) -> bool:
        """The client has hung up."""
        return self.connection.closed

    def start(self, status: int, content_type: bytes) -> "Outgoing":
        """Begin a streamed answer."""
        self._close_if_leaving()
        return Outgoing(self, self.connection, status, content_type)


class Route:
    """`handle` is called when the body is complete; with `streams`, as soon as the head is; with `together`, while
    earlier requests of the connection to routes of this kind are not answered yet: it answers in one piece."""

    __slots__ = ("handle", "max_body", "streams", "together")

    def __init__(
        self,
        handle: Callable[[Request], None],
        max_body: int = 65_536,
        *,
        streams: bool = False,
        together: bool = False,
    ) -> None:
        self.handle = handle
        self.max_body = max_body
        self.streams = streams
        self.together = together


Routes = Mapping[bytes, Mapping[bytes, Route]]  # path, method


class Incoming:
    """A body that is read piece by piece; the sender is held back while nobody reads."""

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._pieces: deque[bytes] = deque()
        self._held = 0
        self._arrived = asyncio.Event()
        self._ended = False
        self._broken = False

    def feed(self, piece: bytes) -> None:
        self._pieces.append(piece)
        self._held += len(piece)
        if self._held > _HIGH_WATER:
            self._transport.pause_reading()
        self._arrived.set()

    def end(self, *, broken: bool = False) -> None:
        self._ended, self._broken = True, broken
        self._arrived.set()

    async def read(self) -> bytes:
        """The next piece; b"" at the end. Raises ConnectionError when the sender left before it."""
        while not self._pieces:
            if self._broken:
                raise ConnectionError("the sender left in the middle of its body")
            if self._ended:
                return b""
            self._arrived.clear()
            await self._arrived.wait()
        piece = self._pieces.popleft()
        self._held -= len(piece)
        if self._held <= _HIGH_WATER // 2 and not self._transport.is_closing():
            self._transport.resume_reading()
        return piece


class Outgoing:
    """An answer written piece by piece in chunked encoding; `write` waits while the client does not read."""

    def __init__(self, request: Request, connection: "Connection", status: int, content_type: bytes) -> None:
        self._request, self._connection = request, connection
        connection.write(
            b"HTTP/1.1 %d %b\r\ncontent-type: %b\r\ntransfer-encoding: chunked\r\n%b\r\n"
            % (status, HTTPStatus(status).phrase.encode(), content_type, _connection(request.keep_alive))
        )

    async def write(self, piece: bytes) -> None:
        """Raises ConnectionError once the client has hung up."""
        self.send(piece)
        await self._connection.drained()

    def send(self, piece: bytes) -> None:
        """Without waiting for a client that reads slowly: see `blocked`. Raises ConnectionError once it has hung up."""
        if self._connection.closed:
            raise ConnectionError("the client has hung up")
        if piece:
            self._connection.write(b"%x\r\n%b\r\n" % (len(piece), piece))

    @property
    def blocked(self) -> bool:
        """The client does not read as fast as we write."""
        return self._connection.blocked

    async def ready(self) -> None:
        """Wait until it has read enough. Raises ConnectionError once it has hung up."""
        await self._connection.drained()

    def end(self) -> None:
        self._connection.answer(self._request, b"0\r\n\r\n")

    def abort(self) -> None:
        """Cut the connection: an answer that cannot be finished must not look finished."""
        self._connection.abort(self._request)


def _connection(keep_alive: bool) -> bytes:
    return b"" if keep_alive else b"connection: close\r\n"


def head(status: int, length: int, content_type: bytes, keep_alive: bool, extra: bytes = b"") -> bytes:
    if status == 200 and keep_alive and content_type is JSON and not extra:
        return b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % length
    retry = b"retry-after: 1\r\n" if status == 503 else b""
    return b"HTTP/1.1 %d %b\r\ncontent-type: %b\r\ncontent-length: %d\r\n%b%b%b\r\n" % (
        status,
        HTTPStatus(status).phrase.encode(),
        content_type,
        length,
        extra,
        retry,
        _connection(keep_alive),
    )
