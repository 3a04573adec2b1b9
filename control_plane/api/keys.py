"""Routes of /keys and /principals."""

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Depends, Request, Response

from control_plane.adapters.store import keys as store
from control_plane.api.auth import Requires, cause
from control_plane.api.body import Json
from control_plane.api.deps import IdCursor, Limit, Now, Session, uuid_cursor
from control_plane.api.once import Key, Once
from control_plane.api.problems import responses
from control_plane.contracts.base import Page
from control_plane.contracts.keys import KeyCreated, KeySpec, KeyView, PrincipalView
from control_plane.contracts.rollouts import ReasonSpec
from control_plane.domain.governance import Action
from control_plane.errors import Conflict, Forbidden, IdempotencyMismatch, InvalidInput, NotFound, Unauthenticated
from control_plane.services import keys
from control_plane.services.keys import Principal

router = APIRouter(tags=["keys"], responses=responses(Unauthenticated, Forbidden, InvalidInput))
Manager = Annotated[Principal, Depends(Requires(Action.MANAGE_KEYS))]
_CHANGE = responses(NotFound, Conflict, IdempotencyMismatch)


@router.get("/keys", dependencies=[Depends(Requires(Action.READ_KEYS))])
async def list_keys(session: Session, limit: Limit = 50, cursor: IdCursor = None) -> Page[KeyView]:
    """Newest first, revoked ones included; never a secret."""
    found = await store.page(session, before=uuid_cursor(cursor), limit=limit)
    return Page(items=[keys.view(h) for h in found], next=str(found[-1].key.id) if len(found) == limit else None)


@router.post("/keys", status_code=201, response_model=KeyCreated, responses=responses(Conflict, IdempotencyMismatch))
async def create_key(
    body: Json[KeySpec], request: Request, session: Session, manager: Manager, now: Now, key: Key = None
) -> KeyCreated | Response:
    """A new key for a person in a role. Its secret is in this answer and nowhere else."""

    async def act() -> KeyCreated:
        return await keys.create(session, body, cause=cause(manager, request), now=now)

    return await Once(request, session, manager, key, now)(act, status=201, secret=True)


@router.post("/keys/{key_id}/revoke", response_model=KeyView, responses=_CHANGE)
async def revoke_key(
    key_id: UUID,
    body: Json[ReasonSpec],
    request: Request,
    session: Session,
    manager: Manager,
    now: Now,
    key: Key = None,
) -> KeyView | Response:
    """End a key for good: here at once, on the data plane with the next snapshot."""

    async def act() -> KeyView:
        return await keys.revoke(session, key_id, body.reason, cause=cause(manager, request), now=now)

    return await Once(request, session, manager, key, now)(act)


@router.post("/keys/{key_id}/rotate", status_code=201, response_model=KeyCreated, responses=_CHANGE)
async def rotate_key(
    key_id: UUID,
    body: Json[ReasonSpec],
    request: Request,
    session: Session,
    manager: Manager,
    now: Now,
    key: Key = None,
) -> KeyCreated | Response:
    """A new key in place of an old one, which ends at once."""

    async def act() -> KeyCreated:
        return await keys.rotate(session, key_id, body.reason, cause=cause(manager, request), now=now)

    return await Once(request, session, manager, key, now)(act, status=201, secret=True)


@router.get("/principals", dependencies=[Depends(Requires(Action.READ_KEYS))])
async def list_principals(session: Session, limit: Limit = 50, cursor: IdCursor = None) -> Page[PrincipalView]:
    """Persons with their roles, newest first."""
    rows = await store.principals(session, before=uuid_cursor(cursor), limit=limit)
    return Page(items=[keys.principal_view(r) for r in rows], next=str(rows[-1].id) if len(rows) == limit else None)
