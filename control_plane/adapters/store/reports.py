"""Reports, as the database knows them."""

from collections.abc import Sequence
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.adapters.store.tables import ReportRow
from control_plane.errors import NotFound


async def save(session: AsyncSession, row: ReportRow) -> None:
    """In place of an earlier attempt of the same job."""
    await session.merge(row)


async def load(session: AsyncSession, report_id: UUID) -> ReportRow:
    row = await session.get(ReportRow, report_id)
    if row is None:
        raise NotFound(f"There is no report {report_id}; one just asked for takes a moment.", report=str(report_id))
    return row


async def page(
    session: AsyncSession, *, before: UUID | None, limit: int, model: str | None, kind: str | None
) -> Sequence[ReportRow]:
    """Newest first (ids are UUIDv7), `before` excluded."""
    query = select(ReportRow).order_by(ReportRow.id.desc()).limit(limit)
    for column, value in ((ReportRow.model, model), (ReportRow.kind, kind)):
        query = query if value is None else query.where(column == value)
    if before is not None:
        query = query.where(ReportRow.id < before)
    return (await session.scalars(query)).all()
