"""The prediction log in the archive: whole hours or none, verified before anything is dropped."""

import asyncio
import json
import os
import random
import signal
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pyarrow.parquet as pq
import pytest
from sqlalchemy import select, text
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker

from control_plane.adapters.archive import Archive, Damaged, documents
from control_plane.adapters.store import ids
from control_plane.adapters.store import jobs as store_jobs
from control_plane.adapters.store.tables import ExposureRow, RolloutRow
from control_plane.ingest import archiver
from control_plane.services import archive as service
from control_plane.services import performance, predictions, quality
from control_plane.settings import ArchiverSettings, WorkerSettings
from control_plane.worker import schedule
from control_plane.worker.carry_out import Carrier
from tests.support import logged
from tests.support.api import CONFIG, add_model, add_version
from tests.support.processes import wait_until

pytestmark = pytest.mark.integration
RETENTION = timedelta(days=35)
NOON = datetime.now(UTC).replace(hour=12, minute=0, second=0, microsecond=0) - timedelta(days=2)
Sessions = async_sessionmaker[AsyncSession]


@pytest.fixture
def archive(tmp_path: Path) -> Archive:
    return Archive((tmp_path / "archive").as_uri())


async def run(maker: Sessions, archive: Archive, *, now: datetime | None = None) -> service.Report:
    return await service.run(maker, archive, now=now or datetime.now(UTC), keep=RETENTION)


def read(archive: Archive, *between: datetime, **more: Any) -> list[dict[str, Any]]:
    return [row for batch in archive.batches("fraud", *between, **more) for row in batch.to_pylist()]


async def partitions(maker: Sessions) -> list[str]:
    async with maker() as session:
        found = await session.scalars(text("SELECT relname FROM pg_class WHERE relname ~ '^predictions_[0-9]+$'"))
        return list(found)


async def test_the_archive_gives_back_what_was_logged_with_its_outcomes(
    maker: Sessions, engine: AsyncEngine, archive: Archive
) -> None:
    times = [NOON + timedelta(minutes=20 * n) for n in range(6)]
    records = [logged.record(at, unit_id=f"customer-{n}", features={"n": n}) for n, at in enumerate(times)]
    first, second = records[0]["prediction_id"], records[1]["prediction_id"]
    outcomes = [
        logged.outcome(times[0] + timedelta(hours=3), True, prediction_id=first),
        logged.outcome(times[0] + timedelta(hours=2), False, prediction_id=first),
        logged.outcome(times[1] + timedelta(hours=1), "fraud", unit_id="customer-1"),
        logged.outcome(times[1] + timedelta(days=2), "of another time", unit_id="customer-1"),
    ]
    await logged.store(engine, records, outcomes)
    report = await run(maker, archive)
    assert (report.hours, report.rows, report.dropped, report.kept) == (2, 6, [], {})
    rows = [documents(row) for row in read(archive)]
    assert [row["features"] for row in rows] == [{"n": n} for n in range(6)]
    assert [row["prediction_id"] for row in rows[:2]] == [first, second]
    assert [outcome["value"] for outcome in rows[0]["outcomes"]] == [False, True], "in order of observation"
    assert [(o["value"], o["unit_id"]) for o in rows[1]["outcomes"]] == [("fraud", "customer-1")]
    some = read(archive, times[1], times[4], columns=["prediction_id", "decision"], rows=2)
    assert [row["prediction_id"] for row in some] == [r["prediction_id"] for r in records[1:4]]
    assert set(some[0]) == {"prediction_id", "decision"}
    again = await run(maker, archive)
    assert (again.hours, again.rows) == (0, 0), "a second run finds nothing to do"


