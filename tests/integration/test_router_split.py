"""A hundred thousand live requests: the split is the one asked for, and every unit keeps its variant over a ramp."""

import asyncio
import json
from collections import Counter, defaultdict
from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path
from typing import cast
from urllib.parse import urlsplit

import pytest
from scipy.stats import binom

from control_plane.adapters import bus
from control_plane.domain.assignment import BUCKETS, assign, canary_slices
from tests.support.data_plane import KEY, document, router, target
from tests.support.processes import eventually

pytestmark = [pytest.mark.integration, pytest.mark.slow]
UNITS = 10_000
SALT = "0193b5c0-rollout"
RAMP = (1_000, 2_500, 5_000, 10_000)  # buckets of the candidate


class Always(asyncio.Protocol):
    """A model server that gives everybody the same answer, as fast as this process can."""

    ANSWER = b'HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 24\r\n\r\n{"output":{"label":"a"}}'

    def __init__(self) -> None:
        self.data = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self.data += data
        answers = 0
        while True:  # a batch comes in one write
            head, end, body = self.data.partition(b"\r\n\r\n")
            length = int(head.rpartition(b"content-length: ")[2]) if end else 0
            if not end or len(body) < length:
                break
            self.data, answers = body[length:], answers + 1
        if answers:
            self.transport.write(self.ANSWER * answers)


async def asked(url: str, units: Iterable[int]) -> list[tuple[int, str]]:
    """(unit, variant) of one request per unit, over 32 connections."""
    split, waiting, found = urlsplit(url), iter(units), list[tuple[int, str]]()

    async def connection() -> None:
        reader, writer = await asyncio.open_connection(split.hostname, split.port)
        for unit in waiting:
            body = b'{"features":{"a":1},"unit_id":"customer-%d"}' % unit
            head = (
                b"POST /ml/churn/predict HTTP/1.1\r\nhost: x\r\nauthorization: Bearer %b\r\ncontent-length: %d\r\n\r\n"
            )
            writer.write(head % (KEY.encode(), len(body)) + body)
            answer = await reader.readuntil(b"\r\n\r\n")
            assert answer.startswith(b"HTTP/1.1 200"), answer
            length = int(answer.lower().partition(b"content-length:")[2].split(b"\r\n")[0])
            found.append((unit, json.loads(await reader.readexactly(length))["variant"]))
        writer.close()

    await asyncio.gather(*(connection() for _ in range(32)))
    return found


async def test_split_and_stickiness_of_a_hundred_thousand_requests_over_a_ramp(
    home: Path, redis: str, tmp_path: Path
) -> None:
    publisher = bus.connect(redis)
    seen: dict[int, defaultdict[int, set[str]]] = {}
    loop, old, new = asyncio.get_running_loop(), tmp_path / "old.sock", tmp_path / "new.sock"
    async with (
        await loop.create_unix_server(Always, old, backlog=512),
        await loop.create_unix_server(Always, new, backlog=512),
    ):
        one, two = target("1", f"unix:{old}"), target("2", f"unix:{new}")
        with router(home, redis, workers=2) as url:
            for revision, weight in enumerate(RAMP, 1):
                arms = {v.key: (v.weight, two if v.key == "candidate" else one) for v in canary_slices(weight)}
                # A stalled machine is no fault of the split.
                sealed = document(revision, one, two, arms=arms, salt=SALT, deadline_ms=30_000)
                await bus.publish_snapshot(publisher, sealed, 1, revision)

                async def applied(revision: int = revision) -> bool:
                    reports = (await bus.router_reports(publisher)).values()
                    return [report["revision"] for report in reports] == [revision] * 2

                await eventually(applied, what="both workers have the step")
                seen[weight] = defaultdict(set)
                requests = [unit for _ in range(100_000 // len(RAMP) // UNITS + 1) for unit in range(UNITS)]
                for unit, variant in await asked(url, requests[: 100_000 // len(RAMP)]):
                    seen[weight][unit].add(variant)
    await publisher.aclose()
    for weight, variants in seen.items():
        assert all(len(found) == 1 for found in variants.values()), "a unit keeps its variant"
        given = {unit: next(iter(found)) for unit, found in variants.items()}
        slices = canary_slices(weight)
        assert given == {u: assign(slices, salt=SALT, unit_id=f"customer-{u}").key for u in given}
        counts = Counter(given.values())
        for part in slices:
            low, high = binom.interval(1 - 1e-6, UNITS, part.weight / BUCKETS)
            assert low <= counts[part.key] <= high, (weight, part.key, counts)
    for lower, higher in pairwise(RAMP):
        candidates = [{u for u, found in seen[w].items() if found == {"candidate"}} for w in (lower, higher)]
        assert candidates[0] <= candidates[1], "a ramp never takes a unit away from the candidate"
