"""Routes of /approvals: what waits for a second person."""

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Depends, Header, Query, Request, Response

from control_plane.adapters.store import approvals as store
from control_plane.api.auth import Requires, cause
from control_plane.api.body import Json
from control_plane.api.deps import Filter, IdCursor, Limit, Now, PolicyDep, Session, uuid_cursor
from control_plane.api.once import Key, Once
from control_plane.api.problems import responses
from control_plane.contracts.approvals import ApprovalView
from control_plane.contracts.base import Page
from control_plane.contracts.rollouts import ReasonSpec
from control_plane.domain.governance import Action, Role, covers
from control_plane.domain.governance.approvals import State
from control_plane.errors import (
    Conflict,
    Forbidden,
    GatesNotMet,
    IdempotencyMismatch,
    InvalidInput,
    NotFound,
    PreconditionRequired,
    StaleProposal,
    StaleRevision,
    Unauthenticated,
)
from control_plane.services import approvals
from control_plane.services.keys import Principal

router = APIRouter(
    prefix="/approvals", tags=["approvals"], responses=responses(Unauthenticated, Forbidden, InvalidInput)
)
Reader = Annotated[Principal, Depends(Requires(Action.READ))]
Match = Annotated[str, Header(alias="If-Match", description="The ETag of GET /approvals/{id}.")]
_CHANGES = responses(NotFound, Conflict, StaleRevision, IdempotencyMismatch, PreconditionRequired)


@router.get("")
async def list_approvals(
    session: Session,
    reader: Reader,
    state: Annotated[State | None, Query(description="Only those in this state.")] = None,
    model: Filter = None,
    limit: Limit = 50,
    cursor: IdCursor = None,
) -> Page[ApprovalView]:
    """Newest first."""
    entries = await store.page(session, before=uuid_cursor(cursor), limit=limit, state=state, model=model)
    shown = [approvals.view(e) for e in entries if e.row.model is None or covers(reader.grant.models, e.row.model)]
    return Page(items=shown, next=str(entries[-1].row.id) if len(entries) == limit else None)


@router.get("/{approval_id}", dependencies=[Depends(Requires(Action.READ))], responses=responses(NotFound))
async def get_approval(approval_id: UUID, session: Session, response: Response) -> ApprovalView:
    """What would happen and on what grounds. Its ETag, in If-Match, says what exactly is agreed to."""
    entry = await store.load(session, approval_id)
    response.headers["ETag"] = approvals.etag(entry)
    return approvals.view(entry)


@router.post(
    "/{approval_id}/approve",
    response_model=ApprovalView,
    responses=_CHANGES | responses(Conflict, StaleRevision, StaleProposal, GatesNotMet),
)
async def approve(
    approval_id: UUID,
    body: Json[ReasonSpec],
    request: Request,
    session: Session,
    principal: Annotated[Principal, Depends(Requires(Action.APPROVE))],
    policy: PolicyDep,
    now: Now,
    if_match: Match,
    key: Key = None,
) -> ApprovalView | Response:
    """Agree. With the last person needed it is carried out, in the same transaction. Its author cannot."""
    match = seen(if_match)

    async def act() -> ApprovalView:
        why = cause(principal, request)
        return await approvals.approve(session, approval_id, match, body.reason, platform=policy, cause=why, now=now)

    return await Once(request, session, principal, key, now)(act)


@router.post("/{approval_id}/reject", response_model=ApprovalView, responses=_CHANGES)
async def reject(
    approval_id: UUID,
    body: Json[ReasonSpec],
    request: Request,
    session: Session,
    principal: Annotated[Principal, Depends(Requires(Action.APPROVE))],
    now: Now,
    if_match: Match,
    key: Key = None,
) -> ApprovalView | Response:
    """Refuse it, for everybody. Its author withdraws instead."""
    match = seen(if_match)

    async def act() -> ApprovalView:
        why = cause(principal, request)
        return await approvals.reject(session, approval_id, match, body.reason, cause=why, now=now)

    return await Once(request, session, principal, key, now)(act)


@router.post("/{approval_id}/withdraw", response_model=ApprovalView, responses=_CHANGES)
async def withdraw(
    approval_id: UUID,
    body: Json[ReasonSpec],
    request: Request,
    session: Session,
    principal: Annotated[Principal, Depends(Requires(Action.WITHDRAW))],
    now: Now,
    if_match: Match,
    key: Key = None,
) -> ApprovalView | Response:
    """Take it back: its author, or an admin."""
    match, admin = seen(if_match), principal.grant.role is Role.ADMIN

    async def act() -> ApprovalView:
        why = cause(principal, request)
        return await approvals.withdraw(session, approval_id, match, body.reason, admin=admin, cause=why, now=now)

    return await Once(request, session, principal, key, now)(act)


def seen(if_match: str) -> str:
    """The ETag sent: nobody decides on what he has not seen."""
    return if_match.strip().removeprefix("W/")