async def test_an_hour_is_written_again_when_labels_came_in_and_an_unfinished_one_waits(
    maker: Sessions, engine: AsyncEngine, archive: Archive
) -> None:
    recent = datetime.now(UTC) - timedelta(minutes=2)
    (old, _) = await logged.store(engine, [logged.record(NOON), logged.record(recent)])
    assert (await run(maker, archive)).hours == 1
    (before,) = archive.hours("fraud")
    await logged.store(engine, [], [logged.outcome(NOON + timedelta(hours=1), True, prediction_id=str(old))])
    assert (await run(maker, archive)).hours == 0, "once a day is enough"
    assert (await run(maker, archive, now=datetime.now(UTC) + timedelta(days=1, hours=2))).hours == 2
    (after, _) = archive.hours("fraud")
    assert after.file != before.file
    assert [o["value"] for o in documents(read(archive)[0])["outcomes"]] == [True]
    folder = Path(str(archive._root)) / "fraud" / f"{NOON:%Y-%m-%d}"
    assert sorted(path.name for path in folder.iterdir()) == sorted(["12.json", after.file])
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o600}


async def test_a_partition_is_dropped_only_when_its_archive_is_whole(
    maker: Sessions, engine: AsyncEngine, archive: Archive
) -> None:
    day = logged.of_today() - timedelta(days=40)
    identities = await logged.store(engine, [logged.record(day + timedelta(hours=n)) for n in range(3)])
    name = f"predictions_{day:%Y%m%d}"
    assert (await service.run(maker, archive, now=datetime.now(UTC), keep=timedelta(days=60))).dropped == []
    (first, *_) = archive.hours("fraud")
    path = Path(str(archive._root)) / "fraud" / f"{day:%Y-%m-%d}" / first.file
    whole = path.read_bytes()
    path.write_bytes(whole[:-20] + b"\0" * 20)
    with pytest.raises(Damaged):
        archive.verify(first)
    settled = await run(maker, archive)
    assert (settled.hours, settled.dropped) == (1, [f"{day:%Y-%m-%d}"]), "the damaged hour is written again first"
    assert name not in await partitions(maker)
    assert not path.exists()
    assert [row["prediction_id"] for row in read(archive)] == [str(identity) for identity in identities]
    async with maker() as session:
        shown = await predictions.view(session, identities[1], archive=lambda: archive)
    assert (shown.prediction_id, shown.archived, shown.features) == (identities[1], True, {"amount": 12.5})


async def test_what_comes_after_its_partition_was_dropped_joins_the_archive(
    maker: Sessions, engine: AsyncEngine, archive: Archive
) -> None:
    day = logged.of_today() - timedelta(days=40)
    (early,) = await logged.store(engine, [logged.record(day)])
    assert (await run(maker, archive)).dropped == [f"{day:%Y-%m-%d}"]
    late = logged.record(day + timedelta(minutes=30))
    await logged.store(engine, [late], [logged.outcome(day + timedelta(hours=1), True, prediction_id=str(early))])
    tomorrow = datetime.now(UTC) + timedelta(days=2)
    assert (await run(maker, archive, now=tomorrow)).dropped == [f"{day:%Y-%m-%d}"]
    rows = read(archive)
    assert sorted(row["prediction_id"] for row in rows) == sorted([str(early), late["prediction_id"]])
    assert sum(len(row["outcomes"]) for row in rows) == 1


async def test_what_the_archive_alone_should_have_and_has_not_keeps_its_partition_and_stays_as_it_is(
    maker: Sessions, engine: AsyncEngine, archive: Archive
) -> None:
    day, tomorrow = logged.of_today() - timedelta(days=40), datetime.now(UTC) + timedelta(days=2)
    await logged.store(engine, [logged.record(day), logged.record(day + timedelta(minutes=1))])
    assert (await run(maker, archive)).dropped == [f"{day:%Y-%m-%d}"]
    (manifest,) = archive.hours("fraud")
    folder = Path(str(archive._root)) / "fraud" / f"{day:%Y-%m-%d}"
    kept = {path: path.read_bytes() for path in folder.iterdir()}
    await logged.store(engine, [logged.record(day + timedelta(minutes=30))])  # its partition is made again
    name = f"predictions_{day:%Y%m%d}"
    for broken in ("missing", "damaged", "older"):
        for path, data in kept.items():
            path.write_bytes(data)
        match broken:
            case "missing":
                (folder / "00.json").unlink()
            case "damaged":
                (folder / manifest.file).write_bytes(b"PAR1" + bytes(500) + b"PAR1")
            case _:
                (folder / "00.json").write_text((folder / "00.json").read_text().replace('"rows": 2', '"rows": 1'))
        found = await run(maker, archive, now=tomorrow)
        assert (found.hours, found.dropped) == (0, []), broken
        assert list(found.failed) == [f"fraud {day:%Y-%m-%dT%H}"], broken
        assert f"{day:%Y-%m-%d}" in found.kept, broken
        assert name in await partitions(maker), broken
    for path, data in kept.items():
        path.write_bytes(data)
    assert (await run(maker, archive, now=tomorrow)).dropped == [f"{day:%Y-%m-%d}"]
    assert len(read(archive)) == 3


