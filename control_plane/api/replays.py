"""Routes of /models/{m}/replay and /models/{m}/replays: candidates over logged traffic."""

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Depends, Request, Response

from control_plane.api.auth import Requires, cause
from control_plane.api.deps import IdCursor, Limit, Now, Session, uuid_cursor
from control_plane.api.once import Key, Once
from control_plane.api.problems import responses
from control_plane.contracts.base import Page
from control_plane.contracts.replays import ReplaySpec, ReplayView
from control_plane.domain.governance import Action
from control_plane.errors import Forbidden, IdempotencyMismatch, InvalidInput, NotFound, Unauthenticated
from control_plane.services import replays
from control_plane.services.keys import Principal

_ALWAYS = (Unauthenticated, Forbidden, NotFound, InvalidInput)
router = APIRouter(prefix="/models/{model}", tags=["replays"], responses=responses(*_ALWAYS))


@router.post("/replay", status_code=202, response_model=ReplayView, responses=responses(*_ALWAYS, IdempotencyMismatch))
async def replay(
    model: str,
    body: ReplaySpec,
    request: Request,
    session: Session,
    principal: Annotated[Principal, Depends(Requires(Action.REPLAY))],
    now: Now,
    key: Key = None,
) -> ReplayView | Response:
    """Run a candidate over logged traffic in the background: what would have changed. Nothing else changes.

    Where the same question has been answered, or is being answered, that is the answer: same artifacts, sample and
    segment, a window that differs by a twentieth at most. `anew` asks again.

    Candidate and baseline have to be two versions that answer the same question, over a window in the past; without a
    baseline, some version has to be Production. Else 422 with every reason.
    """

    async def act() -> ReplayView:
        return await replays.request(session, model, body, cause=cause(principal, request), now=now)

    return await Once(request, session, principal, key, now)(act, status=202)


@router.get("/replays", dependencies=[Depends(Requires(Action.READ))])
async def list_replays(model: str, session: Session, limit: Limit = 50, cursor: IdCursor = None) -> Page[ReplayView]:
    """Newest first, each in sentences; the whole report is at its id."""
    rows = list(await replays.page(session, model, before=uuid_cursor(cursor), limit=limit))
    return Page(items=rows, next=str(rows[-1].id) if len(rows) == limit else None)


@router.get("/replays/{replay_id}", dependencies=[Depends(Requires(Action.READ))])
async def get_replay(model: str, replay_id: UUID, session: Session) -> ReplayView:
    """One replay with its report: aggregates, and examples in which everything personal is masked."""
    return await replays.view(session, model, replay_id)
