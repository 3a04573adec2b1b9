"""What is wanted because of the clock: jobs like any other, so that they are seen, logged and carried out once."""

from datetime import UTC, datetime, timedelta

from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from control_plane.adapters.store import jobs, versions, wake

ACTOR = "schedule"
_MODELS = 1_000  # more than anybody has


async def hourly(sessions: async_sessionmaker[AsyncSession]) -> None:
    await monthly(sessions, datetime.now(UTC))
    await _archive(sessions)


async def monthly(sessions: async_sessionmaker[AsyncSession], now: datetime) -> None:
    """A report of the month before on every model in Production that was there in it, once; late after a downtime."""
    begun = now.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    month = f"{begun - timedelta(days=1):%Y-%m}"
    async with sessions.begin() as session:
        done = await jobs.reported(session, month)
        for model in await versions.models(session, after=None, limit=_MODELS):
            if model.production_version is not None and model.created_at < begun and model.name not in done:
                args = {"kind": "monthly", "month": month}
                job = await jobs.want(session, "report", model.name, args, created_by=ACTOR, now=now)
                await wake.notify(session, f"job {job}")


async def _archive(sessions: async_sessionmaker[AsyncSession]) -> None:
    """What is due, unless the last run is still at it."""
    try:
        async with sessions.begin() as session:
            job = await jobs.want(session, "archive", None, {}, created_by=ACTOR, now=datetime.now(UTC))
            await wake.notify(session, f"job {job}")
    except IntegrityError as exc:
        if "one_archiving" not in str(exc.orig):
            raise