async def test_a_day_stays_until_its_labels_had_their_time_and_its_figures_stay_for_good(
    maker: Sessions, engine: AsyncEngine, archive: Archive
) -> None:
    await add_model(maker, versions=0)
    label = {"delay_s": 60 * 86_400, "absence_means": "negative"}
    await add_version(maker, "fraud", "1", config={**CONFIG, "label": label})
    day = logged.of_today() - timedelta(days=40)
    (identity,) = await logged.store(engine, [logged.record(day)])
    found = await run(maker, archive)
    assert (found.hours, found.dropped) == (1, [])
    assert "its labels have their time until" in found.kept[f"{day:%Y-%m-%d}"]
    later = datetime.now(UTC) + timedelta(days=22)
    await quality.fold_due(maker, now=later)
    assert (await run(maker, archive, now=later)).dropped == [f"{day:%Y-%m-%d}"]
    await logged.store(engine, [], [logged.outcome(day, True, prediction_id=str(identity))])
    assert await quality.fold_due(maker, now=later) == 0, "the hour is no longer whole in Postgres"
    async with maker() as session:
        shown = await performance.view(session, "fraud", "90d", now=later)
    assert [row.labelled for row in shown.versions] == [1]


async def test_who_reads_the_log_does_not_wait_for_a_partition_that_is_dropped(
    maker: Sessions, engine: AsyncEngine, archive: Archive
) -> None:
    day = logged.of_today() - timedelta(days=40)
    await logged.store(engine, [logged.record(day)])
    async with maker.begin() as reader:
        assert await reader.scalar(text("SELECT count(*) FROM predictions")) == 1
        kept = (await run(maker, archive)).kept[f"{day:%Y-%m-%d}"]
        assert "lock timeout" in kept
        assert await reader.scalar(text("SELECT count(*) FROM predictions")) == 1
    assert (await run(maker, archive)).dropped == [f"{day:%Y-%m-%d}"]


async def test_a_full_disk_leaves_postgres_and_the_archive_as_they_were(
    maker: Sessions, engine: AsyncEngine, dsn: str, home: Path
) -> None:
    day, archive = logged.of_today() - timedelta(days=40), Archive((home / "archive").as_uri())
    noise = random.Random(7)
    large = [
        logged.record(day + timedelta(hours=hour, seconds=n), features={"text": noise.randbytes(3_000).hex()})
        for hour, rows in ((0, 2), (1, 100))
        for n in range(rows)
    ]
    await logged.store(engine, large)
    env = {**os.environ, "MLCP_HOME": str(home), "MLCP_POSTGRES_DSN": dsn}
    small = ["/bin/sh", "-c", 'ulimit -f 200; exec "$@"', "sh"]  # no file beyond 200 blocks of 512 bytes
    argv = [*small, sys.executable, "-m", "control_plane.ingest.archiver"]
    full = await asyncio.to_thread(subprocess.run, argv, env=env, capture_output=True, text=True, timeout=120)
    assert full.returncode == 1, full.stderr[-2_000:]
    told = json.loads(full.stdout.splitlines()[-1])
    assert told["event"] == "failed"
    assert "The archive cannot be written" in told["detail"]
    folder = home / "archive" / "predictions" / "fraud" / f"{day:%Y-%m-%d}"
    (whole,) = archive.hours("fraud")
    assert {path.name for path in folder.iterdir()} == {"00.json", whole.file}, "nothing half is left behind"
    async with maker() as session:
        assert await session.scalar(text("SELECT count(*) FROM predictions")) == 102
        states = await session.execute(text("SELECT archived = changed FROM log_hours ORDER BY hour"))
        assert [row[0] for row in states] == [True, False]
    assert (await run(maker, archive)).dropped == [f"{day:%Y-%m-%d}"], "with room again"
    assert len(read(archive)) == 102


