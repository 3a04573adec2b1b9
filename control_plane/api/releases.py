"""Routes of /models that change who answers: promote, roll back, split, retrain."""

import re
from typing import Annotated

from fastapi import APIRouter, Depends, Header, Request, Response

from control_plane.api.auth import Requires, cause
from control_plane.api.deps import LiveWithin, Now, PolicyDep, Session
from control_plane.api.once import Key, Once
from control_plane.api.problems import responses
from control_plane.contracts.jobs import JobView
from control_plane.contracts.models import RetrainSpec, TrafficSpec, TrafficView
from control_plane.contracts.rollouts import PlanView, PromoteSpec, ReasonSpec, RolloutView, StageChangeView
from control_plane.domain.governance import Action
from control_plane.domain.stages import Stage
from control_plane.errors import (
    Conflict,
    Forbidden,
    GatesNotMet,
    IdempotencyMismatch,
    InvalidInput,
    InvalidSplit,
    NotFound,
    NotReady,
    PreconditionRequired,
    RolloutOpen,
    StaleRevision,
    Unauthenticated,
)
from control_plane.services import jobs, promotion, rollback, rollouts, traffic
from control_plane.services.keys import Principal

_ALWAYS = (Unauthenticated, Forbidden, NotFound, InvalidInput, IdempotencyMismatch)
router = APIRouter(prefix="/models/{model}", tags=["releases"], responses=responses(*_ALWAYS))
_STAGES = {stage.value.lower(): stage for stage in Stage}


@router.post(
    "/promote/{stage}",
    status_code=202,
    response_model=RolloutView | StageChangeView,
    responses=responses(*_ALWAYS, GatesNotMet, RolloutOpen),
)
async def promote(
    model: str,
    stage: str,
    request: Request,
    session: Session,
    principal: Annotated[Principal, Depends(Requires(Action.PROMOTE))],
    policy: PolicyDep,
    live_within: LiveWithin,
    now: Now,
    body: PromoteSpec | None = None,
    key: Key = None,
) -> RolloutView | StageChangeView | Response:
    """Make a version Production by a rollout, or move it to another stage.

    Without a version, the newest that passes its gates. What the request leaves out of the plan comes from the
    version's model.yaml. A refusal names every gate that is not met.
    """
    spec = body or PromoteSpec()
    to = _STAGES.get(stage.lower())
    if to is None:
        raise InvalidInput("There is no such stage.", reasons=[f"path.stage: one of {', '.join(_STAGES)}"])

    async def act() -> RolloutView | StageChangeView:
        why = cause(principal, request)
        if to is not Stage.PRODUCTION:
            return await promotion.to_stage(session, model, to, spec, cause=why, now=now)
        entry = await promotion.to_production(session, model, spec, policy=policy, cause=why, now=now)
        return rollouts.shown(entry, ())

    return await Once(request, session, principal, key, now)(act, status=202)


@router.post("/plan", response_model=PlanView, dependencies=[Depends(Requires(Action.READ))])
async def plan(model: str, session: Session, policy: PolicyDep, now: Now, body: PromoteSpec | None = None) -> PlanView:
    """What POST promote/production would do with the same body, and everything in its way. Nothing is changed."""
    return await promotion.preview(session, model, body or PromoteSpec(), policy=policy, now=now)


@router.post(
    "/rollback",
    status_code=202,
    response_model=RolloutView,
    responses=responses(*_ALWAYS, Conflict, NotReady),
)
async def roll_back(
    model: str,
    body: ReasonSpec,
    request: Request,
    session: Session,
    principal: Annotated[Principal, Depends(Requires(Action.ROLL_BACK))],
    policy: PolicyDep,
    now: Now,
    key: Key = None,
) -> RolloutView | Response:
    """Abort the open rollout; with none open, make the previous Production version Production again. At once."""

    async def act() -> RolloutView:
        why = cause(principal, request)
        entry = await rollback.roll_back(session, model, body.reason, cause=why, now=now, warm=policy.warm)
        return rollouts.shown(entry, ())

    return await Once(request, session, principal, key, now)(act, status=202)


@router.put(
    "/traffic",
    response_model=TrafficView,
    responses=responses(*_ALWAYS, InvalidSplit, StaleRevision, RolloutOpen, GatesNotMet, PreconditionRequired),
)
async def put_traffic(
    model: str,
    body: TrafficSpec,
    request: Request,
    session: Session,
    principal: Annotated[Principal, Depends(Requires(Action.SET_TRAFFIC))],
    policy: PolicyDep,
    now: Now,
    response: Response,
    if_match: Annotated[str | None, Header(alias="If-Match", description="The ETag of GET traffic.")] = None,
    key: Key = None,
) -> TrafficView | Response:
    """Divide the traffic by hand between Production and one more version; no arms: all back to Production."""
    revision = _revision(if_match)

    async def act() -> TrafficView:
        why = cause(principal, request)
        return await traffic.split(session, model, body, revision=revision, policy=policy, cause=why, now=now)

    answer = await Once(request, session, principal, key, now)(act)
    if isinstance(answer, TrafficView):
        response.headers["ETag"] = f'"{answer.revision}"'
    return answer


@router.post("/retrain", status_code=202, response_model=JobView, responses=responses(*_ALWAYS, Conflict))
async def retrain(
    model: str,
    body: RetrainSpec,
    request: Request,
    session: Session,
    principal: Annotated[Principal, Depends(Requires(Action.RETRAIN))],
    now: Now,
    key: Key = None,
) -> JobView | Response:
    """Train a new version in the background."""

    async def act() -> JobView:
        return await jobs.retrain(session, model, body, cause=cause(principal, request), now=now)

    return await Once(request, session, principal, key, now)(act, status=202)


def _revision(if_match: str | None) -> int:
    if if_match is None:
        raise PreconditionRequired("Send the ETag of GET traffic in If-Match: your split replaces that one.")
    found = re.fullmatch(r'(?:W/)?"?([0-9]{1,9})"?', if_match.strip())
    if found is None:
        raise StaleRevision("If-Match is no ETag that GET traffic gave out.")
    return int(found[1])
