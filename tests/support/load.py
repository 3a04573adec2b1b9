"""An open-loop generator of predictions: a fixed rate, whatever the answers do, cheap enough to share the machine."""

import asyncio
import json
import re
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self, cast
from urllib.parse import urlsplit

import uvloop

_HEAD_END = b"\r\n\r\n"
_LENGTH = re.compile(rb"content-length: (\d+)", re.IGNORECASE)
_ID = re.compile(rb'"prediction_id":"([0-9a-f-]{36})"')
_UNLOGGED = b'"logged":false'


@dataclass
class Load:
    """`rate` requests a second from a thread of its own, over `connections`, units 0..units-1 in turn.

    What nobody was free to send, or a busy machine came too late for, is counted in `missed` and not made up.
    """

    url: str
    key: str
    model: str
    body: dict[str, Any]
    rate: float
    connections: int = 32
    units: int = 500
    keep_ids: bool = True
    statuses: Counter[int] = field(default_factory=Counter)  # 0: the connection was lost before its answer
    acknowledged: list[str] = field(default_factory=list)  # ids of the predictions answered as logged
    unlogged: list[str] = field(default_factory=list)
    missed: int = 0

    def __enter__(self) -> Self:
        self._stopping = False
        self._free: list[_Customer] = []
        self._alive = 0
        self._thread = threading.Thread(target=lambda: uvloop.run(self._drive()), daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stopping = True
        self._thread.join(timeout=240)
        assert not self._thread.is_alive()

    @property
    def answered(self) -> int:
        return sum(self.statuses.values())

    def took(self, status: int, body: bytes) -> None:
        self.statuses[status] += 1
        if status == 200 and self.keep_ids and (found := _ID.search(body)):
            (self.unlogged if _UNLOGGED in body else self.acknowledged).append(found[1].decode())

    def free(self, customer: "_Customer") -> None:
        self._free.append(customer)

    def lost(self, customer: "_Customer") -> None:
        self._alive -= 1
        if customer in self._free:
            self._free.remove(customer)

    async def _drive(self) -> None:
        requests = [self._request(number) for number in range(self.units)]
        sent, began = 0, time.monotonic()
        while not self._stopping:
            await self._connect()
            due = int((time.monotonic() - began) * self.rate)
            for number in range(sent, due):
                if not self._free or due - number > self.rate / 5:
                    self.missed += 1
                    continue
                self._free.pop().send(requests[number % self.units])
            sent = due
            await asyncio.sleep(0.002)
        for _ in range(1_500):  # fifteen seconds for the answers under way
            if self._alive == len(self._free):
                break
            await asyncio.sleep(0.01)
        for customer in list(self._free):
            customer.transport.close()
        await asyncio.sleep(0.05)

    async def _connect(self) -> None:
        split, loop = urlsplit(self.url), asyncio.get_running_loop()
        while self._alive < self.connections:
            try:
                await loop.create_connection(lambda: _Customer(self), split.hostname, split.port)
            except OSError:
                return
            self._alive += 1

    def _request(self, number: int) -> bytes:
        body = json.dumps(self.body | {"unit_id": f"unit-{number}"}).encode()
        head = f"POST /ml/{self.model}/predict HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {self.key}\r\n"
        return f"{head}content-length: {len(body)}\r\n\r\n".encode() + body


class _Customer(asyncio.Protocol):
    """One connection, one request at a time."""

    transport: asyncio.Transport

    def __init__(self, load: Load) -> None:
        self._load, self._data, self._asked = load, b"", False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self._load.free(self)

    def send(self, request: bytes) -> None:
        self._asked = True
        self.transport.write(request)

    def data_received(self, data: bytes) -> None:
        self._data += data
        head, end, body = self._data.partition(_HEAD_END)
        if not end or (found := _LENGTH.search(head)) is None or len(body) < int(found[1]):
            return
        self._data, self._asked = b"", False
        self._load.took(int(head[9:12]), body)
        self._load.free(self)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._asked:
            self._load.took(0, b"")
        self._load.lost(self)
