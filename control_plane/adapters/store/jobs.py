"""Jobs wanted: rows written in the transaction that wants them."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import insert, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.adapters.store import ids
from control_plane.adapters.store.tables import JobRow
from control_plane.errors import NotFound

OPEN = ("wanted", "queued", "running")


async def want(
    session: AsyncSession, kind: str, model: str | None, args: Mapping[str, Any], *, created_by: str, now: datetime
) -> UUID:
    """A second open training of one model violates `one_training_per_model` (IntegrityError)."""
    new = ids.new()
    facts = {"id": new, "kind": kind, "model": model, "args": dict(args), "state": "wanted", "progress": {}}
    await session.execute(insert(JobRow).values(**facts, created_at=now, created_by=created_by))
    return new


async def load(session: AsyncSession, job_id: UUID, *, lock: bool = False) -> JobRow:
    query = select(JobRow).where(JobRow.id == job_id)
    row = await session.scalar(
        query.with_for_update() if lock else query, execution_options={"populate_existing": True}
    )
    if row is None:
        raise NotFound(f"There is no job {job_id}.", job=str(job_id))
    return row


async def open_training(session: AsyncSession, model: str) -> UUID | None:
    query = select(JobRow.id).where(JobRow.model == model, JobRow.kind == "train", JobRow.state.in_(OPEN))
    return await session.scalar(query)


async def reported(session: AsyncSession, month: str) -> set[str]:
    """Models whose report of the month, written YYYY-MM, is made or wanted already."""
    mine = (JobRow.kind == "report", JobRow.args["kind"].astext == "monthly", JobRow.args["month"].astext == month)
    names = await session.scalars(select(JobRow.model).where(*mine, JobRow.state.not_in(("failed", "cancelled"))))
    return {name for name in names if name is not None}


async def page(
    session: AsyncSession, *, before: UUID | None, limit: int, model: str | None, state: str | None
) -> list[JobRow]:
    """Newest first."""
    query = select(JobRow).order_by(JobRow.id.desc()).limit(limit)
    if before is not None:
        query = query.where(JobRow.id < before)
    if model is not None:
        query = query.where(JobRow.model == model)
    if state is not None:
        query = query.where(JobRow.state == state)
    return list(await session.scalars(query))


async def cancel(session: AsyncSession, job_id: UUID, *, now: datetime) -> None:
    """One nobody has begun ends here; a running one is asked to."""
    mine = update(JobRow).where(JobRow.id == job_id)
    await session.execute(
        mine.where(JobRow.state == "wanted").values(state="cancelled", ended_at=now, cancel_requested_at=now)
    )
    await session.execute(mine.where(JobRow.cancel_requested_at.is_(None)).values(cancel_requested_at=now))
