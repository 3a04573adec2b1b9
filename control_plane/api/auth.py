"""Who asks, and whether they may: the only place of the API where that is decided."""

import hmac
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated
from uuid import UUID

from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.adapters import store
from control_plane.adapters.store import approvals, jobs, rollouts
from control_plane.api.deps import Now, Settings
from control_plane.api.door import Door
from control_plane.domain import governance
from control_plane.domain.audit import Actor
from control_plane.domain.governance import Action
from control_plane.domain.model_config import MODEL_NAME
from control_plane.errors import Forbidden, NotFound, Unauthenticated
from control_plane.services import keys, persons
from control_plane.services.cutover import Cause
from control_plane.services.keys import Principal

_BEARER = HTTPBearer(auto_error=False, description="An API key (`mlcp_...`), or a token of the identity provider.")
_OURS = {"mlcp-cli": "cli", "mlcp-sdk": "sdk"}  # what our own clients call themselves -> trigger
Credentials = Annotated[HTTPAuthorizationCredentials | None, Depends(_BEARER)]


@dataclass(frozen=True, slots=True)
class Requires:
    """A dependency that lets through whoever may do `action` on the model the path is about.

    Runs in transactions of its own, over before the request's begins, so that noting a key's use never makes two
    requests wait for each other.
    """

    action: Action

    async def __call__(self, request: Request, credentials: Credentials, now: Now) -> Principal:
        if credentials is None:
            raise Unauthenticated("Send a key: Authorization: Bearer mlcp_...")
        principal = await identify(request, credentials.credentials, now)
        permit(principal, self.action, None)
        model = await _model(request)
        if model is not None:
            permit(principal, self.action, model)
        return principal


async def identify(request: Request, credential: str, now: datetime) -> Principal:
    """Whose key or token it is.

    Raises:
        Unauthenticated: nobody's, any more or yet.
        RateLimited: its address has failed too often lately.
    """
    door: Door = request.state.door
    address = request.client.host if request.client else ""
    door.admit(address, credential)
    try:
        claims = await door.claims(credential) if door.is_token(credential) else None  # no transaction is open yet
        async with store.transaction(request.state.sessionmaker) as session:
            if claims is None:
                principal = await keys.authenticate(session, credential, now=now)
            else:
                principal = await persons.authenticate(session, claims, request.state.settings, now=now)
    except Unauthenticated as exc:
        door.failed(address, exc.extra.pop("kind", "key"))
        raise
    door.passed(credential)
    return principal


def permit(principal: Principal, action: Action, model: str | None) -> None:
    """Raises Forbidden with the reason when the principal may not."""
    if (why := governance.refusal(principal.grant, action, model)) is not None:
        raise Forbidden(why, role=principal.grant.role, action=action)


def cause(principal: Principal, request: Request) -> Cause:
    """What the audit says about a request. What set it off is what the client calls itself: it proves nothing."""
    actor = Actor(principal.person, principal.grant.role, principal.proof)
    trigger = _OURS.get(request.headers.get("user-agent", ""), "api")
    return Cause(actor, trigger, request.state.request_id, principal.automated)


def router_token(credentials: Credentials, settings: Settings) -> None:
    """A dependency that lets routers through, by their shared token; one that was never set is right for nobody."""
    given, expected = credentials.credentials if credentials else "", settings.router_token
    if expected is None or not hmac.compare_digest(given.encode(), expected.get_secret_value().encode()):
        raise Unauthenticated("This route is for routers, with their shared token.")


async def _model(request: Request) -> str | None:
    """The model the path names, itself or by the id of something that belongs to it."""
    path = request.path_params
    if (name := path.get("model")) is not None:
        if not re.fullmatch(MODEL_NAME, name):
            raise NotFound("There is no model of that name.")
        return str(name)
    if not path.keys() & {"rollout_id", "approval_id", "job_id"}:
        return None
    async with store.transaction(request.state.sessionmaker) as session:
        return await _of(session, path)


async def _of(session: AsyncSession, path: Mapping[str, str]) -> str | None:
    try:
        if "rollout_id" in path:
            return (await rollouts.load(session, UUID(path["rollout_id"]))).model
        if "approval_id" in path:
            return (await approvals.load(session, UUID(path["approval_id"]))).row.model
        if "job_id" in path:
            return (await jobs.load(session, UUID(path["job_id"]))).model
    except ValueError:  # no UUID: the route's own validation says so
        return None
    return None
