"""GET /health: whether the API can do its work, and what of the rest it sees."""

from fastapi import APIRouter

from control_plane import VERSION
from control_plane.api.deps import LiveWithin, Session
from control_plane.contracts.health import HealthView
from control_plane.services import health

router = APIRouter(tags=["health"])


@router.get("/health")
async def get_health(session: Session, live_within: LiveWithin) -> HealthView:
    """200 while the API can serve, even if other parts are missing; without Postgres, 503."""
    return await health.view(session, version=VERSION, live_within=live_within)
