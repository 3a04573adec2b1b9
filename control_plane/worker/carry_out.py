"""One job, from its claim to its end. Whatever happens is in its row; nothing is raised but a cancellation."""

import asyncio
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import structlog
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from control_plane.adapters.objects import Objects, below, location
from control_plane.adapters.store import jobs, wake, work
from control_plane.adapters.store.tables import JobRow
from control_plane.domain.retraining import FOLDER, Source, file_of
from control_plane.errors import ControlPlaneError, InvalidConfig, NotFound
from control_plane.services import retraining
from control_plane.settings import WorkerSettings
from control_plane.worker import cluster_jobs, notifier, subprocesses
from control_plane.worker.subprocesses import Run

_LOOK_S = 0.5  # at cancellation requests, and the shortest time between two writes of progress
_KNOWN_WITHIN_S = 300.0  # that the reconciler takes to find what was registered
_TAIL = 2_000  # characters of the log in a failure without words of its own

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Ended:
    """How a run of a process, or a job, ended. `said`: the last JSON it printed, and what was made of it."""

    state: str  # succeeded, failed or cancelled
    error: str | None = None
    said: Mapping[str, Any] = field(default_factory=dict[str, Any])


@dataclass(frozen=True, slots=True)
class Carrier:
    settings: WorkerSettings
    sessions: async_sessionmaker[AsyncSession]

    async def __call__(self, job_id: UUID) -> None:
        path = self.settings.home / "jobs" / f"{job_id}.log"
        async with self.sessions.begin() as session:
            row = await work.claim(session, job_id, log_path=str(path), now=datetime.now(UTC))
        if row is None:
            return
        log.info("job begun", job=str(job_id), kind=row.kind, model=row.model)
        deadline = time.monotonic() + self.settings.job_timeout_s
        try:
            if row.kind == "notify":
                await notifier.carry_out(self.settings, self.sessions, row)
                return
            if row.kind == "train" and row.args.get("source"):
                ended = await self._retrain(row, path, deadline)
            elif (argv := _command(row, self.settings)) is not None:
                ended = await self._run(job_id, self._where(row, argv, path), path, deadline)
            else:
                ended = Ended("failed", f"unknown kind: this worker does not carry out {row.kind}")
        except asyncio.CancelledError:  # the worker stops: the job is for the next one
            async with self.sessions.begin() as session:
                await work.release(session, job_id)
                await wake.notify(session, f"job {job_id}")
            raise
        except ControlPlaneError as exc:
            ended = Ended("failed", exc.detail)
        except Exception as exc:
            log.exception("job failed", job=str(job_id))
            ended = Ended("failed", f"It could not be run: {exc!r}")
        await self._end(row, ended)

    async def _retrain(self, row: JobRow, path: Path, deadline: float) -> Ended:
        """Gather where the rows are of the log, train, and leave what follows to the job's end."""
        argv = _command(row, self.settings)
        assert argv is not None
        if row.args["source"] != Source.ARCHIVE:
            return await self._run(row.id, self._where(row, argv, path), path, deadline)
        url = location(self.settings.archive_url, self.settings.home)
        if self.settings.trainer == "kubernetes" and url.startswith("file:"):
            raise InvalidConfig("The trainer runs in the cluster and the archive is a folder of the worker's host: "
                                "set MLCP_ARCHIVE_URL to a bucket.")  # fmt: skip
        collector = [sys.executable, "-m", "control_plane.ingest.collector", str(row.id)]
        rows, name = Objects(url, FOLDER), file_of(row.id)
        try:
            gathered = await self._run(row.id, self._here(collector, path), path, deadline)
            if gathered.state != "succeeded":
                return gathered
            argv += ["--logged", below(url, f"{FOLDER}/{name}")]
            ended = await self._run(row.id, self._where(row, argv, path), path, deadline)
        finally:
            await asyncio.to_thread(rows.remove, name)
        return replace(ended, said={**ended.said, "gathered": gathered.said.get("gathered")})

    def _where(self, row: JobRow, argv: Sequence[str], path: Path) -> AbstractAsyncContextManager[Run]:
        elsewhere = row.kind == "train" and self.settings.trainer == "kubernetes"
        return self._in_cluster(row, argv, path) if elsewhere else self._here(argv, path)

    def _here(self, argv: Sequence[str], path: Path) -> AbstractAsyncContextManager[Run]:
        env = {"MLCP_HOME": str(self.settings.home), "MLCP_MLFLOW_URL": self.settings.mlflow_url}
        return subprocesses.started(argv, log=path, env=env)

    def _in_cluster(self, row: JobRow, argv: Sequence[str], path: Path) -> AbstractAsyncContextManager[Run]:
        assert row.model is not None
        ours = {"--home", str(self.settings.home)}  # a Job has a folder of its own
        arguments = [part for part in argv[argv.index("training") + 1 :] if part not in ours]
        timeout_s = int(self.settings.job_timeout_s)
        return cluster_jobs.started(self.settings, row.id, row.model, arguments, log=path, timeout_s=timeout_s)

    async def _run(self, job_id: UUID, run: AbstractAsyncContextManager[Run], path: Path, deadline: float) -> Ended:
        said = dict[str, Any]()
        async with run as process:
            reading = asyncio.create_task(self._read(process, said))
            why: str | None = None
            try:
                while not reading.done():
                    await asyncio.wait({reading}, timeout=_LOOK_S)
                    if time.monotonic() > deadline:
                        why = f"It took longer than {self.settings.job_timeout_s:.0f} s and was stopped."
                        break
                    if await self._note(job_id, said):
                        why = "cancelled"
                        break
                if why is not None:
                    await process.stop()
                await reading
                code = await process.wait()
            finally:
                reading.cancel()
        await self._note(job_id, said)
        match why:
            case "cancelled":
                return Ended("cancelled", "It was cancelled while it ran.")
            case None if code == 0:
                return Ended("succeeded", said=said)
            case None:
                told = said.get("detail") if said.get("event") == "failed" else None
                return Ended("failed", str(told or f"It ended with {code}: {_tail(path)}"))
            case _:
                return Ended("failed", why)

    async def _read(self, process: Run, said: dict[str, Any]) -> None:
        async for line in process.lines():
            said.clear()
            said.update(line)

    async def _note(self, job_id: UUID, said: Mapping[str, Any]) -> bool:
        """Save the last line; True if somebody asks the job to stop. A database that is away delays both."""
        try:
            async with self.sessions.begin() as session:
                await work.progress(session, job_id, said)
                return await work.cancel_requested(session, job_id)
        except (SQLAlchemyError, OSError) as exc:
            log.warning("progress cannot be saved", job=str(job_id), error=repr(exc))
            return False

    async def _end(self, row: JobRow, ended: Ended) -> None:
        """Write the outcome, for as long as it takes: a result that is lost is a job done for nothing.

        What a retraining came to is settled in the same transaction: its version is in Staging exactly if its job says
        so.
        """
        begun = time.monotonic()
        while True:
            try:
                async with self.sessions.begin() as session:
                    ended = await self._settled(session, row, ended, waited_s=time.monotonic() - begun)
                    now = datetime.now(UTC)
                    if ended.state == "failed" and row.args.get("source") and row.model:
                        await retraining.failed(session, row.model, row.id, ended.error or "", now=now)
                    await work.end(session, row.id, ended.state, now=now, error=ended.error, result=ended.said)
                    if ended.state == "succeeded" and (report := _report_of(row, ended.said)):
                        await jobs.want(session, "report", *report, created_by="schedule", now=now)
                    await wake.notify(session, f"job {row.id}")
                log.info("job over", job=str(row.id), state=ended.state, error=ended.error)
                return
            except NotFound:
                await asyncio.sleep(_LOOK_S)  # the reconciler has not seen the version yet
            except (SQLAlchemyError, OSError) as exc:
                log.warning("the outcome cannot be saved yet", job=str(row.id), error=repr(exc))
                await asyncio.sleep(1)
            except Exception as exc:
                if ended.state == "failed":
                    raise
                log.exception("a result cannot be settled", job=str(row.id))
                ended = Ended("failed", f"What it came to cannot be settled: {exc!r}", ended.said)

    async def _settled(self, session: AsyncSession, row: JobRow, ended: Ended, *, waited_s: float) -> Ended:
        """Raises NotFound while the version is to come."""
        if ended.state != "succeeded" or not row.args.get("source") or row.model is None:
            return ended
        try:
            more = await retraining.settle(session, row.model, row.id, ended.said, now=datetime.now(UTC))
        except NotFound as exc:
            if waited_s < _KNOWN_WITHIN_S:
                raise
            why = f"Version {ended.said.get('version')} was registered and is not known here yet: {exc.detail}"
            return Ended("failed", why, ended.said)
        return replace(ended, said={**ended.said, **more})


