"""Routes of /outcomes and /predictions."""

from functools import partial
from typing import TYPE_CHECKING, Annotated
from uuid import UUID

from fastapi import APIRouter, Body, Depends, Request, Response
from pydantic import Field

from control_plane.api.auth import Requires, permit
from control_plane.api.body import Json
from control_plane.api.deps import Now, Session, Settings
from control_plane.api.once import Key, Once
from control_plane.api.problems import responses
from control_plane.contracts.models import PredictionView
from control_plane.contracts.outcomes import OutcomesAccepted, OutcomeSpec
from control_plane.domain.governance import Action
from control_plane.errors import Forbidden, IdempotencyMismatch, InvalidInput, NotFound, Unauthenticated
from control_plane.services import outcomes, predictions
from control_plane.services.keys import Principal
from control_plane.settings import ApiSettings

if TYPE_CHECKING:
    from control_plane.adapters.archive import Archive

router = APIRouter(tags=["predictions"], responses=responses(Unauthenticated, Forbidden, InvalidInput))
Batch = Annotated[list[OutcomeSpec], Field(min_length=1, max_length=5_000)]


@router.post("/outcomes", status_code=201, response_model=OutcomesAccepted, responses=responses(IdempotencyMismatch))
async def report_outcomes(
    body: Annotated[Json[Batch | OutcomeSpec], Body()],
    request: Request,
    session: Session,
    principal: Annotated[Principal, Depends(Requires(Action.REPORT_OUTCOME))],
    now: Now,
    key: Key = None,
) -> OutcomesAccepted | Response:
    """What really happened, one outcome or a list. All are stored before the answer leaves, or none is.

    Exactly one of prediction_id and unit_id names the subject; unit_id needs a model that exists, and a prediction that
    is not in the log yet its own. 422 names every outcome that cannot be taken."""
    specs = [body] if isinstance(body, OutcomeSpec) else body

    async def act() -> OutcomesAccepted:
        return await outcomes.report(session, specs, grant=principal.grant, now=now)

    return await Once(request, session, principal, key, now)(act, status=201)


@router.get("/predictions/{prediction_id}", responses=responses(NotFound))
async def get_prediction(
    prediction_id: UUID,
    session: Session,
    settings: Settings,
    principal: Annotated[Principal, Depends(Requires(Action.READ_PREDICTION))],
) -> PredictionView:
    """One past answer explained: what came in, who was to answer and who did, and what came of it. Personal data.

    Out of the archive where its day is no longer in Postgres.
    """
    view = await predictions.view(session, prediction_id, archive=partial(_archive, settings))
    permit(principal, Action.READ_PREDICTION, view.model)
    return view


def _archive(settings: ApiSettings) -> "Archive":
    from control_plane.adapters import archive, objects  # here, for pyarrow weighs more than the rest of the API

    return archive.Archive(objects.location(settings.archive_url, settings.home))
