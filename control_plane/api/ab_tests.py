"""Routes of /ab-tests: rollouts as tests, with the reports beside what decides."""

from uuid import UUID

from fastapi import APIRouter, Depends

from control_plane.adapters.store import rollouts as store
from control_plane.api.auth import Requires
from control_plane.api.deps import Filter, IdCursor, Limit, Session
from control_plane.api.problems import responses
from control_plane.api.rollouts import Reader, list_experiments
from control_plane.contracts.base import Page
from control_plane.contracts.rollouts import AbTestView, ExperimentView
from control_plane.domain.governance import Action
from control_plane.errors import Forbidden, InvalidInput, NotFound, Unauthenticated
from control_plane.services import ab_tests

router = APIRouter(prefix="/ab-tests", tags=["rollouts"], responses=responses(Unauthenticated, Forbidden, InvalidInput))


@router.get("")
async def list_ab_tests(
    session: Session, reader: Reader, model: Filter = None, limit: Limit = 50, cursor: IdCursor = None
) -> Page[ExperimentView]:
    """Rollouts that compare two versions on customers' traffic, newest first."""
    return await list_experiments(session, reader, model, limit, cursor)


@router.get("/{rollout_id}", dependencies=[Depends(Requires(Action.READ))], responses=responses(NotFound))
async def get_ab_test(rollout_id: UUID, session: Session) -> AbTestView:
    """What decides (always-valid), and beside it a test of one look, and how probable it is that the candidate is
    better. Those two are wrong when they are looked at again and again."""
    return await ab_tests.view(session, await store.load(session, rollout_id))
