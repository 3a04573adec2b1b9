"""Whether the control plane does its work, as Postgres tells it."""

from datetime import timedelta

from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.adapters.store import health
from control_plane.contracts.health import HealthView


async def view(session: AsyncSession, *, version: str, live_within: timedelta) -> HealthView:
    leads = await health.leader(session) is not None
    live = await health.live_routers(session, live_within)
    checks = {
        "postgres": "ok",
        "reconciler": "ok" if leads else "no reconciler leads: nothing that is wanted is carried out",
        "router": "ok" if live else "no router has reported lately",
    }
    return HealthView(status="ok" if leads and live else "degraded", version=version, checks=checks)
