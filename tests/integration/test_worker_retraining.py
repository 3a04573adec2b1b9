"""A retraining from its row to Staging, in a real worker, over a real log; only what learns is a script."""

import os
import signal
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select, text
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker

from control_plane.adapters.store import audit
from control_plane.adapters.store.tables import ModelVersionRow, SignalRow
from tests.integration.test_worker_jobs import cancel, is_alive, pids, reaches, want, worker
from tests.support import logged
from tests.support.api import CONFIG, EVIDENCE, add_model, add_version

pytestmark = pytest.mark.integration
Sessions = async_sessionmaker[AsyncSession]
TRAINING = """
import gzip, json, os, sys, time
from urllib.parse import urlsplit
argv, home = sys.argv, sys.argv[sys.argv.index("--home") + 1]
def say(**line): print(json.dumps(line), flush=True)
with open(f"{home}/{argv[2]}.pids", "a") as pids: pids.write(f"{os.getpid()}\\n")
if os.path.exists(f"{home}/hang"): time.sleep(600)
if os.path.exists(f"{home}/refuse"):
    say(event="failed", detail="Training data refused: amount: below 0.", fraction=1.0); sys.exit(4)
file = urlsplit(argv[argv.index("--logged") + 1]).path
with gzip.open(file, "rt") as lines: rows = [json.loads(line) for line in lines]
mode = oct(os.stat(file).st_mode & 0o777)
low = float(open(f"{home}/low").read())
job = argv[argv.index("--job") + 1]
say(event="registered", detail="done", fraction=1.0, version="2", job=job, rows=len(rows), mode=mode,
    metric={"name": "average_precision", "value": 0.8, "holdout_rows": 200},
    production={"version": "1", "value": 0.7, "difference": {"value": 0.1, "low": low, "high": 0.2}})
"""
SMALL = {**CONFIG, "unit": "customer", "training": {"retrain_rows": 100}}


@pytest.fixture
async def learned(maker: Sessions, engine: AsyncEngine, home: Path) -> Path:
    """Version 1 in Production, version 2 known, and 200 labelled answers; MLCP_HOME."""
    await add_model(maker, versions=0)
    for version, stage in (("1", "Production"), ("2", "Development")):
        await add_version(maker, "fraud", version, stage=stage, config=SMALL, evidence=EVIDENCE)
    async with maker.begin() as session:
        await session.execute(text("UPDATE models SET production_version = '1'"))
    at = datetime.now(UTC) - timedelta(days=2)
    records = [
        logged.record(at + timedelta(minutes=n), unit_id=f"u{n}", features={"amount": float(n)}) for n in range(200)
    ]
    outcomes = [logged.outcome(at + timedelta(days=1), n % 3 == 0, unit_id=f"u{n}") for n in range(200)]
    await logged.store(engine, records, outcomes)
    (home / "low").write_text("0.05")
    return home


async def told(maker: Sessions) -> list[tuple[str, dict[str, Any]]]:
    async with maker() as session:
        rows = await session.scalars(select(SignalRow).where(SignalRow.source == "retraining").order_by(SignalRow.id))
        return [(row.name, row.facts) for row in rows]


async def stage(maker: Sessions) -> str:
    async with maker() as session:
        row = await session.get(ModelVersionRow, ("fraud", "2"))
        assert row is not None
        return row.stage


async def test_a_better_version_is_in_staging_when_its_job_says_so_and_its_rows_are_gone(
    maker: Sessions, dsn: str, learned: Path, tmp_path: Path
) -> None:
    with worker(dsn, learned, tmp_path, training=TRAINING) as pid:
        (learned / "hang").touch()
        interrupted = await want(maker, "fraud", source="archive")
        (training,) = await pids(learned, "fraud", 1)
        os.kill(pid, signal.SIGKILL)  # in the middle of it
    assert (await stage(maker), await told(maker)) == ("Development", [])
    (learned / "hang").unlink()
    with worker(dsn, learned, tmp_path, training=TRAINING):
        done = await reaches(maker, interrupted, "succeeded", "failed")
        assert done.error is None
    assert not is_alive(training)
    result = done.result or {}
    assert (result["verdict"], result["stage"], await stage(maker)) == ("pass", "Staging", "Staging")
    assert (result["rows"], result["mode"], result["job"]) == (200, "0o600", str(interrupted))
    assert result["gathered"]["classes"] == {"1": 67, "0": 133}
    ((name, facts),) = await told(maker)
    assert (name, facts["version"], facts["production"]["difference"]["low"]) == ("better", "2", 0.05)
    async with maker() as session:
        ((link, _),) = await audit.page(session, before=None, limit=9, action="model.retrain")
    assert link["evidence"]["gathered"]["rows"] == 200
    assert list((learned / "archive" / "retraining").iterdir()) == []


@pytest.mark.slow
async def test_what_is_not_better_is_refused_or_stopped_leaves_every_version_where_it_was_and_says_why(
    maker: Sessions, dsn: str, learned: Path, tmp_path: Path
) -> None:
    with worker(dsn, learned, tmp_path, training=TRAINING):
        (learned / "low").write_text("-0.01")
        alike = await reaches(maker, await want(maker, "fraud", source="archive"), "succeeded")
        assert (alike.result or {})["why"].startswith("No better beyond doubt: average_precision +0.1000")
        since = (datetime.now(UTC) - timedelta(days=2) + timedelta(minutes=150)).isoformat()
        few = await reaches(maker, await want(maker, "fraud", source="archive", since=since), "failed")
        assert "49 labelled rows, 100 are needed" in (few.error or "") or "50 labelled rows" in (few.error or "")
        (learned / "refuse").touch()
        refused = await reaches(maker, await want(maker, "fraud", source="archive"), "failed")
        assert refused.error == "Training data refused: amount: below 0."
        (learned / "refuse").unlink()
        (learned / "hang").touch()
        stopped = await want(maker, "fraud", source="archive")
        await pids(learned, "fraud", 3)
        await cancel(maker, stopped)
        await reaches(maker, stopped, "cancelled")
    assert await stage(maker) == "Development"
    assert [(name, facts["why"]) for name, facts in await told(maker)] == [
        ("not_better", (alike.result or {})["why"]),
        *(("failed", job.error) for job in (few, refused)),
    ]
    assert list((learned / "archive" / "retraining").iterdir()) == []