def _report_of(row: JobRow, said: Mapping[str, Any]) -> tuple[str, dict[str, Any]] | None:
    """Model and arguments of the report a job's success asks for: a training that registered a version does."""
    version = said.get("version")
    if row.kind != "train" or row.model is None or version is None:
        return None
    return row.model, {"kind": "retraining", "version": str(version)}


def _command(row: JobRow, settings: WorkerSettings) -> list[str] | None:
    """What to run for this kind of job; None for a kind nobody carries out."""
    if row.kind == "erase":
        return [sys.executable, "-m", "control_plane.ingest.eraser", str(row.id)]
    if row.kind == "report":
        return [sys.executable, "-m", "control_plane.worker.reporter", str(row.id)]
    if row.kind == "replay":
        return [sys.executable, "-m", "control_plane.ingest.replayer", str(row.id)]
    if row.kind == "archive":
        return [sys.executable, "-m", "control_plane.ingest.archiver"]
    if row.kind != "train" or row.model is None:
        return None
    argv = [sys.executable, "-m", "training", "train", row.model, "--json", "--home", str(settings.home)]
    argv += ["--mlflow-url", settings.mlflow_url]
    if row.args.get("source"):
        argv += ["--job", str(row.id)]
    for option in ("seed", "data"):
        if row.args.get(option) is not None:
            argv += [f"--{option}", str(row.args[option])]
    return argv


def _tail(path: Path) -> str:
    try:
        return path.read_text(errors="replace")[-_TAIL:].strip() or "it said nothing"
    except OSError:
        return "its log cannot be read"
