"""`python -m control_plane.ingest.archiver`: one run of archiving and retention. Prints its report as JSON.

The worker starts it each hour. Run again at any time it does what is left; killed at any point it leaves every hour as
it was or as it should be.
"""

import sys
from datetime import UTC, datetime, timedelta

from control_plane.adapters.store import log_archive
from control_plane.ingest import log_job
from control_plane.services import archive
from control_plane.settings import ArchiverSettings


async def run(settings: ArchiverSettings) -> dict[str, object]:
    """Do what is due, unless another archiver is at it; the report."""
    async with log_job.opened(settings) as log:
        if not await log_archive.alone(log.alone):
            return {"event": "busy"}
        now = datetime.now(UTC)
        report = await archive.run(log.sessions, log.archive, now=now, keep=timedelta(days=settings.retention_days))
        await archive.forget(
            log.sessions,
            report,
            closed_before=now - timedelta(days=settings.exposures_days),
            outcomes_before=now - timedelta(days=settings.outcomes_days or settings.retention_days),
        )
        return {"event": "archived", **report.document()}


def main() -> int:
    return log_job.main("archiver", run)


if __name__ == "__main__":
    sys.exit(main())