async def test_the_clock_wants_one_archiving_at_a_time_and_the_worker_carries_it_out(
    maker: Sessions, engine: AsyncEngine, dsn: str, home: Path
) -> None:
    await logged.store(engine, [logged.record(NOON)])
    for _ in range(2):
        await schedule.hourly(maker)
    async with maker() as session:
        ((job, state),) = (await session.execute(text("SELECT id, state FROM jobs_wanted"))).all()
    assert state == "wanted"
    async with maker.begin() as session:
        await session.execute(text("UPDATE jobs_wanted SET state = 'queued'"))
    settings = WorkerSettings.model_validate({"postgres_dsn": dsn, "home": home})
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLCP_POSTGRES_DSN", dsn)
        await Carrier(settings, maker)(job)
    async with maker() as session:
        row = await store_jobs.load(session, job)
    assert (row.state, row.error) == ("succeeded", None)
    assert (row.result or {})["rows"] == 1
    assert [manifest.rows for manifest in Archive((home / "archive").as_uri()).hours("fraud")] == [1]


async def test_exposures_go_when_their_rollout_is_long_over_and_not_before(
    maker: Sessions, engine: AsyncEngine, dsn: str, home: Path
) -> None:
    await add_model(maker, versions=1)
    now, kept = datetime.now(UTC), list[UUID]()
    for closed, phase in (
        (None, "baking"),
        (now - timedelta(days=34), "aborted"),
        (now - timedelta(days=36), "aborted"),
    ):
        facts: dict[str, Any] = {"kind": "promotion", "candidate_version": "1", "plan": {}, "phase": phase}
        facts |= {"since": NOON, "reason": "", "created_at": NOON, "created_by": "", "closed_at": closed}
        rollout = ids.new()
        async with maker.begin() as session:
            session.add(RolloutRow(id=rollout, model="fraud", **facts))
        part = {"rollout_id": str(rollout), "step": 1, "unit_id": "u", "assigned_variant": "candidate"}
        await logged.store(engine, [logged.record(NOON, **part)])
        if closed is None or closed > now - timedelta(days=35):
            kept.append(rollout)
    settings = ArchiverSettings.model_validate({"postgres_dsn": dsn, "home": home})
    assert [(await archiver.run(settings))["exposures"] for _ in range(2)] == [1, 0]
    async with maker() as session:
        assert set(await session.scalars(select(ExposureRow.rollout_id))) == set(kept)


async def test_a_killed_archiver_leaves_no_half_hour(
    maker: Sessions, engine: AsyncEngine, dsn: str, home: Path
) -> None:
    for hour in range(4):
        records = [logged.record(NOON + timedelta(hours=hour, milliseconds=40 * n)) for n in range(1_500)]
        await logged.store(engine, records)
    env = {**os.environ, "MLCP_HOME": str(home), "MLCP_POSTGRES_DSN": dsn}
    await asyncio.to_thread(kill_and_run_again, home / "archive", env)


def kill_and_run_again(root: Path, env: dict[str, str]) -> None:
    argv = [sys.executable, "-m", "control_plane.ingest.archiver"]
    folder, archive = root / "predictions" / "fraud", Archive(root.as_uri())
    for files in (1, 2):
        child = subprocess.Popen(argv, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

        def begun(wanted: int = files, child: "subprocess.Popen[bytes]" = child) -> bool:
            return len(list(folder.glob("*/*.parquet"))) >= wanted or child.poll() is not None

        wait_until(begun, what="a file", every=0.001)
        child.send_signal(signal.SIGKILL)
        child.wait()
        for manifest in archive.hours("fraud"):
            archive.verify(manifest)
            assert manifest.rows == 1_500
    done = subprocess.run(argv, env=env, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-2_000:]
    manifests = list(archive.hours("fraud"))
    assert [manifest.rows for manifest in manifests] == [1_500] * 4
    assert {path.name for path in folder.glob("*/*.parquet")} == {manifest.file for manifest in manifests}
    assert sum(pq.read_metadata(path).num_rows for path in folder.glob("*/*.parquet")) == 6_000
