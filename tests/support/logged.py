"""Predictions and outcomes in the log, stored as the ingester stores them."""

import json
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncEngine

from control_plane.adapters.store import ids, ingest
from control_plane.ingest import rows


def record(at: datetime, **changed: Any) -> dict[str, Any]:
    """A record of the model fraud, answered at `at`; None leaves a member out."""
    made: dict[str, Any] = {"v": 1, "prediction_id": str(ids.new(int(at.timestamp() * 1_000))), "model": "fraud"}
    made |= {
        "status": "ok",
        "received_at_us": int(at.timestamp() * 1e6),
        "latency_us": 2_000,
        "epoch": 1,
        "revision": 3,
    }
    made |= {"revision": 3, "assigned_version": "1", "served_version": "1"}
    made |= {"served_variant": "stable", "assigned_variant": "stable"}
    made |= {"features": {"amount": 12.5}, "output": {"probability": 0.9}, "threshold": 0.5, "decision": "block"}
    return {name: value for name, value in {**made, **changed}.items() if value is not None}


def outcome(at: datetime, value: Any, **subject: Any) -> dict[str, Any]:
    """An outcome of the model fraud; `subject`: prediction_id or unit_id."""
    micros = int(at.timestamp() * 1e6)
    made = {"outcome_id": str(ids.new()), "model": "fraud", "name": "label", "value": value}
    return made | {"observed_at_us": micros, "received_at_us": micros, **subject}


async def store(
    engine: AsyncEngine, records: Iterable[dict[str, Any]], outcomes: Iterable[dict[str, Any]] = ()
) -> list[UUID]:
    """Ids of the predictions, in their order."""
    parsed = [rows.prediction(json.dumps(one).encode()) for one in records]
    told = [rows.outcome(json.dumps(one).encode()) for one in outcomes]
    async with ingest.connection(engine) as connection:
        await ingest.make_partitions(connection, {day for _, day in parsed})
        await ingest.fold(connection, predictions=[row for row, _ in parsed], outcomes=told, moves=[])
    return [UUID(str(row[ingest.PREDICTION_ID])) for row, _ in parsed]


def of_today(hour: int = 0) -> datetime:
    return datetime.now(UTC).replace(hour=hour, minute=0, second=0, microsecond=0)
