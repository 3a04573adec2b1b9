"""`python -m control_plane.ingest.eraser JOB`: carries out one erasure; the worker starts it. Prints its report."""

import asyncio
import json
import sys
from datetime import UTC, datetime
from uuid import UUID

from control_plane.adapters import store
from control_plane.adapters.archive import Archive, Damaged, location
from control_plane.adapters.store import log_archive
from control_plane.errors import Unavailable
from control_plane.services import erasure
from control_plane.settings import ArchiverSettings
from control_plane.telemetry import configure_logging


async def run(settings: ArchiverSettings, job_id: UUID) -> dict[str, object]:
    """Waits for an archiver that is at work: two must not write the same hour."""
    engine = store.create_engine(settings.postgres_dsn.get_secret_value(), pooler=settings.transaction_pooler, size=2)
    try:
        async with engine.connect() as alone:
            await log_archive.wait_alone(alone)
            target = Archive(location(settings.archive_url, settings.home))
            letters = settings.home / "spool" / "dead-letters"
            report = await erasure.run(store.sessions(engine), target, letters, job_id, now=datetime.now(UTC))
            return {"event": "erased", **report}
    finally:
        await engine.dispose()


def main() -> int:
    settings = ArchiverSettings()  # pyright: ignore[reportCallIssue]  (the environment has the rest)
    configure_logging("eraser", level=settings.log_level)
    try:
        report, code = asyncio.run(run(settings, UUID(sys.argv[1]))), 0
    except (Unavailable, Damaged) as exc:
        report, code = {"event": "failed", "detail": str(exc)}, 1
    sys.stdout.write(json.dumps(report) + "\n")
    return code


if __name__ == "__main__":
    sys.exit(main())
