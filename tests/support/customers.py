"""Simulated customers whose truth is known: they are assigned by the published snapshot, as a router would, and their
records and outcomes go the way of the ingester into Postgres."""

import random
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import cast

import msgspec
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker

from control_plane.adapters.store import ids, ingest
from control_plane.contracts.records import PredictionRecord
from control_plane.contracts.snapshot import ModelRoute
from control_plane.domain.assignment import bucket
from control_plane.ingest import rows
from tests.support.reconciler import routed

PACE_S = 0.25


@dataclass(frozen=True, slots=True)
class Truth:
    """What a version does to a customer: share that buys, share of calls that fall back, share nobody answers."""

    buys: float = 0.1
    falls_back: float = 0.0
    fails: float = 0.0


@dataclass
class Customers:
    """New customers all the time, one request each, who buy or not at once."""

    engine: AsyncEngine
    sessions: async_sessionmaker[AsyncSession]
    model: str
    truth: Mapping[str, Truth]
    seed: int = 1
    asked: int = 0
    answered_by: dict[str, int] = field(default_factory=dict[str, int])
    first_exposed: datetime | None = None  # to the candidate

    def __post_init__(self) -> None:
        self._random = random.Random(self.seed)
        self._next = 0.0

    async def come(self, count: int) -> None:
        """`count` customers at most every PACE_S, however often it is called: to wait costs less than to be counted."""
        if time.monotonic() < self._next:
            return
        self._next = time.monotonic() + PACE_S
        revision, route = await routed(self.sessions, self.model)
        if route is None or not route.arms:
            return
        predictions: list[rows.Row] = []
        outcomes: list[rows.Row] = []
        for _ in range(count):
            unit = f"customer-{self.asked}"
            self.asked += 1
            record, outcome = self._request(unit, route, revision)
            predictions.append(rows.prediction(record)[0])
            outcomes.append(outcome)
        async with ingest.connection(self.engine) as connection:
            await ingest.make_partitions(connection, [datetime.now(UTC).date()])
            await ingest.fold(connection, predictions=predictions, outcomes=outcomes, moves=[])

    def _request(self, unit: str, route: ModelRoute, revision: int) -> tuple[bytes, rows.Row]:
        variant, target = _arm(route, unit)
        version = route.targets[target].version
        stable = next(route.targets[arm.target].version for arm in route.arms if arm.variant == "stable")
        truth, now = self.truth[version], datetime.now(UTC)
        at_us = int(now.timestamp() * 1e6)
        falls = variant == "candidate" and self._random.random() < truth.falls_back
        served = stable if falls else version
        status = "error" if self._random.random() < truth.fails else "ok"
        self.answered_by[served] = self.answered_by.get(served, 0) + 1
        if variant == "candidate" and self.first_exposed is None:
            self.first_exposed = now
        record = PredictionRecord(
            v=1, prediction_id=str(ids.new()), model=self.model, status=status, received_at_us=at_us, latency_us=3_000,
            epoch=1, revision=revision, assigned_variant=variant, assigned_version=version,
            served_variant="stable" if falls else variant, served_version=served,
            fallback_reason="dead" if falls else None, rollout_id=route.rollout_id, step=route.step, unit_id=unit,
            output=msgspec.Raw(b'{"probability":0.5}'),
        )  # fmt: skip
        bought = self._random.random() < self.truth[served].buys
        outcome: Sequence[object] = (
            ids.new(), self.model, "bought", "true" if bought else "false", None, at_us + 1, at_us + 1, None, unit,
        )  # fmt: skip
        return msgspec.json.encode(record), cast(rows.Row, tuple(outcome))


def _arm(route: ModelRoute, unit: str) -> tuple[str, str]:
    position, end = bucket(route.salt, unit), 0
    for arm in route.arms:
        end += arm.weight
        if position < end:
            return arm.variant, arm.target
    raise AssertionError("arms cover all buckets")
