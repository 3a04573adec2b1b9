"""Routes of /jobs."""

import asyncio
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Depends, Query, Request, Response

from control_plane.adapters.store import jobs as store
from control_plane.api.auth import Requires, cause
from control_plane.api.body import Json
from control_plane.api.deps import Filter, IdCursor, Limit, Now, Session, uuid_cursor
from control_plane.api.once import Key, Once
from control_plane.api.problems import responses
from control_plane.contracts.base import Page
from control_plane.contracts.jobs import JobLogs, JobState, JobView
from control_plane.contracts.rollouts import ReasonSpec
from control_plane.domain.governance import Action, covers
from control_plane.errors import Conflict, Forbidden, IdempotencyMismatch, InvalidInput, NotFound, Unauthenticated
from control_plane.services import jobs
from control_plane.services.keys import Principal

router = APIRouter(prefix="/jobs", tags=["jobs"], responses=responses(Unauthenticated, Forbidden, InvalidInput))
Reader = Annotated[Principal, Depends(Requires(Action.READ))]


@router.get("")
async def list_jobs(
    session: Session,
    reader: Reader,
    model: Filter = None,
    state: JobState | None = None,
    limit: Limit = 50,
    cursor: IdCursor = None,
) -> Page[JobView]:
    """Newest first."""
    rows = await store.page(session, before=uuid_cursor(cursor), limit=limit, model=model, state=state)
    shown = [jobs.view(row) for row in rows if row.model is None or covers(reader.grant.models, row.model)]
    return Page(items=shown, next=str(rows[-1].id) if len(rows) == limit else None)


@router.get("/{job_id}", dependencies=[Depends(Requires(Action.READ))], responses=responses(NotFound))
async def get_job(job_id: UUID, session: Session) -> JobView:
    return jobs.view(await store.load(session, job_id))


@router.get("/{job_id}/logs", dependencies=[Depends(Requires(Action.READ))], responses=responses(NotFound))
async def get_job_logs(
    job_id: UUID, session: Session, offset: Annotated[int, Query(ge=0, le=2**53, description="Bytes.")] = 0
) -> JobLogs:
    """The log from `offset` on, a piece at a time; go on from `next` until `complete`."""
    row = await store.load(session, job_id)
    return await asyncio.to_thread(jobs.read_log, row, offset)


@router.post("/{job_id}/cancel", response_model=JobView, responses=responses(NotFound, Conflict, IdempotencyMismatch))
async def cancel_job(
    job_id: UUID,
    body: Json[ReasonSpec],
    request: Request,
    session: Session,
    principal: Annotated[Principal, Depends(Requires(Action.CANCEL_JOB))],
    now: Now,
    key: Key = None,
) -> JobView | Response:
    """Ask a job to stop. One that nobody has begun ends here."""

    async def act() -> JobView:
        return await jobs.cancel(session, job_id, body.reason, cause=cause(principal, request), now=now)

    return await Once(request, session, principal, key, now)(act)
