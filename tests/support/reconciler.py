"""A running reconciler with what it needs around it: versions, a supervisor of stand-in servers, reporting routers."""

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import cast

import msgspec
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from control_plane.adapters import bus
from control_plane.adapters.store import discovered, rollouts, snapshots
from control_plane.adapters.store.rollouts import Entry
from control_plane.adapters.store.tables import ModelVersionRow
from control_plane.contracts.snapshot import ModelRoute, decode
from control_plane.domain.registry import tree_digest
from tests.support.processes import Child, running

Sessions = async_sessionmaker[AsyncSession]
DEAD = "http://127.0.0.1:9"  # nobody listens there


def environment(dsn: str, redis: str, home: Path, mlflow: str = DEAD) -> dict[str, str]:
    return {"MLCP_POSTGRES_DSN": dsn, "MLCP_REDIS_URL": redis, "MLCP_HOME": str(home), "MLCP_MLFLOW_URL": mlflow}


@contextmanager
def reconciler(env: Mapping[str, str], log: Path, *, fault: str | None = None) -> Iterator[Child]:
    """`fault`: see tests.support.faults."""
    module = "tests.support.faults" if fault else "control_plane.reconciler"
    with running([sys.executable, "-m", module], log=log, env={**env, "FAULT": fault or ""}) as child:
        yield child


async def add_versions(sessions: Sessions, model: str, *numbers: str, home: Path | None = None, **more: object) -> None:
    """Usable native versions; with `home`, their artifacts lie in its cache already. `more`: of their model.yaml."""
    now = datetime.now(UTC)
    for number in numbers:
        digest = _cached(home, model, number) if home else f"sha256:{number * 64}"[:71]
        config = {
            "name": model,
            "problem": "binary",
            "features": {"amount": {"type": "number"}},
            "metric": {"name": "roc_auc", "minimum": 0.5},
            "rollout": {"strategy": "blue_green", "bake_s": 60.0},
            **more,
        }
        evidence = {
            "metric": {"name": "roc_auc", "value": 0.9, "holdout_rows": 10},
            "data": {"validated": True, "sha256": "same", "holdout": {"sha256": "same"}},
            "cost": {"model": 1.0, "trivial": 2.0, "currency": "EUR"},
        }
        row = ModelVersionRow(
            model=model, version=number, stage="Development", stage_since=now, source="models:/m-1", digest=digest,
            digest_from="registration", runtime="native", config=config, inferred=False, evidence=evidence,
            created_at=now, discovered_at=now,
        )  # fmt: skip
        async with sessions.begin() as session:
            await discovered.add(session, row, salt="salt")


def _cached(home: Path, model: str, number: str) -> str:
    content = f"{model} {number}".encode()
    digest = tree_digest([("weights", sha256(content).hexdigest())])
    folder = home / "cache" / "artifacts" / digest.removeprefix("sha256:")
    folder.mkdir(parents=True)
    (folder / "weights").write_bytes(content)
    return digest


def _serve(spec: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-m", "tests.support.standin_server", spec], stderr=subprocess.DEVNULL)


@asynccontextmanager
async def supervisor(home: Path) -> AsyncIterator[dict[str, subprocess.Popen[bytes]]]:
    """Carries out the wishes in run/wanted/ with stand-in servers, as the embedded stack does with real ones."""
    children: dict[str, subprocess.Popen[bytes]] = {}

    async def look() -> None:
        while True:
            wanted = {file.stem: file for file in (home / "run" / "wanted").glob("*.json")}
            for name, file in wanted.items():
                if name not in children or children[name].poll() is not None:
                    spec = json.loads(file.read_text())["argv"][-1]
                    children[name] = _serve(spec)
            for name in children.keys() - wanted.keys():
                children[name].terminate()
            await asyncio.sleep(0.02)

    task = asyncio.create_task(look())
    try:
        yield children
    finally:
        task.cancel()
        for child in children.values():
            child.kill()
            child.wait()


@asynccontextmanager
async def router(redis: str, router_id: str = "r-1") -> AsyncIterator[dict[str, object]]:
    """Applies every snapshot at once and reports it. Yields its report, whose `pins` a test may set."""
    report: dict[str, object] = {"epoch": 0, "revision": 0, "pins": {}, "rejected": None, "at": 0.0}
    client = bus.connect(redis)

    async def live() -> None:
        while True:
            document = await bus.snapshot(client)
            if document:
                applied = decode(document)
                at, now = (report["epoch"], report["revision"]), (applied.epoch, applied.revision)
                report["epoch"], report["revision"] = max(cast("tuple[int, int]", at), now)
            report["at"] = time.time()
            await bus.report_router(client, router_id, report)
            await asyncio.sleep(0.05)

    task = asyncio.create_task(live())
    try:
        yield report
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await client.aclose()


async def routed(sessions: Sessions, model: str) -> tuple[int, ModelRoute | None]:
    """The newest snapshot's revision and the model's route in it."""
    async with sessions() as session:
        row = await snapshots.newest(session)
        return (0, None) if row is None else (row.revision, decode(row.document).models.get(model))


async def answering(sessions: Sessions, model: str) -> dict[str, int]:
    """Version -> buckets in the newest snapshot."""
    _, route = await routed(sessions, model)
    shares: dict[str, int] = {}
    for arm in route.arms if route else ():
        assert route is not None
        version = route.targets[arm.target].version
        shares[version] = shares.get(version, 0) + arm.weight
    return shares


async def rollout_of(sessions: Sessions, entry: Entry) -> Entry:
    async with sessions() as session:
        return await rollouts.load(session, entry.id)


async def stages(sessions: Sessions, model: str) -> dict[str, str]:
    async with sessions() as session:
        rows = await session.scalars(select(ModelVersionRow).where(ModelVersionRow.model == model))
        return {row.version: row.stage for row in rows}


def described(route: ModelRoute) -> object:
    """The schema of a route's first target, parsed."""
    target = next(iter(route.targets.values()))
    return msgspec.json.decode(target.schema) if target.schema else None
