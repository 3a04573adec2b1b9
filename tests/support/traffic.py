"""Steady traffic on the data plane in a background thread, every answer kept."""

import asyncio
import threading
import time
from collections import Counter
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


@dataclass
class Traffic:
    """`rate` requests a second to one model, units 0..units-1 in turn, until the block ends; at most `limit`."""

    url: str
    key: str
    model: str
    body: dict[str, Any]
    rate: float
    units: int = 500
    limit: int = 200_000
    answers: list[Answer] = field(default_factory=list)

    def __enter__(self) -> Self:
        self._stop = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._drive()), daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join(timeout=60)
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
        limits = httpx.Limits(max_connections=32, max_keepalive_connections=32)
        headers = {"authorization": f"Bearer {self.key}"}
        async with httpx.AsyncClient(base_url=self.url, headers=headers, limits=limits, timeout=10) as client:
            pending: set[asyncio.Task[None]] = set()
            started, sent = time.monotonic(), 0
            while not self._stop.is_set() and sent < self.limit:
                due = min(int((time.monotonic() - started) * self.rate), self.limit)
                for number in range(sent, due):
                    task = asyncio.create_task(self._one(client, number))
                    pending.add(task)
                    task.add_done_callback(pending.discard)
                sent = max(sent, due)
                await asyncio.sleep(0.005)
            await asyncio.gather(*pending)

    async def _one(self, client: httpx.AsyncClient, number: int) -> None:
        body = self.body | {"unit_id": f"unit-{number % self.units}"}
        sent = time.monotonic()
        try:
            answer = await client.post(f"/ml/{self.model}/predict", json=body)
        except httpx.HTTPError as exc:
            self.answers.append(Answer(sent, time.monotonic(), 0, None, None, repr(exc)))
            return
        ok = answer.status_code == 200
        parsed = answer.json() if ok else {}
        self.answers.append(
            Answer(
                sent,
                time.monotonic(),
                answer.status_code,
                parsed.get("model_version"),
                parsed.get("prediction_id"),
                "" if ok else answer.text[:300],
            )
        )
