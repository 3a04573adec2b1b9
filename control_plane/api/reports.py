"""Routes of /reports."""

import asyncio
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Depends, Request, Response

from control_plane.adapters.objects import Objects, location
from control_plane.adapters.store import reports as store
from control_plane.api.auth import Requires, cause, permit
from control_plane.api.deps import Filter, IdCursor, Limit, Now, Session, Settings, uuid_cursor
from control_plane.api.once import Key, Once
from control_plane.api.problems import responses
from control_plane.contracts import reports as wire
from control_plane.contracts.base import Page
from control_plane.contracts.jobs import JobView
from control_plane.contracts.reports import ReportSpec, ReportView
from control_plane.domain.governance import Action, covers
from control_plane.domain.reports.facts import Kind
from control_plane.errors import Forbidden, IdempotencyMismatch, InvalidInput, NotFound, Unauthenticated, Unavailable
from control_plane.services import jobs, reports
from control_plane.services.keys import Principal
from control_plane.settings import ApiSettings

router = APIRouter(prefix="/reports", tags=["reports"], responses=responses(Unauthenticated, Forbidden, InvalidInput))
Reader = Annotated[Principal, Depends(Requires(Action.READ))]


@router.get("")
async def list_reports(
    session: Session,
    reader: Reader,
    model: Filter = None,
    kind: Kind | None = None,
    limit: Limit = 50,
    cursor: IdCursor = None,
) -> Page[ReportView]:
    """Newest first, of the models the key covers."""
    rows = await store.page(session, before=uuid_cursor(cursor), limit=limit, model=model, kind=kind)
    shown = [reports.view(row) for row in rows if covers(reader.grant.models, row.model)]
    return Page(items=shown, next=str(rows[-1].id) if len(rows) == limit else None)


@router.post("", status_code=202, response_model=JobView, responses=responses(NotFound, IdempotencyMismatch))
async def make_report(
    body: ReportSpec,
    request: Request,
    session: Session,
    principal: Annotated[Principal, Depends(Requires(Action.MAKE_REPORT))],
    now: Now,
    key: Key = None,
) -> JobView | Response:
    """Have a report made by the worker. Its id is the job's."""
    permit(principal, Action.MAKE_REPORT, body.model)

    async def act() -> JobView:
        return await jobs.report(session, body, cause=cause(principal, request), now=now)

    return await Once(request, session, principal, key, now)(act, status=202)


@router.get("/schema", dependencies=[Depends(Requires(Action.READ))])
async def report_schema() -> dict[str, Any]:
    """JSON schema of a report's JSON document."""
    return wire.schema()


_JSON: dict[int | str, dict[str, Any]] = {200: {"content": {"application/json": {"schema": {"type": "object"}}}}}
_PDF: dict[int | str, dict[str, Any]] = {
    200: {"content": {"application/pdf": {"schema": {"type": "string", "format": "binary"}}}}
}


@router.get("/{report_id}.json", response_class=Response, responses={**responses(NotFound, Unavailable), **_JSON})
async def get_report_json(report_id: UUID, session: Session, reader: Reader, settings: Settings) -> Response:
    """The document; GET /reports/schema describes it."""
    return await _file(report_id, "json", "application/json", session, reader, settings)


@router.get("/{report_id}.pdf", response_class=Response, responses={**responses(NotFound, Unavailable), **_PDF})
async def get_report_pdf(report_id: UUID, session: Session, reader: Reader, settings: Settings) -> Response:
    """The same facts, to print."""
    return await _file(report_id, "pdf", "application/pdf", session, reader, settings)


@router.get("/{report_id}", responses=responses(NotFound))
async def get_report(report_id: UUID, session: Session, reader: Reader) -> ReportView:
    """What it is about, its summary and the digests of its two forms."""
    row = await store.load(session, report_id)
    permit(reader, Action.READ, row.model)
    return reports.view(row)


async def _file(
    report_id: UUID, form: str, kind: str, session: Session, reader: Principal, settings: ApiSettings
) -> Response:
    row = await store.load(session, report_id)
    permit(reader, Action.READ, row.model)
    objects = Objects(location(settings.archive_url, settings.home), reports.FOLDER)
    content = await asyncio.to_thread(objects.read, reports.file(report_id, form))
    name = f"{row.kind}_report-{row.model}-{row.made_at:%Y%m%dT%H%M%SZ}.{form}"
    return Response(content, media_type=kind, headers={"Content-Disposition": f'attachment; filename="{name}"'})
