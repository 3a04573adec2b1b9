"""Routes of /audit."""

from fastapi import APIRouter, Depends
from pydantic import AwareDatetime

from control_plane.api.auth import Requires
from control_plane.api.deps import Cursor, Filter, Limit, Session, number_cursor
from control_plane.api.problems import responses
from control_plane.contracts.audit import AuditVerification, AuditView
from control_plane.contracts.base import Page
from control_plane.domain.governance import Action
from control_plane.errors import Forbidden, InvalidInput, Unauthenticated
from control_plane.services import audit

router = APIRouter(
    prefix="/audit",
    tags=["audit"],
    dependencies=[Depends(Requires(Action.READ_AUDIT))],
    responses=responses(Unauthenticated, Forbidden, InvalidInput),
)


@router.get("")
async def list_audit(
    session: Session,
    action: Filter = None,
    object: Filter = None,
    actor: Filter = None,
    since: AwareDatetime | None = None,
    until: AwareDatetime | None = None,
    limit: Limit = 50,
    cursor: Cursor = None,
) -> Page[AuditView]:
    """Links of the chain, newest first. `object` is kind:name, such as model:fraud."""
    before = number_cursor(cursor)
    found = await audit.page(
        session, before=before, limit=limit, action=action, object=object, actor=actor, since=since, until=until
    )
    return Page(items=found, next=str(found[-1].seq) if len(found) == limit else None)


@router.get("/verify")
async def verify_audit(session: Session) -> AuditVerification:
    """Walk the whole chain and recompute every hash."""
    return await audit.verify(session)
