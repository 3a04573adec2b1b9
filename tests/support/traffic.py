"""Steady traffic on the data plane in a background thread, every answer kept."""

import asyncio
import json
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

import httpx


@dataclass(frozen=True, slots=True)
class Answer:
    sent: float  # monotonic seconds
    got: float
    status: int  # 0: no HTTP answer
    version: str | None
    prediction_id: str | None
    detail: str = ""
    unit: int = 0


@dataclass
class Traffic:
    """`rate` requests a second to one model, units 0..units-1 in turn, until the block ends; at most `limit`.

    `bodies`: what each unit asks, else all of them `body`. Units are stepped through in sevens.
    """

    url: str
    key: str
    model: str
    body: dict[str, Any]
    rate: float
    units: int = 500
    limit: int = 200_000
    answers: list[Answer] = field(default_factory=list)
    connections: int = 16
    bodies: Callable[[int], dict[str, Any]] | None = None

    def __enter__(self) -> Self:
        self._stop = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._drive()), daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join(timeout=240)
        assert not self._thread.is_alive()

    @property
    def failed(self) -> list[Answer]:
        return [answer for answer in self.answers if answer.status != 200]

    @property
    def statuses(self) -> Counter[int]:
        return Counter(answer.status for answer in self.answers)

    def versions(self, *, sent_from: float = 0.0, sent_to: float = float("inf")) -> set[str | None]:
        return {a.version for a in self.answers if a.status == 200 and sent_from <= a.sent < sent_to}

    async def _drive(self) -> None:
        """A few connections take turns at the next slot; slots that a busy machine missed are left out, not made up."""
        self._next = time.monotonic()
        await asyncio.gather(*(self._connection(number) for number in range(self.connections)))

    async def _connection(self, number: int) -> None:
        stream: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        while not self._stop.is_set() and len(self.answers) < self.limit:
            now = time.monotonic()
            slot = self._next = max(self._next + 1 / self.rate, now - 0.1)
            if slot > now:
                await asyncio.sleep(slot - now)
            number = (number + 7) % self.units
            sent = time.monotonic()
            try:
                if stream is None:
                    stream = await asyncio.open_connection(*self._address)
                async with asyncio.timeout(10):
                    self.answers.append(await self._ask(stream, sent, number))
            except (OSError, ValueError, EOFError, asyncio.IncompleteReadError) as exc:  # TimeoutError is an OSError
                self.answers.append(Answer(sent, time.monotonic(), 0, None, None, repr(exc)))
                stream = None
        if stream is not None:
            stream[1].close()

    @property
    def _address(self) -> tuple[str, int]:
        url = httpx.URL(self.url)
        return url.host, url.port or 80

    async def _ask(self, stream: tuple[asyncio.StreamReader, asyncio.StreamWriter], sent: float, number: int) -> Answer:
        reader, writer = stream
        asked = self.bodies(number) if self.bodies else self.body
        body = json.dumps(asked | {"unit_id": f"unit-{number}"}).encode()
        head = f"POST /ml/{self.model}/predict HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {self.key}\r\n"
        writer.write(f"{head}content-length: {len(body)}\r\n\r\n".encode() + body)
        answer = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        length = int(answer.partition("content-length:")[2].split("\r\n")[0])
        text = await reader.readexactly(length)
        status, got = int(answer.split()[1]), time.monotonic()
        if status != 200:
            return Answer(sent, got, status, None, None, text[:300].decode(errors="replace"), number)
        parsed = json.loads(text)
        return Answer(sent, got, status, parsed["model_version"], parsed["prediction_id"], unit=number)
