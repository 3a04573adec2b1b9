"""Routes of /rollouts and of the classic /experiments."""

from typing import Annotated, Literal
from uuid import UUID

from fastapi import APIRouter, Depends, Query, Request, Response

from control_plane.adapters.store import rollouts as store
from control_plane.adapters.store import routers
from control_plane.adapters.store.rollouts import Entry
from control_plane.api.auth import Requires, cause
from control_plane.api.body import Json
from control_plane.api.deps import Filter, IdCursor, Limit, LiveWithin, Now, PolicyDep, Session, uuid_cursor
from control_plane.api.once import Key, Once
from control_plane.api.problems import responses
from control_plane.api.releases import WAITS, waits
from control_plane.contracts.approvals import ApprovalView
from control_plane.contracts.base import Page
from control_plane.contracts.rollouts import ExperimentView, ReasonSpec, RolloutView
from control_plane.domain.governance import Action, covers
from control_plane.errors import Conflict, Forbidden, IdempotencyMismatch, InvalidInput, NotFound, Unauthenticated
from control_plane.services import ab_tests, approvals, proposals, rollouts
from control_plane.services.keys import Principal

_READ = responses(Unauthenticated, Forbidden, InvalidInput)
router = APIRouter(prefix="/rollouts", tags=["rollouts"], responses=_READ)
experiments = APIRouter(prefix="/experiments", tags=["rollouts"], responses=_READ)
Reader = Annotated[Principal, Depends(Requires(Action.READ))]


@router.get("")
async def list_rollouts(
    session: Session,
    reader: Reader,
    live_within: LiveWithin,
    model: Filter = None,
    open_only: Annotated[bool, Query(alias="open", description="Leave out those that have ended.")] = False,
    limit: Limit = 50,
    cursor: IdCursor = None,
) -> Page[RolloutView]:
    """Newest first."""
    before = uuid_cursor(cursor)
    entries = await store.page(session, before=before, limit=limit, model=model, open_only=open_only)
    live = await routers.live(session, live_within)
    shown = [rollouts.shown(entry, live) for entry in entries if covers(reader.grant.models, entry.model)]
    return Page(items=shown, next=str(entries[-1].id) if len(entries) == limit else None)


@router.get("/{rollout_id}", dependencies=[Depends(Requires(Action.READ))], responses=responses(NotFound))
async def get_rollout(rollout_id: UUID, session: Session, live_within: LiveWithin) -> RolloutView:
    """`applied` turns true when every live router answers as this state says."""
    return await rollouts.view(session, await store.load(session, rollout_id), live_within)


@router.post(
    "/{rollout_id}/{verb}",
    response_model=RolloutView | ApprovalView,
    responses=WAITS | responses(NotFound, Conflict, IdempotencyMismatch),
)
async def steer(
    rollout_id: UUID,
    verb: Literal["pause", "resume", "abort", "promote", "skip"],
    body: Json[ReasonSpec],
    request: Request,
    session: Session,
    principal: Annotated[Principal, Depends(Requires(Action.STEER_ROLLOUT))],
    policy: PolicyDep,
    now: Now,
    response: Response,
    key: Key = None,
) -> RolloutView | ApprovalView | Response:
    """pause: hold the weights. resume: go on. abort: all traffic back to stable. skip: the next step now, whatever was
    measured. promote: skip the remaining steps."""

    async def act() -> RolloutView | ApprovalView:
        why = cause(principal, request)
        if verb == "resume":  # what goes on was agreed to
            entry = await rollouts.steer(session, rollout_id, verb, body.reason, cause=why, now=now, warm=policy.warm)
            return rollouts.shown(entry, ())
        asked = proposals.steer((await store.load(session, rollout_id)).model, rollout_id, verb, body.reason)
        done = await approvals.submit(session, asked, platform=policy, cause=why, now=now)
        assert isinstance(done, Entry | ApprovalView)
        return rollouts.shown(done, ()) if isinstance(done, Entry) else done

    answer = await Once(request, session, principal, key, now)(act, status=waits)
    if isinstance(answer, ApprovalView):
        response.status_code = 202
    return answer


@experiments.get("")
async def list_experiments(
    session: Session, reader: Reader, model: Filter = None, limit: Limit = 50, cursor: IdCursor = None
) -> Page[ExperimentView]:
    """Rollouts that compare two versions on customers' traffic, newest first."""
    before = uuid_cursor(cursor)
    entries = await store.page(session, before=before, limit=limit, model=model, strategies=ab_tests.COMPARING)
    shown = [rollouts.experiment(entry) for entry in entries if covers(reader.grant.models, entry.model)]
    return Page(items=shown, next=str(entries[-1].id) if len(entries) == limit else None)
