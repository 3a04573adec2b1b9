"""People are told: kept in the transaction of what happened, routed and brought by the worker."""

from collections.abc import Sequence
from datetime import datetime
from typing import cast
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.adapters.store import jobs, wake
from control_plane.adapters.store import notices as store
from control_plane.adapters.store.tables import DeliveryRow, JobRow, NoticeRow
from control_plane.contracts.jobs import JobState
from control_plane.contracts.notices import DeliveryView
from control_plane.domain import notices
from control_plane.domain.governance.policy import Severity
from control_plane.domain.notices import Notice, Route


async def tell(session: AsyncSession, notice: Notice, *, now: datetime) -> UUID | None:
    """Have it told to whoever the worker's routes name; None: it was before. No audit row: the caller has one."""
    made = await store.add(session, notice, now=now)
    if made is not None:
        args = {"notice": str(made)}
        job = await jobs.want(session, "notify", notice.model, args, created_by="notices", now=now)
        await wake.notify(session, f"job {job}")
    return made


async def route(session: AsyncSession, notice_id: UUID, routes: Sequence[Route], *, now: datetime) -> list[str]:
    """One job per receiver, so that none waits for another. Routed again, nobody is told twice."""
    row = await store.load(session, notice_id)
    told = notices.receivers(routes, event=row.event, severity=Severity(row.severity), model=row.model)
    for receiver in told:
        if (job := await store.deliver(session, row, receiver, now=now)) is not None:
            await wake.notify(session, f"job {job}")
    return told


def view(delivery: DeliveryRow, notice: NoticeRow, job: JobRow) -> DeliveryView:
    done = job.state == "succeeded"
    return DeliveryView(
        id=delivery.id,
        receiver=delivery.receiver,
        event=notice.event,
        severity=Severity(notice.severity),
        model=notice.model,
        title=notice.title,
        lines=notice.lines,
        state=cast("JobState", job.state),  # the table knows no other
        attempts=int(job.progress.get("attempt", 0)),
        error=None if done else job.error,
        at=notice.at,
        next_at=job.not_before if job.state == "wanted" else None,
        delivered_at=job.ended_at if done else None,
    )
