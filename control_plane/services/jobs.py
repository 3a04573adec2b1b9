"""Background jobs: wanted here, carried out by the worker."""

from datetime import datetime
from pathlib import Path
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.adapters.store import audit, erasures, rollouts, versions, wake
from control_plane.adapters.store import jobs as store
from control_plane.adapters.store.tables import JobRow
from control_plane.contracts.jobs import ErasureSpec, JobLogs, JobView
from control_plane.contracts.models import RetrainSpec
from control_plane.contracts.reports import ReportSpec
from control_plane.errors import Conflict, NotFound, Unavailable
from control_plane.services.cutover import Cause

_PIECE = 256 * 1024  # bytes of a log in one answer


def view(row: JobRow) -> JobView:
    return JobView.model_validate(row, from_attributes=True)


async def retrain(session: AsyncSession, name: str, spec: RetrainSpec, *, cause: Cause, now: datetime) -> JobView:
    """Want a new version trained. Conflict while a training of this model is under way."""
    await versions.model(session, name, lock=True)
    if (running := await store.open_training(session, name)) is not None:
        raise Conflict(f"Job {running} is training {name} already.", model=name, job=str(running))
    job_id = await store.want(session, "train", name, spec.arguments(), created_by=cause.actor.person, now=now)
    shown = view(await store.load(session, job_id))
    await wake.notify(session, f"job {job_id}")
    await _tell(session, "job.want", shown, cause, before=None, reason=spec.reason)
    return shown


async def report(session: AsyncSession, spec: ReportSpec, *, cause: Cause, now: datetime) -> JobView:
    """Want a report made. NotFound for a model, rollout or version there is none of."""
    await versions.model(session, spec.model)
    if spec.version is not None:
        await versions.version(session, spec.model, spec.version)
    if spec.rollout_id is not None and (await rollouts.load(session, spec.rollout_id)).model != spec.model:
        raise NotFound(f"Rollout {spec.rollout_id} is not one of {spec.model}.", model=spec.model)
    args = spec.model_dump(mode="json", exclude={"reason", "model"}, exclude_none=True)
    job_id = await store.want(session, "report", spec.model, args, created_by=cause.actor.person, now=now)
    shown = view(await store.load(session, job_id))
    await wake.notify(session, f"job {job_id}")
    await _tell(session, "job.want", shown, cause, before=None, reason=spec.reason)
    return shown


async def erase(session: AsyncSession, spec: ErasureSpec, *, cause: Cause, now: datetime) -> JobView:
    """Want a unit forgotten. The audit names it by a keyed hash alone, the job not at all."""
    job_id = await store.want(session, "erase", None, {}, created_by=cause.actor.person, now=now)
    unit_hash = await erasures.want(session, job_id, spec.unit_id, now=now)
    shown = view(await store.load(session, job_id))
    await wake.notify(session, f"job {job_id}")
    await audit.append(
        session,
        "unit.erase",
        actor=cause.actor,
        object=f"erasure:{job_id}",
        trigger=cause.trigger,
        after={"unit": unit_hash.hex()},
        reasons=[spec.reason],
        request_id=cause.request_id,
    )
    return shown


async def cancel(session: AsyncSession, job_id: UUID, reason: str, *, cause: Cause, now: datetime) -> JobView:
    """Ask a job to stop. Conflict when it has ended or was asked before."""
    row = await store.load(session, job_id, lock=True)
    before = view(row)
    if row.state not in store.OPEN or row.cancel_requested_at is not None:
        told = row.state if row.state not in store.OPEN else "being cancelled"
        raise Conflict(f"Job {job_id} is {told} already.", job=str(job_id))
    await store.cancel(session, job_id, now=now)
    shown = view(await store.load(session, job_id))
    await wake.notify(session, f"job {job_id}")
    await _tell(session, "job.cancel", shown, cause, before=before.state, reason=reason)
    return shown


def read_log(row: JobRow, offset: int) -> JobLogs:
    """A piece of the log file from byte `offset` on; blocking, short. A log not begun yet is empty.

    Raises Unavailable when the file is there and cannot be read.
    """
    ended = row.state not in store.OPEN
    path = Path(row.log_path) if row.log_path else None
    if path is None or not path.is_file():
        return JobLogs(text="", next=offset, complete=ended)
    try:
        with path.open("rb") as log:
            log.seek(offset)
            piece = log.read(_PIECE)
    except OSError as exc:
        raise Unavailable(f"The log of job {row.id} cannot be read: {exc.strerror}.") from exc
    whole = piece if len(piece) < _PIECE else piece[: piece.rfind(b"\n") + 1] or piece  # never half a character
    return JobLogs(
        text=whole.decode(errors="replace"), next=offset + len(whole), complete=ended and len(piece) < _PIECE
    )


async def _tell(session: AsyncSession, action: str, job: JobView, cause: Cause, *, before: object, reason: str) -> None:
    await audit.append(
        session,
        action,
        actor=cause.actor,
        object=f"job:{job.id}",
        trigger=cause.trigger,
        request_id=cause.request_id,
        before=before,
        after={"kind": job.kind, "model": job.model, "state": job.state},
        reasons=[reason],
        approver=cause.approver,
    )
