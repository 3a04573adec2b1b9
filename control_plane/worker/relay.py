"""`jobs_wanted` -> the queue, and jobs of dead workers back into it.

A row is put into the queue first and marked second: a crash between the two puts it in again, which changes nothing.
"""

from datetime import UTC, datetime

import structlog
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from control_plane.adapters.queue import Queue
from control_plane.adapters.store import jobs, work
from control_plane.services import retraining

ATTEMPTS = 2  # a job whose worker died that often does so for a reason

log = structlog.get_logger()


async def look(sessions: async_sessionmaker[AsyncSession], queue: Queue) -> None:
    async with sessions() as session:
        waiting = await work.wanted(session)
    for job_id, kind, receiver in waiting:
        await queue.put(job_id, kind, receiver)
        async with sessions.begin() as session:
            await work.queued(session, job_id)
        log.info("job queued", job=str(job_id))
    for job_id, job in await queue.abandoned():
        async with sessions.begin() as session:
            row = await jobs.load(session, job_id, lock=True)
            may_fail = row.kind != "notify"  # which is tried for days: some worker will have died in them
            if row.state == "running" and may_fail and int(row.progress.get("attempt", 1)) >= ATTEMPTS:
                why = f"The worker died {ATTEMPTS} times while it ran this job."
                await work.end(session, job_id, "failed", now=datetime.now(UTC), error=why)
                if row.model is not None and row.args.get("source"):
                    await retraining.failed(session, row.model, job_id, why, now=datetime.now(UTC))
            elif row.state == "running":
                row.state = "queued"
        await queue.again(job)  # of a job that is over nothing is left to claim
        log.warning("job of a dead worker taken up", job=str(job_id))
