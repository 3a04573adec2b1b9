"""`python -m control_plane.ingest.eraser JOB`: carries out one erasure; the worker starts it. Prints its report."""

import sys
from datetime import UTC, datetime
from uuid import UUID

from control_plane.adapters.store import log_archive
from control_plane.ingest import log_job
from control_plane.services import erasure
from control_plane.settings import ArchiverSettings


async def run(settings: ArchiverSettings, job_id: UUID) -> dict[str, object]:
    """Waits for an archiver that is at work: two must not write the same hour."""
    async with log_job.opened(settings) as log:
        await log_archive.wait_alone(log.alone)
        letters = settings.home / "spool" / "dead-letters"
        report = await erasure.run(log.sessions, log.archive, letters, job_id, now=datetime.now(UTC))
        return {"event": "erased", **report}


def main() -> int:
    return log_job.main("eraser", lambda settings: run(settings, UUID(sys.argv[1])))


if __name__ == "__main__":
    sys.exit(main())
