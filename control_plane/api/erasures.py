"""Route of /erasures: the right to be forgotten."""

from typing import Annotated

from fastapi import APIRouter, Depends, Request, Response

from control_plane.api.auth import Requires, cause
from control_plane.api.body import Json
from control_plane.api.deps import Now, Session
from control_plane.api.once import Key, Once
from control_plane.api.problems import responses
from control_plane.contracts.jobs import ErasureSpec, JobView
from control_plane.domain.governance import Action, policy
from control_plane.domain.governance.policy import Operation
from control_plane.errors import Forbidden, IdempotencyMismatch, InvalidInput, Unauthenticated
from control_plane.services import jobs
from control_plane.services.keys import Principal

router = APIRouter(tags=["predictions"], responses=responses(Unauthenticated, Forbidden, InvalidInput))


@router.post("/erasures", status_code=202, response_model=JobView, responses=responses(IdempotencyMismatch))
async def erase_unit(
    body: Json[ErasureSpec],
    request: Request,
    session: Session,
    principal: Annotated[Principal, Depends(Requires(Action.ERASE))],
    now: Now,
    key: Key = None,
) -> JobView | Response:
    """Erase what names or describes a unit, in the log, the archive and what is still on its way. Its job's `result`
    counts what was erased; counts and metrics stay. Persons alone may."""
    if principal.automated:
        raise Forbidden(policy.ruling(policy.Policy(""), Operation.ERASE, automated=True).why)

    async def act() -> JobView:
        return await jobs.erase(session, body, cause=cause(principal, request), now=now)

    return await Once(request, session, principal, key, now)(act, status=202)
