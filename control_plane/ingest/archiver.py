"""`python -m control_plane.ingest.archiver`: one run of archiving and retention. Prints its report as JSON.

The worker starts it each hour. Run again at any time it does what is left; killed at any point it leaves every hour as
it was or as it should be.
"""

import asyncio
import json
import sys
from datetime import UTC, datetime, timedelta

from control_plane.adapters import store
from control_plane.adapters.archive import Archive, Damaged, location
from control_plane.adapters.store import log_archive
from control_plane.errors import Unavailable
from control_plane.services import archive
from control_plane.settings import ArchiverSettings
from control_plane.telemetry import configure_logging


async def run(settings: ArchiverSettings) -> dict[str, object]:
    """Do what is due, unless another archiver is at it; the report."""
    engine = store.create_engine(settings.postgres_dsn.get_secret_value(), pooler=settings.transaction_pooler, size=2)
    try:
        async with engine.connect() as alone:
            if not await log_archive.alone(alone):
                return {"event": "busy"}
            target = Archive(location(settings.archive_url, settings.home))
            retention = timedelta(days=settings.retention_days)
            sessions, now = store.sessions(engine), datetime.now(UTC)
            report = await archive.run(sessions, target, now=now, retention=retention)
            await archive.forget(sessions, report, closed_before=now - timedelta(days=settings.exposures_days))
            return {"event": "archived", **report.document()}
    finally:
        await engine.dispose()


def main() -> int:
    settings = ArchiverSettings()  # pyright: ignore[reportCallIssue]  (the environment has the rest)
    configure_logging("archiver", level=settings.log_level)
    try:
        report, code = asyncio.run(run(settings)), 0
    except (Unavailable, Damaged) as exc:
        report, code = {"event": "failed", "detail": str(exc)}, 1
    sys.stdout.write(json.dumps(report) + "\n")
    return code


if __name__ == "__main__":
    sys.exit(main())
