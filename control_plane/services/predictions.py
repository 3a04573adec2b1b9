"""One logged prediction, and what really happened to it."""

from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.adapters.store import predictions
from control_plane.contracts.models import OutcomeView, PredictionView
from control_plane.errors import NotFound


async def view(session: AsyncSession, prediction_id: UUID) -> PredictionView:
    row = await predictions.load(session, prediction_id)
    if row is None:
        detail = f"There is no prediction {prediction_id} in the log; one just made takes a moment to get there."
        raise NotFound(detail, prediction_id=str(prediction_id))
    outcomes = await predictions.outcomes_of(session, prediction_id)
    shown = {name: getattr(row, name) for name in PredictionView.model_fields if hasattr(row, name)}
    views = [OutcomeView.model_validate(outcome, from_attributes=True) for outcome in outcomes]
    return PredictionView.model_validate({**shown, "latency_ms": row.latency_us / 1_000, "outcomes": views})
