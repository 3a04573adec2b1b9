"""Customers of days gone by: their predictions and outcomes lie in a spool, and go the real way from there.

Only the times are made up. What a version answered is asked of its own server; shipper, stream, ingester, folds and
everything behind them do what they do with a router's records.
"""

import asyncio
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import yaml

from control_plane.adapters.store import ids
from control_plane.contracts.records import PredictionRecord
from control_plane.router.outcomes import ReceivedOutcome
from control_plane.router.spool import Spool
from tests.support.stack import ROOT, Stack
from training.common import models, rows

_SLOT = 90  # no router has so many workers
_AT_ONCE = 500
Body = dict[str, Any]


def declare(folder: Path, name: str, **changes: Any) -> Path:
    """A model like churn under another name, with the members of model.yaml that are given; its folder."""
    place = folder / name
    place.mkdir(parents=True)
    declared = yaml.safe_load((ROOT / "model_servers" / "churn" / "model.yaml").read_text())
    declared |= {"name": name, "aliases": [], **changes}
    (place / "model.yaml").write_text(yaml.safe_dump(declared))
    for code in ("features.py", "simulate.py"):
        (place / code).write_text((ROOT / "training" / "churn" / code).read_text())
    return place


def bodies(place: Path, count: int, *, seed: int, scenario: str) -> list[Body]:
    """Predict bodies with `label`, what will turn out to be true."""
    return list(rows.bodies(models.read(place / "model.yaml"), count, seed=seed, scenario=scenario))


def turned(found: Sequence[Body], feature: str, value: object) -> list[Body]:
    """What was learnt no longer holds for customers with this value of this feature."""
    return [body | {"label": not body["label"]} if body["features"][feature] == value else body for body in found]


@dataclass(frozen=True, slots=True)
class Day:
    """`back`: how many days before today."""

    back: int
    bodies: Sequence[Body]


def live_through(
    stack: Stack, model: str, version: str, days: Sequence[Day], *, ready: Callable[[], object] = lambda: None
) -> int:
    """Put the days into spools, answered by this version, each outcome known half an hour after its prediction.

    `ready`: called when everything is answered and nothing is written yet.
    """
    rng, now = np.random.default_rng(len(days)), datetime.now(UTC)
    predictions, outcomes = list[bytes](), list[bytes]()
    for day in days:
        midnight = (now - timedelta(days=day.back)).replace(hour=0, minute=0, second=0, microsecond=0)
        until = min(midnight + timedelta(days=1), now - timedelta(hours=2))
        spread = np.sort(rng.random(len(day.bodies))) * max(0.0, (until - midnight).total_seconds())
        answers = _answered(stack, model, [body["features"] for body in day.bodies])
        for body, seconds, answer in zip(day.bodies, spread.tolist(), answers, strict=True):
            at = midnight + timedelta(seconds=seconds)
            prediction_id = str(ids.new(int(at.timestamp() * 1_000)))
            predictions.append(_record(model, version, body, answer, at, prediction_id))
            outcomes.append(_outcome(model, body, at + timedelta(minutes=30), prediction_id))
    ready()
    asyncio.run(_write(stack.home / "spool", "predictions", predictions))
    asyncio.run(_write(stack.home / "spool", "outcomes", outcomes))
    return len(predictions)


def _answered(stack: Stack, model: str, features: Sequence[Body]) -> Iterator[Body]:
    with stack.data_plane() as client:
        for start in range(0, len(features), _AT_ONCE):
            said = client.post(f"/ml/{model}/batch_predict", json={"rows": features[start : start + _AT_ONCE]})
            assert said.status_code == 200, said.text
            yield from said.json()["predictions"]


def _record(model: str, version: str, body: Body, answer: Body, at: datetime, prediction_id: str) -> bytes:
    record = PredictionRecord(
        v=1, prediction_id=prediction_id, model=model, status="ok", received_at_us=int(at.timestamp() * 1e6),
        latency_us=2_000, epoch=1, revision=1, assigned_variant="stable", assigned_version=version,
        served_variant="stable", served_version=version, unit_id=body["unit_id"],
        features=msgspec.Raw(msgspec.json.encode(body["features"])),
        output=msgspec.Raw(msgspec.json.encode(answer["output"])), threshold=answer["threshold"],
        decision=answer["decision"],
    )  # fmt: skip
    return msgspec.json.encode(record)


def _outcome(model: str, body: Body, at: datetime, prediction_id: str) -> bytes:
    micros = int(at.timestamp() * 1e6)
    outcome = ReceivedOutcome(
        outcome_id=str(ids.new()), model=model, name="label", value=body["label"], observed_at_us=micros,
        prediction_id=prediction_id, received_at_us=micros,
    )  # fmt: skip
    return msgspec.json.encode(outcome)


async def _write(root: Path, kind: str, records: Sequence[bytes]) -> None:
    spool = Spool(root, kind, _SLOT, segment_bytes=1 << 20)
    written = list[bool]()
    for record in records:
        spool.append(record, written.append)
    await spool.close()
    assert all(written)
    assert len(written) == len(records)


def ask(stack: Stack, model: str, found: Sequence[Body], tell: Callable[[Body], None] = lambda _: None) -> None:
    """Today's customers, over the router, a little slower than it could."""
    with stack.data_plane() as client:
        for body in found:
            asked = {"features": body["features"], "unit_id": body["unit_id"]}
            answer = client.post(f"/ml/{model}/predict", json=asked)
            assert answer.status_code == 200, answer.text
            tell(answer.json())
            time.sleep(0.002)
