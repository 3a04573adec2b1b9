"""`python -m control_plane.ingest.collector JOB`: gathers the rows of one retraining out of the prediction log.

They go beside the archive, where the training reads them wherever it runs, and are removed when its job ends. Prints
what was found as JSON.
"""

import json
import sys
from datetime import UTC, datetime, timedelta
from typing import Final
from uuid import UUID

from control_plane.adapters.objects import Objects, location
from control_plane.adapters.store import jobs
from control_plane.domain import retraining
from control_plane.errors import InvalidData
from control_plane.ingest import log_job
from control_plane.services import gathering, quality
from control_plane.settings import ArchiverSettings

_SINCE: Final = timedelta(days=180)  # how far back a retraining looks that names no day
_MOST: Final = 200_000  # rows of one that names no number


async def run(settings: ArchiverSettings, job_id: UUID) -> dict[str, object]:
    """Raises InvalidData, with every number, where there is too little to learn from; nothing is written then."""
    now = datetime.now(UTC)
    beside = Objects(location(settings.archive_url, settings.home), retraining.FOLDER)
    async with log_job.opened(settings) as log:
        await gathering.sweep(log.sessions, beside)
        async with log.sessions() as session:
            row = await jobs.load(session, job_id)
            assert row.model is not None
            config = await quality.config_of(session, row.model)
        if config is None:
            raise InvalidData(f"No version of {row.model} says what its answers mean: name a file to train on.")
        since = row.args.get("since")
        found = await gathering.gather(
            log.sessions,
            log.archive,
            row.model,
            config,
            since=datetime.fromisoformat(since) if since else now - _SINCE,
            now=now,
            most=int(row.args.get("rows") or _MOST),
        )
    said = retraining.told(found.found, config.label)
    if short := retraining.shortages(found.found, config):
        raise InvalidData(f"Too little to learn from: {'; '.join(short)}. In the log: {said}.")
    beside.put(retraining.file_of(job_id), found.packed())
    return {"event": "gathered", "detail": said, "fraction": 0.0, "gathered": found.found.document()}


def main() -> int:
    sys.stdout.write(json.dumps({"event": "gathering", "detail": "reading the prediction log", "fraction": 0.0}) + "\n")
    sys.stdout.flush()
    return log_job.main("collector", lambda settings: run(settings, UUID(sys.argv[1])))


if __name__ == "__main__":
    sys.exit(main())
