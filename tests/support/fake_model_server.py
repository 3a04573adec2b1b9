"""A model server as small as a test needs: the data-plane protocol on a unix socket, behaviour set from outside.

It answers `{"output": {"probability": ...}}` with the version it was given. `mode` is what a test switches:
ok | refuse (422) | fail (500) | hang | garbage | close.
"""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, nullcontext
from pathlib import Path
from typing import Any

MODES = ("ok", "refuse", "fail", "hang", "garbage", "close")


class FakeModelServer:
    def __init__(self, path: Path, version: str = "1") -> None:
        self.path, self.version = path, version
        self.mode = "ok"
        self.delay_s = 0.0
        self.capacity: asyncio.Semaphore | None = None  # how many requests it works on at once
        self.requests: list[dict[str, Any]] = []  # every body asked to predict
        self.heads: list[dict[str, str]] = []
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()

    @property
    def address(self) -> str:
        return f"unix:{self.path}"

    async def start(self) -> None:
        self.path.unlink(missing_ok=True)
        self._server = await asyncio.start_unix_server(self._serve, self.path, backlog=4096)

    async def die(self) -> None:
        """As by kill -9: nobody listens, every connection is lost."""
        if self._server is not None:
            self._server.close()
        for writer in list(self._writers):
            writer.transport.abort()
        self.path.unlink(missing_ok=True)
        await asyncio.sleep(0)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Requests of one connection are worked on together and answered in order, as a model server does it."""
        self._writers.add(writer)
        answers: asyncio.Queue[asyncio.Task[bytes]] = asyncio.Queue()
        answering = asyncio.create_task(self._write(answers, writer))
        try:
            while True:
                path, head, body = await self._read(reader)
                answers.put_nowait(asyncio.create_task(self._answer(path, head, body)))
        except (asyncio.IncompleteReadError, asyncio.CancelledError, ConnectionError):
            pass  # hung up, or the test is over
        finally:
            self._writers.discard(writer)
            answering.cancel()
            while not answers.empty():
                answers.get_nowait().cancel()
            writer.close()

    async def _write(self, answers: asyncio.Queue[asyncio.Task[bytes]], writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                writer.write(await (await answers.get()))
        except ConnectionError:
            writer.transport.abort()

    async def _read(self, reader: asyncio.StreamReader) -> tuple[str, dict[str, str], bytes]:
        lines = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        path = lines[0].split()[1]
        head = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:] if line)}
        if head.get("transfer-encoding") == "chunked":
            body = b""
            while size := int(await reader.readline(), 16):
                body += await reader.readexactly(size)
                await reader.readexactly(2)
            await reader.readexactly(2)
        else:
            body = await reader.readexactly(int(head.get("content-length", 0)))
        return path, head, body

    async def _answer(self, path: str, head: dict[str, str], body: bytes) -> bytes:
        if path != "/predict":
            return _response(200, json.dumps({"path": path, "version": self.version, "bytes": len(body)}).encode())
        self.heads.append(head)
        self.requests.append(json.loads(body))
        mode = self.mode
        if self.delay_s:
            async with self.capacity or nullcontext():
                await asyncio.sleep(self.delay_s)
        if mode == "hang":
            await asyncio.Event().wait()
        if mode == "close":
            raise ConnectionResetError
        status, answer = 200, b'{"output":{"probability":0.25},"decision":"keep","threshold":0.5,"reasons":["age"]}'
        if mode == "refuse":
            problem = {
                "type": "x/invalid-input",
                "title": "t",
                "status": 422,
                "detail": "d",
                "reasons": ["features.a: missing"],
            }
            status, answer = 422, json.dumps(problem).encode()
        elif mode == "fail":
            status, answer = 500, b"{}"
        elif mode == "garbage":
            answer = b'{"output": NaN}'
        return _response(status, answer)


def _response(status: int, body: bytes) -> bytes:
    return b"HTTP/1.1 %d X\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b" % (
        status,
        len(body),
        body,
    )


@asynccontextmanager
async def serving(*servers: FakeModelServer) -> AsyncIterator[None]:
    for server in servers:
        await server.start()
    try:
        yield
    finally:
        for server in servers:
            await server.die()
