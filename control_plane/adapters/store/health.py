"""Small looks at Postgres, for GET /health."""

from datetime import timedelta

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.adapters.store import routers
from control_plane.adapters.store.tables import LeaseRow


async def leader(session: AsyncSession) -> str | None:
    """Who holds a lease that has not expired, by the database's clock."""
    query = select(LeaseRow.holder).where(LeaseRow.expires_at > func.clock_timestamp())
    return await session.scalar(query.order_by(LeaseRow.name).limit(1))


async def live_routers(session: AsyncSession, within: timedelta) -> int:
    return len(await routers.live(session, within))
