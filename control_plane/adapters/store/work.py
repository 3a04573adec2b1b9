"""Jobs as the worker sees them: claimed, under way, over."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import cast, func, or_, select, update
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.adapters.store.tables import JobRow


async def wanted(session: AsyncSession) -> Sequence[tuple[UUID, str, str | None]]:
    """Id, kind and receiver of jobs nobody has put into the queue yet and whose time has come, oldest first."""
    due = or_(JobRow.not_before.is_(None), JobRow.not_before <= func.now())
    receiver = JobRow.args["receiver"].astext
    query = select(JobRow.id, JobRow.kind, receiver).where(JobRow.state == "wanted", due).order_by(JobRow.id)
    return [(job, kind, named) for job, kind, named in await session.execute(query)]


async def later(session: AsyncSession, job_id: UUID, *, at: datetime, why: str) -> None:
    """Give a running job back, to be tried again at `at`."""
    mine = update(JobRow).where(JobRow.id == job_id, JobRow.state == "running")
    await session.execute(mine.values(state="wanted", not_before=at, error=why))


async def queued(session: AsyncSession, job_id: UUID) -> None:
    await session.execute(update(JobRow).where(JobRow.id == job_id, JobRow.state == "wanted").values(state="queued"))


async def claim(session: AsyncSession, job_id: UUID, *, log_path: str, now: datetime) -> JobRow | None:
    """Make this process the one that runs it, and count the attempt; None if it runs, or is over, already.

    One that was cancelled before it began is over now.
    """
    row = await session.scalar(select(JobRow).where(JobRow.id == job_id).with_for_update())
    if row is None or row.state not in {"wanted", "queued"}:
        return None
    if row.cancel_requested_at is not None:
        row.state, row.ended_at = "cancelled", now
        return None
    row.state, row.started_at, row.log_path = "running", row.started_at or now, log_path
    row.progress = {"attempt": int(row.progress.get("attempt", 0)) + 1}
    await session.flush()
    return row


async def progress(session: AsyncSession, job_id: UUID, said: Mapping[str, Any]) -> None:
    """Merge `said` into the progress of a running job, where that is news."""
    merged = JobRow.progress.op("||")(cast(dict(said), JSONB))
    mine = update(JobRow).where(JobRow.id == job_id, JobRow.state == "running", JobRow.progress != merged)
    await session.execute(mine.values(progress=merged))


async def cancel_requested(session: AsyncSession, job_id: UUID) -> bool:
    return await session.scalar(select(JobRow.cancel_requested_at).where(JobRow.id == job_id)) is not None


async def release(session: AsyncSession, job_id: UUID) -> None:
    """Give a running job back: it was stopped for no fault of its own."""
    await session.execute(update(JobRow).where(JobRow.id == job_id, JobRow.state == "running").values(state="wanted"))


async def end(
    session: AsyncSession,
    job_id: UUID,
    state: str,
    *,
    now: datetime,
    error: str | None = None,
    result: Mapping[str, Any] | None = None,
) -> None:
    """succeeded, failed or cancelled. Nothing happens to a job that is over already."""
    values = {"state": state, "ended_at": now, "error": error, "result": dict(result) if result else None}
    await session.execute(
        update(JobRow).where(JobRow.id == job_id, JobRow.state.in_(["wanted", "queued", "running"])).values(values)
    )
