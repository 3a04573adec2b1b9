"""One job, from its claim to its end. Whatever happens is in its row; nothing is raised but a cancellation."""

import asyncio
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import structlog
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from control_plane.adapters.store import wake, work
from control_plane.adapters.store.tables import JobRow
from control_plane.errors import ControlPlaneError
from control_plane.settings import WorkerSettings
from control_plane.worker import cluster_jobs, subprocesses
from control_plane.worker.subprocesses import Run

_LOOK_S = 0.5  # at cancellation requests, and the shortest time between two writes of progress
_TAIL = 2_000  # characters of the log in a failure without words of its own

log = structlog.get_logger()


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
        try:
            argv = _command(row, self.settings)
            elsewhere = row.kind == "train" and self.settings.trainer == "kubernetes"
            if argv is None:
                await self._end(
                    job_id, "failed", error=f"unknown kind: this worker carries out train and archive, not {row.kind}"
                )
                return
            await self._run(job_id, self._in_cluster(row, argv, path) if elsewhere else self._here(argv, path), path)
        except asyncio.CancelledError:  # the worker stops: the job is for the next one
            async with self.sessions.begin() as session:
                await work.release(session, job_id)
                await wake.notify(session, f"job {job_id}")
            raise
        except ControlPlaneError as exc:
            await self._end(job_id, "failed", error=exc.detail)
        except Exception as exc:
            log.exception("job failed", job=str(job_id))
            await self._end(job_id, "failed", error=f"It could not be run: {exc!r}")

    def _here(self, argv: Sequence[str], path: Path) -> AbstractAsyncContextManager[Run]:
        env = {"MLCP_HOME": str(self.settings.home), "MLCP_MLFLOW_URL": self.settings.mlflow_url}
        return subprocesses.started(argv, log=path, env=env)

    def _in_cluster(self, row: JobRow, argv: Sequence[str], path: Path) -> AbstractAsyncContextManager[Run]:
        assert row.model is not None
        ours = {"--home", str(self.settings.home)}  # a Job has a folder of its own
        arguments = [part for part in argv[argv.index("training") + 1 :] if part not in ours]
        timeout_s = int(self.settings.job_timeout_s)
        return cluster_jobs.started(self.settings, row.id, row.model, arguments, log=path, timeout_s=timeout_s)

    async def _run(self, job_id: UUID, run: AbstractAsyncContextManager[Run], path: Path) -> None:
        started, said = time.monotonic(), dict[str, Any]()
        async with run as process:
            reading = asyncio.create_task(self._read(process, said))
            why: str | None = None
            try:
                while not reading.done():
                    await asyncio.wait({reading}, timeout=_LOOK_S)
                    if time.monotonic() - started > self.settings.job_timeout_s:
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
                await self._end(job_id, "cancelled", error="It was cancelled while it ran.")
            case None if code == 0:
                await self._end(job_id, "succeeded", result=said)
            case None:
                told = said.get("detail") if said.get("event") == "failed" else None
                await self._end(job_id, "failed", error=str(told or f"It ended with {code}: {_tail(path)}"))
            case _:
                await self._end(job_id, "failed", error=why)

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

    async def _end(
        self, job_id: UUID, state: str, *, error: str | None = None, result: Mapping[str, Any] | None = None
    ) -> None:
        """Write the outcome, for as long as it takes: a result that is lost is a job done for nothing."""
        while True:
            try:
                async with self.sessions.begin() as session:
                    await work.end(session, job_id, state, now=datetime.now(UTC), error=error, result=result)
                    await wake.notify(session, f"job {job_id}")
                log.info("job over", job=str(job_id), state=state, error=error)
                return
            except (SQLAlchemyError, OSError) as exc:
                log.warning("the outcome cannot be saved yet", job=str(job_id), error=repr(exc))
                await asyncio.sleep(1)


def _command(row: JobRow, settings: WorkerSettings) -> list[str] | None:
    """What to run for this kind of job; None for a kind nobody carries out."""
    if row.kind == "erase":
        return [sys.executable, "-m", "control_plane.ingest.eraser", str(row.id)]
    if row.kind == "archive":
        return [sys.executable, "-m", "control_plane.ingest.archiver"]
    if row.kind != "train" or row.model is None:
        return None
    argv = [sys.executable, "-m", "training", "train", row.model, "--json", "--home", str(settings.home)]
    argv += ["--mlflow-url", settings.mlflow_url]
    for option in ("seed", "data"):
        if row.args.get(option) is not None:
            argv += [f"--{option}", str(row.args[option])]
    return argv


def _tail(path: Path) -> str:
    try:
        return path.read_text(errors="replace")[-_TAIL:].strip() or "it said nothing"
    except OSError:
        return "its log cannot be read"
