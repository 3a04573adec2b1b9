"""Heads of requests to model servers and the API, and calls that somebody awaits: what is not on the hot path."""

import asyncio
from collections.abc import Mapping

from control_plane.router.upstream import Failure, Pool


def request_head(method: str, path: str, *, host: str = "model", headers: Mapping[str, str] | None = None) -> bytes:
    """Everything of a request's head up to the value of content-length. ValueError for a header that is not ASCII."""
    lines = [f"{method} {path} HTTP/1.1", f"host: {host}", "content-type: application/json"]
    lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
    text = "\r\n".join(lines)
    if not text.isascii() or text.count("\n") != len(lines) - 1:
        raise ValueError("a header must be one line of ASCII")
    return f"{text}\r\ncontent-length: ".encode()


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
    """Status and body of one request. Raises ConnectionError."""
    call = _Awaited(b"%b%d\r\n\r\n%b" % (head, len(body), body), asyncio.get_running_loop().time() + seconds)
    pool.submit(call)
    return await call.answer
