"""Notices and their deliveries in the database."""

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.adapters.store import ids, jobs
from control_plane.adapters.store.tables import DeliveryRow, JobRow, NoticeRow
from control_plane.domain.notices import Notice
from control_plane.errors import NotFound


async def add(session: AsyncSession, notice: Notice, *, now: datetime) -> UUID | None:
    """Its id; None: it is there already."""
    facts = {name: getattr(notice, name) for name in ("key", "event", "severity", "model", "title", "path")}
    new = insert(NoticeRow).values(id=ids.new(), lines=list(notice.lines), at=now, **facts)
    return await session.scalar(new.on_conflict_do_nothing(index_elements=["key"]).returning(NoticeRow.id))


async def load(session: AsyncSession, notice_id: UUID) -> NoticeRow:
    row = await session.get(NoticeRow, notice_id)
    if row is None:
        raise NotFound(f"There is no notice {notice_id}.", notice=str(notice_id))
    return row


async def deliver(session: AsyncSession, notice: NoticeRow, receiver: str, *, now: datetime) -> UUID | None:
    """Want the notice brought to a receiver; None: that is wanted, or done, already."""
    args = {"notice": str(notice.id), "receiver": receiver}
    job = await jobs.want(session, "notify", notice.model, args, created_by="notices", now=now)
    mine = insert(DeliveryRow).values(id=job, notice_id=notice.id, receiver=receiver)
    known = ["notice_id", "receiver"]
    made = await session.scalar(mine.on_conflict_do_nothing(index_elements=known).returning(DeliveryRow.id))
    if made is None:
        await session.delete(await jobs.load(session, job))
    return made


async def page(
    session: AsyncSession, *, before: UUID | None, limit: int, model: str | None
) -> Sequence[tuple[DeliveryRow, NoticeRow, JobRow]]:
    """Deliveries, newest first (ids are UUIDv7), `before` excluded."""
    query = (
        select(DeliveryRow, NoticeRow, JobRow)
        .join(NoticeRow, NoticeRow.id == DeliveryRow.notice_id)
        .join(JobRow, JobRow.id == DeliveryRow.id)
        .order_by(DeliveryRow.id.desc())
        .limit(limit)
    )
    query = query if before is None else query.where(DeliveryRow.id < before)
    query = query if model is None else query.where(NoticeRow.model == model)
    return [(delivery, notice, job) for delivery, notice, job in await session.execute(query)]
