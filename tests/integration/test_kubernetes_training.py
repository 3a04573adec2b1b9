"""A training as a Job of the cluster: carried out by the worker's carrier, over the emulated API server."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID

import pytest
import yaml
from pydantic import SecretStr
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from control_plane.adapters.store import jobs
from control_plane.adapters.store.tables import JobRow
from control_plane.settings import WorkerSettings
from control_plane.worker.carry_out import Carrier
from tests.support.cluster import TOKEN, ClusterState, running_cluster
from tests.support.processes import eventually

pytestmark = pytest.mark.integration
Sessions = async_sessionmaker[AsyncSession]
PATTERN = Path(__file__).resolve().parents[2] / "infra" / "k8s" / "base" / "trainer.yaml"


@pytest.fixture
async def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[ClusterState]:
    state = ClusterState()
    state.put("cronjobs", yaml.safe_load(PATTERN.read_text()))
    state.logs["*"] = ["a line for people", '{"event": "registered", "detail": "done", "version": "7"}']
    async with running_cluster(state) as url:
        config = {
            "current-context": "here",
            "contexts": [{"name": "here", "context": {"cluster": "c", "user": "u", "namespace": "models"}}],
            "clusters": [{"name": "c", "cluster": {"server": url}}],
            "users": [{"name": "u", "user": {"token": TOKEN}}],
        }
        (tmp_path / "kubeconfig").write_text(yaml.safe_dump(config))
        monkeypatch.setenv("KUBECONFIG", str(tmp_path / "kubeconfig"))
        yield state


@pytest.fixture
def carrier(dsn: str, maker: Sessions, home: Path) -> Carrier:
    url = "http://mlflow-server:5000"
    return Carrier(WorkerSettings(postgres_dsn=SecretStr(dsn), home=home, trainer="kubernetes", mlflow_url=url), maker)


async def want(maker: Sessions, model: str = "churn", **args: object) -> UUID:
    async with maker.begin() as session:
        return await jobs.want(session, "train", model, args, created_by="test", now=datetime.now(UTC))


async def row(maker: Sessions, job: UUID) -> JobRow:
    async with maker() as session:
        found = await session.get(JobRow, job)
        assert found is not None
        return found


async def test_a_training_is_a_copy_of_the_trainer_and_its_log_is_the_jobs(
    carrier: Carrier, maker: Sessions, state: ClusterState
) -> None:
    job = await want(maker, seed=3)
    await carrier(job)
    ended = await row(maker, job)
    assert (ended.state, ended.result) == ("succeeded", {"event": "registered", "detail": "done", "version": "7"})
    assert "a line for people" in _log(ended)
    (name,) = state.named("jobs")
    assert name == f"train-churn-{job.hex[-8:]}"
    container = state.objects["jobs", name]["spec"]["template"]["spec"]["containers"][0]
    assert container["args"] == ["train", "churn", "--json", "--mlflow-url", "http://mlflow-server:5000", "--seed", "3"]
    assert container["image"] == "mlcp-trainer"


async def test_a_training_that_fails_says_why_in_its_own_words(
    carrier: Carrier, maker: Sessions, state: ClusterState
) -> None:
    state.job_exit, state.logs["*"] = 4, ['{"event": "failed", "detail": "The data was refused."}']
    job = await want(maker)
    await carrier(job)
    ended = await row(maker, job)
    assert (ended.state, ended.error) == ("failed", "The data was refused.")


async def test_a_cluster_without_the_pattern_is_an_error_that_names_it(
    carrier: Carrier, maker: Sessions, state: ClusterState
) -> None:
    state.remove("cronjobs", "trainer")
    job = await want(maker)
    await carrier(job)
    assert "no CronJob trainer to copy" in str((await row(maker, job)).error)


async def test_a_worker_that_stops_leaves_the_training_to_the_next_one_which_reads_each_line_once(
    carrier: Carrier, maker: Sessions, state: ClusterState
) -> None:
    state.jobs_hold = True
    job = await want(maker)
    first = asyncio.create_task(carrier(job))
    await eventually(lambda: _noted(maker, job), what="progress is noted")
    state.cut_watches()  # a log that breaks off is read on
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    assert len(state.named("jobs")) == 1
    second = asyncio.create_task(carrier(job))
    await eventually(lambda: _noted(maker, job), what="it is read again")
    state.jobs_hold = False
    await second
    assert (await row(maker, job)).state == "succeeded"
    assert state.count("PATCH", "/jobs") == 1


async def test_a_cancelled_training_is_removed_from_the_cluster(
    carrier: Carrier, maker: Sessions, state: ClusterState
) -> None:
    state.jobs_hold = True
    job = await want(maker)
    running = asyncio.create_task(carrier(job))
    await eventually(lambda: _noted(maker, job), what="it runs")
    async with maker.begin() as session:
        await jobs.cancel(session, job, now=datetime.now(UTC))
    await running
    assert (await row(maker, job)).state == "cancelled"
    assert state.named("jobs") == []


async def _noted(maker: Sessions, job: UUID) -> bool:
    found = await row(maker, job)
    return found.state == "running" and "event" in found.progress  # the count of attempts is there from the claim on


def _log(row: JobRow) -> str:
    return Path(str(row.log_path)).read_text()
