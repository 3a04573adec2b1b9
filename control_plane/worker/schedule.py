"""What is wanted because of the clock: jobs like any other, so that they are seen, logged and carried out once."""

from datetime import UTC, datetime

from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from control_plane.adapters.store import jobs, wake

ACTOR = "schedule"


async def hourly(sessions: async_sessionmaker[AsyncSession]) -> None:
    """Archive what is due, unless the last run is still at it."""
    try:
        async with sessions.begin() as session:
            job = await jobs.want(session, "archive", None, {}, created_by=ACTOR, now=datetime.now(UTC))
            await wake.notify(session, f"job {job}")
    except IntegrityError as exc:
        if "one_archiving" not in str(exc.orig):
            raise
