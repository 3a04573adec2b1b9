"""Routes of /policies: what is decided without a person, and the switch that ends it."""

from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Depends, Request, Response

from control_plane.adapters.store import policies as store
from control_plane.api.auth import Requires, cause
from control_plane.api.body import Json
from control_plane.api.deps import (
    Filter,
    IdCursor,
    Limit,
    Now,
    NumberCursor,
    PolicyDep,
    Session,
    number_cursor,
    uuid_cursor,
)
from control_plane.api.once import Key, Once
from control_plane.api.problems import responses
from control_plane.api.releases import waits
from control_plane.contracts.approvals import ApprovalView
from control_plane.contracts.base import Page
from control_plane.contracts.policies import (
    DecisionView,
    HaltView,
    PolicyPlanView,
    PolicySpec,
    PolicyView,
    SignalSpec,
)
from control_plane.contracts.rollouts import ReasonSpec
from control_plane.domain.governance import Action, covers, policy
from control_plane.domain.governance.decide import Signal
from control_plane.domain.governance.policy import Operation, Tier
from control_plane.errors import Conflict, Forbidden, IdempotencyMismatch, InvalidInput, NotFound, Unauthenticated
from control_plane.services import approvals, governor, policies, proposals
from control_plane.services.keys import Principal

router = APIRouter(prefix="/policies", tags=["policies"], responses=responses(Unauthenticated, Forbidden, InvalidInput))
Reader = Annotated[Principal, Depends(Requires(Action.READ))]
_CHANGES = responses(Conflict, IdempotencyMismatch)


@router.get("", dependencies=[Depends(Requires(Action.READ))])
async def list_policies(session: Session, limit: Limit = 50, cursor: NumberCursor = None) -> Page[PolicyView]:
    """Every policy that was applied, newest first. Before the first one a template is in force: GET current."""
    rows = await store.page(session, before=number_cursor(cursor), limit=limit)
    following = str(rows[-1].version) if len(rows) == limit else None
    return Page(items=[policies.view(row) for row in rows], next=following)


@router.post(
    "",
    response_model=PolicyView | ApprovalView,
    responses=_CHANGES | {202: {"model": ApprovalView, "description": "It waits for an approval."}},
)
async def apply(
    body: Json[PolicySpec],
    request: Request,
    session: Session,
    principal: Annotated[Principal, Depends(Requires(Action.SET_POLICY))],
    platform: PolicyDep,
    now: Now,
    response: Response,
    key: Key = None,
) -> PolicyView | ApprovalView | Response:
    """Put another policy in force, at once or after the approval the present one asks for.

    The document has to be a whole policy, as `mlcp apply -f` reads it; 422 names everything that is wrong with it."""
    asked = proposals.configure(body.document, body.reason)

    async def act() -> PolicyView | ApprovalView:
        done = await approvals.submit(session, asked, platform=platform, cause=cause(principal, request), now=now)
        assert isinstance(done, PolicyView | ApprovalView)
        return done

    answer = await Once(request, session, principal, key, now)(act, status=waits)
    if isinstance(answer, ApprovalView):
        response.status_code = 202
    return answer


@router.post("/plan")
async def plan(body: Json[PolicySpec], session: Session, reader: Reader, platform: PolicyDep) -> PolicyPlanView:
    """What applying it would change. Nothing is written. The document has to be a whole policy, as for POST."""
    wanted = proposals.configure(body.document, body.reason).request["document"]
    now_so = await policies.current(session, platform.governance)
    in_force = await policies.in_force(session, platform.governance)
    ruling = policy.ruling(in_force, Operation.CONFIGURE, automated=reader.automated)
    changes = policies.changes(now_so.document, wanted)
    return PolicyPlanView(changes=changes, needs_approval=ruling.tier is Tier.APPROVAL)


@router.post("/halt", responses=_CHANGES)
async def halt(
    body: Json[ReasonSpec],
    request: Request,
    session: Session,
    principal: Annotated[Principal, Depends(Requires(Action.HALT))],
    now: Now,
) -> HaltView:
    """Nothing happens by itself any more, and nothing is proposed. People are told as before, and may act."""
    return await policies.halt(session, body.reason, cause=cause(principal, request), now=now)


@router.post("/resume", responses=_CHANGES)
async def resume(
    body: Json[ReasonSpec],
    request: Request,
    session: Session,
    principal: Annotated[Principal, Depends(Requires(Action.RESUME))],
    now: Now,
) -> HaltView:
    """End the halt. What was held meanwhile is not made up for. A person alone may."""
    if principal.automated:
        raise Forbidden("A program does not end a halt; a person does.")
    return await policies.resume(session, body.reason, cause=cause(principal, request), now=now)


@router.post("/try")
async def try_signal(
    body: Json[SignalSpec], session: Session, reader: Reader, platform: PolicyDep, now: Now
) -> DecisionView:
    """What would be done about a signal now, and why. Nothing is written."""
    if body.model is not None and not covers(reader.grant.models, body.model):
        raise Forbidden(f"The key does not cover {body.model}.")
    in_force = await policies.in_force(session, platform.governance)
    return await governor.dry_run(session, signal_of(body, now), in_force, platform=platform, now=now)


@router.get("/decisions")
async def list_decisions(
    session: Session, reader: Reader, model: Filter = None, limit: Limit = 50, cursor: IdCursor = None
) -> Page[DecisionView]:
    """What was noticed, what was decided about it and from what, what was done, and whether it helped; newest first."""
    found = await governor.shown(session, before=uuid_cursor(cursor), limit=limit, model=model)
    items = [item for item in found if item.model is None or covers(reader.grant.models, item.model)]
    return Page(items=items, next=str(found[-1].id) if len(found) == limit else None)


@router.get("/{name}", dependencies=[Depends(Requires(Action.READ))], responses=responses(NotFound))
async def get_policy(name: str, session: Session, platform: PolicyDep) -> PolicyView:
    """`current`, the number of a version, or a template: `dev`, `prod`."""
    match name:
        case "current":
            return await policies.current(session, platform.governance)
        case "dev" | "prod":
            return policies.template(name)
        case _ if name.isascii() and name.isdigit() and len(name) < 18:
            return policies.view(await store.load(session, int(name)))
        case _:
            raise NotFound(f"There is no policy {name}; say current, dev, prod or the number of a version.")


def signal_of(body: SignalSpec, now: datetime) -> Signal:
    at = body.at or now
    return Signal(body.source, body.name, body.model, body.severity, body.status, at, body.facts)
