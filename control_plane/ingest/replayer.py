"""`python -m control_plane.ingest.replayer REPLAY`: carries out one replay; the worker starts it.

Prints its progress, and at the end what it found, as lines of JSON. What it found is stored before that.
"""

import asyncio
import json
import sys
import time
from datetime import UTC, datetime
from typing import Final
from uuid import UUID

from control_plane.adapters import store
from control_plane.adapters.archive import Archive, Damaged
from control_plane.adapters.artifacts import ArtifactCache
from control_plane.adapters.objects import location
from control_plane.adapters.registry import Registry
from control_plane.adapters.store import replays as stored
from control_plane.contracts.replays import ReplayView
from control_plane.errors import ControlPlaneError
from control_plane.services import replay, replays
from control_plane.services.replay import Place, Progress
from control_plane.settings import ReplayerSettings
from control_plane.telemetry import configure_logging

_EVERY_S: Final = 0.5


async def run(settings: ReplayerSettings, replay_id: UUID) -> ReplayView:
    """Compare what was asked for, keep it; what is kept. One that is done is not done again."""
    engine = store.create_engine(settings.postgres_dsn.get_secret_value(), pooler=settings.transaction_pooler, size=2)
    sessions, registry = store.sessions(engine), Registry(settings.mlflow_url)
    try:
        async with sessions() as session:
            row, _ = await stored.load(session, replay_id)
            if row.done_at is not None:
                return await replays.view(session, row.model, replay_id)
        archive = await asyncio.to_thread(Archive, location(settings.archive_url, settings.home))
        artifacts = ArtifactCache(settings.home, registry)
        place = Place(sessions, archive, artifacts, settings.home, settings.replay_processes)
        found = await replay.compare(
            place,
            row.model,
            row.candidate_version,
            row.baseline_version,
            row.since,
            row.until,
            sample=row.sample,
            segment=row.segment,
            told=_Teller(),
        )
        async with sessions.begin() as session:
            return await replays.finish(session, replay_id, found, now=datetime.now(UTC))
    finally:
        await registry.aclose()
        await engine.dispose()


class _Teller:
    """Tells how far it is, now and then."""

    def __init__(self) -> None:
        self._at = 0.0

    def __call__(self, progress: Progress) -> None:
        if time.monotonic() - self._at < _EVERY_S:
            return
        self._at = time.monotonic()
        fraction = progress.rows / progress.of if progress.of else 1.0
        detail = f"{progress.rows:,} of {progress.of:,} rows, {progress.rows_per_s:,.0f}/s"
        _say({"event": "replaying", "fraction": min(1.0, fraction), "detail": detail, "rows": progress.rows})


def _say(line: dict[str, object]) -> None:
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


def main() -> int:
    settings = ReplayerSettings()  # pyright: ignore[reportCallIssue]  (the environment has the rest)
    configure_logging("replayer", level=settings.log_level)
    try:
        done = asyncio.run(run(settings, UUID(sys.argv[1])))
    except (ControlPlaneError, Damaged) as exc:
        reasons = exc.extra.get("reasons") if isinstance(exc, ControlPlaneError) else None
        _say({"event": "failed", "detail": " ".join([str(exc), *map(str, reasons or ())])})
        return 1
    rows = done.report.rows if done.report else 0
    _say({"event": "replayed", "fraction": 1.0, "detail": f"{rows:,} rows", "rows": rows, "replay": str(done.id)})
    return 0


if __name__ == "__main__":
    sys.exit(main())
