"""A model of real native artifacts with a log its first version has really answered."""

import json
import shutil
from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from sqlalchemy import update
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker

from control_plane.adapters.store.tables import ModelRow
from model_servers.native import digest
from model_servers.runtime.native_engine import NativeEngine
from model_servers.runtime.spec import Config
from tests.support import logged, native_artifacts
from tests.support.api import add_model, add_version

FEATURES: dict[str, Any] = {
    "amount": {"type": "number"},
    "night": {"type": "boolean"},
    "risk": {"type": "number", "nullable": True, "pii": True},
}
CONFIG: dict[str, Any] = {
    "name": "fraud",
    "problem": "binary",
    "features": FEATURES,
    "target": {"column": "is_fraud", "positive": 1},
    "metric": {"name": "average_precision", "minimum": 0.5},
    "costs": {"false_negative": 100.0, "false_positive": 5.0, "false_negative_column": "amount"},
    "decision": {"positive": "review", "negative": "accept"},
    "label": {"absence_means": "negative", "delay_s": 3_600},
}


def artifact(home: Path, *, seed: int) -> str:
    """An artifact where the cache of `home` has it; its digest."""
    made = native_artifacts.xgboost_binary(home / "made" / str(seed), seed=seed)
    found = digest.of_folder(made)
    folder = home / "cache" / "artifacts" / found.removeprefix("sha256:")
    shutil.copytree(made, folder, dirs_exist_ok=True)
    return found


def engine_of(home: Path, found: str, config: dict[str, Any]) -> NativeEngine:
    folder = home / "cache" / "artifacts" / found.removeprefix("sha256:")
    return NativeEngine(folder, msgspec.convert(config, Config), threads=1)


def answers(engine: NativeEngine, rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    values = [tuple(row.get(name) for name in engine.features) for row in rows]
    return [json.loads(answer) for answer in engine.answers(values, hurried=True)]


async def model(maker: async_sessionmaker[AsyncSession], home: Path, **config: Any) -> tuple[str, str]:
    """Version 1 in Production and version 2, another booster; their digests."""
    digests = artifact(home, seed=0), artifact(home, seed=1)
    await add_model(maker, versions=0)
    stages = ("Production", "Staging")
    for number, (found, stage) in enumerate(zip(digests, stages, strict=True), start=1):
        await add_version(maker, "fraud", str(number), digest=found, config=CONFIG | config, stage=stage)
    async with maker.begin() as session:
        await session.execute(update(ModelRow).values(production_version="1"))
    return digests


def traffic(
    count: int, begin: datetime, *, seconds: float, seed: int = 0
) -> list[tuple[datetime, str, dict[str, Any]]]:
    """Times, customers with four rows each, and features."""
    rng = np.random.default_rng(seed)
    made: list[tuple[datetime, str, dict[str, Any]]] = []
    for number in range(count):
        features = {"amount": round(float(rng.exponential(60)), 2), "night": bool(rng.random() < 0.4)}
        features["risk"] = None if number % 11 == 0 else float(rng.random())
        made.append((begin + timedelta(seconds=number * seconds), f"customer-{number // 4}", features))
    return made


async def answered(
    engine: AsyncEngine, scorer: NativeEngine, rows: Sequence[tuple[datetime, str, dict[str, Any]]]
) -> list[dict[str, Any]]:
    """Store what version 1 said to these rows, and labels of the fraudulent ones; the records."""
    said = answers(scorer, [features for _, _, features in rows])
    records = [
        logged.record(at, unit_id=unit, features=features, **answer)
        for (at, unit, features), answer in zip(rows, said, strict=True)
    ]
    frauds = [
        logged.outcome(at + timedelta(minutes=1), True, prediction_id=record["prediction_id"])
        for (at, _, features), record in zip(rows, records, strict=True)
        if features["amount"] + 100 * (features["risk"] or 0) > 150
    ]
    await logged.store(engine, records, frauds)
    return records
