"""A receiver of webhooks on loopback: answers as it is told, dies and comes back on the same port."""

import asyncio
import json
from dataclasses import dataclass, field
from typing import Any


@dataclass
class WebReceiver:
    """`answers`: statuses to come, then 200. `delay_s`: before each answer."""

    delay_s: float = 0.0
    answers: list[int] = field(default_factory=list)
    port: int = 0
    seen: list[tuple[dict[str, str], bytes]] = field(default_factory=list)
    _server: asyncio.Server | None = None

    @property
    def bodies(self) -> list[dict[str, Any]]:
        return [json.loads(body) for _, body in self.seen]

    async def start(self) -> "WebReceiver":
        self._server = await asyncio.start_server(self._answer, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def stop(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        lines = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")[1:-2]
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
        body = await reader.readexactly(int(headers["content-length"]))
        await asyncio.sleep(self.delay_s)
        status = self.answers.pop(0) if self.answers else 200
        if status == 200:
            self.seen.append((headers, body))
        writer.write(b"HTTP/1.1 %d x\r\ncontent-length: 0\r\nconnection: close\r\n\r\n" % status)
        await writer.drain()
        writer.close()
