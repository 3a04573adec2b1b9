"""POST /ml/{model}/batch_predict and /ml/{model}/explain: passed to the version's second process, in bounded memory.

They never count in an A/B test and leave no prediction record: an explanation explains, a batch belongs to the version
that answers customers without a unit.
"""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Final
from urllib.parse import parse_qs, urlsplit

import httptools

from control_plane.errors import NotFound, TargetUnavailable
from control_plane.router import body as bodies
from control_plane.router.auth import Keys
from control_plane.router.forward import choose, unit_bytes
from control_plane.router.problems import Refused
from control_plane.router.request import Outgoing, Request
from control_plane.router.routes import Arm, Route

Spawn = Callable[[Request, Coroutine[Any, Any, None]], None]
_PIECE: Final = 65_536
_SILENCE_S: Final = 120.0  # without a byte from the model server


class Explain:
    """Explains the answer the same body would get. The body is read whole: it says which version that is."""

    streams = False

    def __init__(self, route: Route, keys: Keys, spawn: Spawn) -> None:
        self.max_body = route.source.max_body_bytes
        self._route, self._keys, self._spawn = route, keys, spawn

    def handle(self, request: Request) -> None:
        grant = self._keys.grant(request.headers.get(b"authorization"), self._route.name)
        body = bodies.parse(request.body)
        unit = unit_bytes(self._route, request, body)
        arm, _ = choose(self._route, grant, body.model_version, unit)
        if arm.target.protocol == "oip":
            detail = f"Version {arm.target.version} is served elsewhere, over a protocol that has no explanations."
            raise Refused(
                422, "not-explainable", "This model cannot be explained", detail, reasons=[f"model: {detail}"]
            )
        self._spawn(request, _pass(request, arm, "/explain"))


class Batch:
    """Rows in, rows out, streamed both ways. `?model_version=` pins a version, with the scope for it."""

    max_body = 0  # streamed: there is no limit
    streams = True

    def __init__(self, route: Route, keys: Keys, spawn: Spawn) -> None:
        self._route, self._keys, self._spawn = route, keys, spawn

    def handle(self, request: Request) -> None:
        grant = self._keys.grant(request.headers.get(b"authorization"), self._route.name)
        wanted = parse_qs(request.query.decode("ascii", "replace")).get("model_version", [None])[0]
        arm, _ = choose(self._route, grant, wanted, None)
        if arm.target.protocol == "oip":
            detail = f"Version {arm.target.version} is served elsewhere, over a protocol that has no batches."
            raise Refused.of(NotFound, detail)
        self._spawn(request, _pass(request, arm, "/batch_predict"))


class _Answer:
    """Collects what httptools finds in a model server's answer."""

    def __init__(self) -> None:
        self.content_type = b"application/json"
        self.pieces: list[bytes] = []
        self.begun = self.ended = False

    def on_header(self, name: bytes, value: bytes) -> None:
        if name.lower() == b"content-type":
            self.content_type = value

    def on_headers_complete(self) -> None:
        self.begun = True

    def on_body(self, piece: bytes) -> None:
        self.pieces.append(piece)

    def on_message_complete(self) -> None:
        self.ended = True


async def _pass(request: Request, arm: Arm, path: str) -> None:
    """Send the request on and its answer back. Refused when no answer begins; a broken answer is cut."""
    reader, writer = await _open(arm.target.aux_address or arm.target.address, arm)
    answer: Outgoing | None = None
    try:
        sending = asyncio.get_running_loop().create_task(_send(request, arm, path, writer))
        try:
            found = _Answer()
            parser = httptools.HttpResponseParser(found)
            while not found.ended:
                async with asyncio.timeout(_SILENCE_S):
                    data = await reader.read(_PIECE)
                if not data:
                    raise ConnectionResetError
                parser.feed_data(data)
                if found.begun and answer is None:
                    answer = request.start(int(parser.get_status_code()), found.content_type)
                for piece in found.pieces if answer is not None else ():
                    await answer.write(piece)  # type: ignore[union-attr]
                found.pieces.clear()
        finally:
            sending.cancel()
        if answer is not None:
            answer.end()
    except (OSError, TimeoutError, httptools.HttpParserError):
        if answer is not None:
            answer.abort()
        elif not request.gone:
            raise _dead(arm) from None
    finally:
        writer.close()


async def _open(address: str, arm: Arm) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    try:
        async with asyncio.timeout(5):
            if address.startswith("unix:"):
                return await asyncio.open_unix_connection(address[5:])
            url = urlsplit(address)
            return await asyncio.open_connection(url.hostname, url.port or 80)
    except (OSError, TimeoutError) as exc:
        raise _dead(arm) from exc


async def _send(request: Request, arm: Arm, path: str, writer: asyncio.StreamWriter) -> None:
    # The same head as a prediction's, with another path and the caller's own types.
    lines = arm.head.removesuffix(b"content-length: ").split(b"\r\n")
    lines[0] = b"POST %b HTTP/1.1" % path.encode()
    lines = [line for line in lines if line and not line.startswith(b"content-type:")]
    for name in (b"content-type", b"accept"):
        if name in request.headers:
            lines.append(b"%b: %b" % (name, request.headers[name]))
    head = b"\r\n".join(lines)
    if request.stream is None:
        writer.write(b"%b\r\ncontent-length: %d\r\n\r\n%b" % (head, len(request.body), request.body))
        await writer.drain()
        return
    writer.write(b"%b\r\ntransfer-encoding: chunked\r\n\r\n" % head)
    try:
        while piece := await request.stream.read():
            writer.write(b"%x\r\n%b\r\n" % (len(piece), piece))
            await writer.drain()
        writer.write(b"0\r\n\r\n")
        await writer.drain()
    except ConnectionError:  # the client left, or the server has answered without reading on
        if request.gone:
            writer.close()


def _dead(arm: Arm) -> Refused:
    return Refused.of(TargetUnavailable, f"The model server of version {arm.target.version} does not answer.")
