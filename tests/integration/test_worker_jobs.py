"""Jobs from their row to their end, in a real worker; the training itself is a script that does what its model says."""

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from control_plane.adapters import queue
from control_plane.adapters.store import jobs, wake
from control_plane.adapters.store.tables import JobRow
from tests.support.processes import eventually, running

pytestmark = pytest.mark.integration
TRAINING = """
import json, os, sys, time
assert sys.argv[1] == "train"
model, home = sys.argv[2], sys.argv[sys.argv.index("--home") + 1]
def say(**line): print(json.dumps(line), flush=True)
print("a line for people", file=sys.stderr, flush=True)
say(event="starting", detail="so far so good", fraction=0.1)
with open(f"{home}/{model}.pids", "a") as pids: pids.write(f"{os.getpid()}\\n")
if model.startswith("slow"): time.sleep(600)
if model.startswith("bad"):
    say(event="failed", detail="The data was refused.", fraction=1.0); sys.exit(4)
if model.startswith("crash"): sys.exit("no such thing")
say(event="registered", detail="done", fraction=1.0, version="7", seed=sys.argv[-1])
"""
Sessions = async_sessionmaker[AsyncSession]


@contextmanager
def worker(dsn: str, home: Path, tmp_path: Path, *, training: str = TRAINING, **more: str) -> Iterator[int]:
    folder = tmp_path / "fake" / "training"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "__init__.py").touch()
    (folder / "__main__.py").write_text(training)
    found_at = os.pathsep.join([str(folder.parent), str(Path(__file__).parents[2])])  # the script first, then ourselves
    env = {"MLCP_POSTGRES_DSN": dsn, "MLCP_HOME": str(home), "PYTHONPATH": found_at, "PYTHONSAFEPATH": "1"}
    argv = [sys.executable, "-m", "control_plane.worker"]
    with running(argv, log=tmp_path / "worker.log", env=env | more) as child:
        yield child.pid


async def want(maker: Sessions, model: str, kind: str = "train", **args: object) -> UUID:
    async with maker.begin() as session:
        job_id = await jobs.want(session, kind, model, args, created_by="test", now=datetime.now(UTC))
        await wake.notify(session, "job")
        return job_id


async def cancel(maker: Sessions, job_id: UUID) -> None:
    async with maker.begin() as session:
        await jobs.cancel(session, job_id, now=datetime.now(UTC))


async def reaches(maker: Sessions, job_id: UUID, *states: str) -> JobRow:
    async def look() -> JobRow | None:
        async with maker() as session:
            row = await jobs.load(session, job_id)
            return row if row.state in states else None

    row = await eventually(look, what=f"the job is {' or '.join(states)}")
    assert row is not None
    return row


async def pids(home: Path, model: str, count: int) -> list[int]:
    async def look() -> list[int]:
        file = home / f"{model}.pids"
        found = [int(line) for line in file.read_text().split()] if file.exists() else []
        return found if len(found) >= count else []

    return await eventually(look, what=f"{count} runs of {model}")


def logged(row: JobRow) -> str:
    return Path(row.log_path or "").read_text()


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


async def test_a_job_ends_with_its_result_its_reason_or_its_cancellation(
    maker: Sessions, dsn: str, home: Path, tmp_path: Path
) -> None:
    queue.prepare(dsn)
    queue.prepare(dsn)  # a second time changes nothing
    early = await want(maker, "good", seed=11)
    never = await want(maker, "late")
    await cancel(maker, never)
    with worker(dsn, home, tmp_path, MLCP_WORKER_CONCURRENCY="2"):
        done = await reaches(maker, early, "succeeded")
        assert done.result is not None
        assert (done.result["version"], done.result["seed"], done.progress["attempt"]) == ("7", "11", 1)
        log = logged(done)
        assert "a line for people" in log
        assert '"registered"' in log
        refused = await reaches(maker, await want(maker, "bad"), "failed")
        assert refused.error == "The data was refused."
        crashed = await reaches(maker, await want(maker, "crash"), "failed")
        assert "ended with 1: " in (crashed.error or "")
        assert "no such thing" in (crashed.error or "")
        async with maker.begin() as session:  # the schema may be newer than the worker
            await session.execute(text("ALTER TABLE jobs_wanted DROP CONSTRAINT ck_jobs_wanted_kind_known"))
        unknown = await reaches(maker, await want(maker, "x", kind="of-a-newer-release"), "failed")
        assert (unknown.error or "").startswith("unknown kind")
        slow = await want(maker, "slow")
        (pid,) = await pids(home, "slow", 1)
        assert (await reaches(maker, slow, "running")).started_at is not None
        await cancel(maker, slow)
        await reaches(maker, slow, "cancelled")
        assert not is_alive(pid)
        assert (await reaches(maker, never, "cancelled")).started_at is None


async def test_a_job_that_takes_too_long_is_stopped(maker: Sessions, dsn: str, home: Path, tmp_path: Path) -> None:
    with worker(dsn, home, tmp_path, MLCP_JOB_TIMEOUT_S="1"):
        row = await reaches(maker, await want(maker, "slow"), "failed")
        assert "longer than 1 s" in (row.error or "")


async def test_a_job_of_a_killed_worker_is_run_again_and_given_up_after_the_second_death(
    maker: Sessions, dsn: str, home: Path, tmp_path: Path
) -> None:
    job = await want(maker, "slow")
    with worker(dsn, home, tmp_path) as first:
        (orphan,) = await pids(home, "slow", 1)
        os.kill(first, signal.SIGKILL)
    assert is_alive(orphan)
    with worker(dsn, home, tmp_path) as second:
        again = (await pids(home, "slow", 2))[1]
        assert not is_alive(orphan)  # never two at once
        assert (await reaches(maker, job, "running")).progress["attempt"] == 2
        os.kill(second, signal.SIGKILL)
    with worker(dsn, home, tmp_path):
        row = await reaches(maker, job, "failed")
        assert "died 2 times" in (row.error or "")
    os.killpg(again, signal.SIGKILL)


async def test_a_stopped_worker_gives_its_job_back(maker: Sessions, dsn: str, home: Path, tmp_path: Path) -> None:
    job = await want(maker, "slow")
    with worker(dsn, home, tmp_path):
        (pid,) = await pids(home, "slow", 1)
        await reaches(maker, job, "running")
    assert not is_alive(pid)
    await reaches(maker, job, "wanted", "queued")
