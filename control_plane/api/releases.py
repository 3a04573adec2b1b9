"""Routes of /models that change who answers: promote, roll back, split, retrain."""

import re
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Header, Path, Request, Response
from pydantic import BaseModel, BeforeValidator

from control_plane.adapters.store.rollouts import Entry
from control_plane.api.auth import Requires, cause
from control_plane.api.body import Json
from control_plane.api.deps import Now, PolicyDep, Session
from control_plane.api.once import Key, Once
from control_plane.api.problems import responses
from control_plane.contracts.approvals import ApprovalView
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
from control_plane.services import approvals, promotion, proposals, rollouts, targeting
from control_plane.services.keys import Principal

WAITS: dict[int | str, dict[str, Any]] = {202: {"model": ApprovalView, "description": "It waits for an approval."}}
_ALWAYS = (Unauthenticated, Forbidden, NotFound, InvalidInput, IdempotencyMismatch)
router = APIRouter(prefix="/models/{model}", tags=["releases"], responses=responses(*_ALWAYS))
_STAGES = {stage.value.lower(): stage for stage in Stage}
Goal = Annotated[
    Literal["development", "staging", "production", "archived"],
    BeforeValidator(lambda given: str(given).lower()),
    Path(description="In any case of letters.", examples=["production"]),
]


@router.post(
    "/promote/{stage}",
    status_code=202,
    response_model=RolloutView | StageChangeView | ApprovalView,
    responses=responses(*_ALWAYS, GatesNotMet, RolloutOpen),
)
async def promote(
    model: str,
    stage: Goal,
    request: Request,
    session: Session,
    principal: Annotated[Principal, Depends(Requires(Action.PROMOTE))],
    policy: PolicyDep,
    now: Now,
    body: Json[PromoteSpec | None] = None,
    key: Key = None,
) -> RolloutView | StageChangeView | ApprovalView | Response:
    """Make a version Production by a rollout, or move it to another stage.

    Without a version, the newest that passes its gates. What the request leaves out of the plan comes from the
    version's model.yaml. A refusal names every gate that is not met. Where the policy in force asks for an approval,
    the answer is that approval, and nothing has happened yet. A plan has to make sense as a whole, or it is refused
    with 422 and every reason: steps rise and belong to a strategy that has some, metrics are known, a split is whole.
    """
    spec = body or PromoteSpec()
    to = _STAGES[stage]

    async def act() -> RolloutView | StageChangeView | ApprovalView:
        why = cause(principal, request)
        if to not in {Stage.PRODUCTION, Stage.STAGING}:
            return await promotion.to_stage(session, model, to, spec, cause=why, now=now)
        nameless = await targeting.hashed(session, model, spec)  # before anything of it is kept
        asked = (proposals.promote if to is Stage.PRODUCTION else proposals.deploy)(model, nameless)
        done = await approvals.submit(session, asked, platform=policy, cause=why, now=now)
        assert isinstance(done, Entry | StageChangeView | ApprovalView)
        return rollouts.shown(done, ()) if isinstance(done, Entry) else done

    return await Once(request, session, principal, key, now)(act, status=202)


@router.post("/plan", response_model=PlanView, dependencies=[Depends(Requires(Action.READ))])
async def plan(
    model: str, session: Session, policy: PolicyDep, now: Now, body: Json[PromoteSpec | None] = None
) -> PlanView:
    """What POST promote/production would do with the same body, and everything in its way. Nothing is changed.

    A plan has to make sense as a whole, as there."""
    return await promotion.preview(session, model, body or PromoteSpec(), policy=policy, now=now)


@router.post(
    "/rollback",
    status_code=202,
    response_model=RolloutView | ApprovalView,
    responses=responses(*_ALWAYS, Conflict, NotReady),
)
async def roll_back(
    model: str,
    body: Json[ReasonSpec],
    request: Request,
    session: Session,
    principal: Annotated[Principal, Depends(Requires(Action.ROLL_BACK))],
    policy: PolicyDep,
    now: Now,
    key: Key = None,
) -> RolloutView | ApprovalView | Response:
    """Abort the open rollout; with none open, make the previous Production version Production again.

    A person's rollback happens at once, whatever the policy; a program's may have to wait for an approval."""

    async def act() -> RolloutView | ApprovalView:
        asked = await proposals.roll_back(session, model, body.reason)
        done = await approvals.submit(session, asked, platform=policy, cause=cause(principal, request), now=now)
        assert isinstance(done, Entry | ApprovalView)
        return rollouts.shown(done, ()) if isinstance(done, Entry) else done

    return await Once(request, session, principal, key, now)(act, status=202)


@router.put(
    "/traffic",
    response_model=TrafficView | ApprovalView,
    responses=WAITS | responses(*_ALWAYS, InvalidSplit, StaleRevision, RolloutOpen, GatesNotMet, PreconditionRequired),
)
async def put_traffic(
    model: str,
    body: Json[TrafficSpec],
    request: Request,
    session: Session,
    principal: Annotated[Principal, Depends(Requires(Action.SET_TRAFFIC))],
    policy: PolicyDep,
    now: Now,
    response: Response,
    if_match: Annotated[str, Header(alias="If-Match", description="The ETag of GET traffic.")],
    key: Key = None,
) -> TrafficView | ApprovalView | Response:
    """Divide the traffic by hand between Production and one more version; no arms: all back to Production.

    Together they are the whole traffic: 422 for percentages that do not add up to 100, or a version named twice."""
    asked = proposals.split(model, body, _revision(if_match))

    async def act() -> TrafficView | ApprovalView:
        done = await approvals.submit(session, asked, platform=policy, cause=cause(principal, request), now=now)
        assert isinstance(done, TrafficView | ApprovalView)
        return done

    answer = await Once(request, session, principal, key, now)(act, status=waits)
    if isinstance(answer, TrafficView):
        response.headers["ETag"] = f'"{answer.revision}"'
    if isinstance(answer, ApprovalView):
        response.status_code = 202
    return answer


@router.post(
    "/retrain", status_code=202, response_model=JobView | ApprovalView, responses=responses(*_ALWAYS, Conflict)
)
async def retrain(
    model: str,
    body: Json[RetrainSpec],
    request: Request,
    session: Session,
    principal: Annotated[Principal, Depends(Requires(Action.RETRAIN))],
    policy: PolicyDep,
    now: Now,
    key: Key = None,
) -> JobView | ApprovalView | Response:
    """Train a new version in the background, at once or after an approval.

    `data` is a path: there are no control characters in it."""

    async def act() -> JobView | ApprovalView:
        asked, why = proposals.retrain(model, body), cause(principal, request)
        done = await approvals.submit(session, asked, platform=policy, cause=why, now=now)
        assert isinstance(done, JobView | ApprovalView)
        return done

    return await Once(request, session, principal, key, now)(act, status=202)


def waits(result: BaseModel) -> int:
    """The status of a change that is made at once, or waits for an approval."""
    return 202 if isinstance(result, ApprovalView) else 200


def _revision(if_match: str) -> int:
    found = re.fullmatch(r'(?:W/)?"?([0-9]{1,9})"?', if_match.strip())
    if found is None:
        raise StaleRevision("If-Match is no ETag that GET traffic gave out.")
    return int(found[1])
