"""Routes of /notifications: what people were told, and whether it reached them."""

from typing import Annotated

from fastapi import APIRouter, Depends, Request, Response

from control_plane.adapters.store import audit, ids
from control_plane.adapters.store import notices as store
from control_plane.api.auth import Requires, cause
from control_plane.api.deps import Filter, IdCursor, Limit, Now, Session, uuid_cursor
from control_plane.api.once import Key, Once
from control_plane.api.problems import responses
from control_plane.contracts.base import Page
from control_plane.contracts.notices import DeliveryView, NoticeSpec, NoticeTold
from control_plane.domain.governance import Action, covers
from control_plane.domain.notices import Notice
from control_plane.errors import Forbidden, IdempotencyMismatch, InvalidInput, Unauthenticated
from control_plane.services import notices
from control_plane.services.keys import Principal

router = APIRouter(
    prefix="/notifications", tags=["notifications"], responses=responses(Unauthenticated, Forbidden, InvalidInput)
)


@router.get("")
async def list_notifications(
    session: Session,
    reader: Annotated[Principal, Depends(Requires(Action.READ))],
    model: Filter = None,
    limit: Limit = 50,
    cursor: IdCursor = None,
) -> Page[DeliveryView]:
    """Deliveries, newest first, of the models the key covers: one per notice and receiver."""
    rows = await store.page(session, before=uuid_cursor(cursor), limit=limit, model=model)
    shown = [notices.view(*row) for row in rows if row[1].model is None or covers(reader.grant.models, row[1].model)]
    return Page(items=shown, next=str(rows[-1][0].id) if len(rows) == limit else None)


@router.post("/try", status_code=202, response_model=NoticeTold, responses=responses(IdempotencyMismatch))
async def try_notification(
    body: NoticeSpec,
    request: Request,
    session: Session,
    principal: Annotated[Principal, Depends(Requires(Action.TRY_NOTICE))],
    now: Now,
    key: Key = None,
) -> NoticeTold | Response:
    """Tell the receivers of a severity that this is a trial."""

    async def act() -> NoticeTold:
        asked = cause(principal, request)
        lines = (f"A trial by {asked.actor.person}: {body.reason}",)
        notice = Notice(f"test:{ids.new()}", "test", body.severity, None, "Trial of notifications", lines)
        made = await notices.tell(session, notice, now=now)
        assert made is not None
        await audit.append(
            session,
            "notice.try",
            actor=asked.actor,
            object=f"notice:{made}",
            trigger=asked.trigger,
            request_id=asked.request_id,
            after={"severity": body.severity},
            reasons=[body.reason],
        )
        return NoticeTold(notice=made)

    return await Once(request, session, principal, key, now)(act, status=202)
