"""One request of the data plane, its body and the ways to answer it."""

import asyncio
from collections import deque
from http import HTTPStatus
from typing import Final, Protocol

from control_plane.router.problems import Refused, speaks_oip

JSON: Final = b"application/json"
_HIGH_WATER: Final = 262_144  # bytes of a streamed body held before the sender has to wait
_OK: Final = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b"


class Route(Protocol):
    """Where a request goes. `handle` is called once the body is there, or with `streams` once the head is."""

    max_body: int
    streams: bool

    def handle(self, request: "Request") -> None: ...


class Channel(Protocol):
    """The connection a request came on."""

    closed: bool

    def answer(self, request: "Request", data: bytes) -> None:
        """Write the (rest of the) answer to `request`; nothing of it may follow."""
        ...

    def write(self, data: bytes) -> None: ...
    async def drained(self) -> None: ...
    def abort(self) -> None: ...


class Request:
    """One request and the way to answer it: `respond`, `refuse` or `start`, exactly once."""

    __slots__ = (
        "_connection",
        "body",
        "finished",
        "headers",
        "keep_alive",
        "method",
        "path",
        "query",
        "route",
        "stream",
    )

    def __init__(self, connection: Channel) -> None:
        self._connection = connection
        self.method = b""
        self.path = b""
        self.query = b""
        self.headers: dict[bytes, bytes] = {}  # names in lower case; of a repeated one the last
        self.body = b""
        self.keep_alive = True
        self.finished = False  # the whole body has arrived
        self.route: Route | Refused | None = None
        self.stream: Incoming | None = None

    def respond(self, status: int, body: bytes, content_type: bytes = JSON, extra: bytes = b"") -> None:
        """`extra`: further header lines, each ended by CRLF."""
        echo = self.headers.get(b"x-request-id")
        if status == 200 and echo is None and self.keep_alive and content_type is JSON and not extra:
            self._connection.answer(self, _OK % (len(body), body))
            return
        if echo is not None:
            extra += b"x-request-id: %b\r\n" % echo
        shown = b"" if self.method == b"HEAD" else body
        self._connection.answer(
            self, self._head(status, content_type, b"content-length: %d\r\n" % len(body) + extra) + shown
        )

    def refuse(self, refused: Refused) -> None:
        """A problem document, or an error object to who speaks the Open Inference Protocol. Where the body was not read
        to its end, the connection ends after it."""
        if not self.finished:
            self.keep_alive = False
        retry = b"retry-after: %d\r\n" % refused.retry_after_s if refused.retry_after_s else b""
        if speaks_oip(self.path):
            status, error = refused.oip()
            self.respond(status, error, extra=retry + refused.headers)
            return
        path = self.path.decode("ascii", "replace")
        self.respond(refused.status, refused.body(path), b"application/problem+json", retry + refused.headers)

    def start(self, status: int, content_type: bytes) -> "Outgoing":
        """Begin an answer in pieces."""
        self._connection.write(self._head(status, content_type, b"transfer-encoding: chunked\r\n"))
        return Outgoing(self, self._connection)

    @property
    def gone(self) -> bool:
        """The client has hung up."""
        return self._connection.closed

    def _head(self, status: int, content_type: bytes, more: bytes) -> bytes:
        close = b"" if self.keep_alive else b"connection: close\r\n"
        phrase = HTTPStatus(status).phrase.encode()
        return b"HTTP/1.1 %d %b\r\ncontent-type: %b\r\n%b%b\r\n" % (status, phrase, content_type, more, close)


class Incoming:
    """A body read piece by piece; its sender is held back while nobody reads."""

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._pieces: deque[bytes] = deque()
        self._held = 0
        self._arrived = asyncio.Event()
        self._ended = self._broken = False

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
        """The next piece, b"" at the end. Raises ConnectionError when the sender left before it."""
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
    """An answer written piece by piece; `write` waits while the client does not read."""

    def __init__(self, request: Request, connection: Channel) -> None:
        self._request, self._connection = request, connection

    async def write(self, piece: bytes) -> None:
        """Raises ConnectionError once the client has hung up."""
        if piece:
            self._connection.write(b"%x\r\n%b\r\n" % (len(piece), piece))
            await self._connection.drained()

    def end(self) -> None:
        self._connection.answer(self._request, b"0\r\n\r\n")

    def abort(self) -> None:
        """Cut the connection: an answer that broke off must not look complete."""
        self._connection.abort()
