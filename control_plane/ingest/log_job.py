"""What jobs on the stored log have in common: a process of its own that does one thing, and prints what it did."""

import asyncio
import json
import sys
from collections.abc import AsyncGenerator, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession, async_sessionmaker

from control_plane.adapters import store
from control_plane.adapters.archive import Archive, Damaged
from control_plane.adapters.objects import location
from control_plane.errors import ControlPlaneError
from control_plane.settings import ArchiverSettings
from control_plane.telemetry import configure_logging


@dataclass(frozen=True, slots=True)
class Log:
    """Postgres and the archive. `alone`: a connection for the lock of the one that writes the archive."""

    sessions: async_sessionmaker[AsyncSession]
    archive: Archive
    alone: AsyncConnection


@asynccontextmanager
async def opened(settings: ArchiverSettings) -> AsyncGenerator[Log]:
    engine = store.create_engine(settings.postgres_dsn.get_secret_value(), pooler=settings.transaction_pooler, size=2)
    try:
        async with engine.connect() as alone:
            archive = Archive(location(settings.archive_url, settings.home))
            yield Log(store.sessions(engine), archive, alone)
    finally:
        await engine.dispose()


def main(process: str, work: Callable[[ArchiverSettings], Coroutine[Any, Any, Mapping[str, object]]]) -> int:
    """Do it with the settings of the environment, print its report as JSON; the exit code, 1 if it failed."""
    settings = ArchiverSettings()  # pyright: ignore[reportCallIssue]  (the environment has the rest)
    configure_logging(process, level=settings.log_level)
    try:
        report, code = asyncio.run(work(settings)), 0
    except (ControlPlaneError, Damaged) as exc:
        report, code = {"event": "failed", "detail": str(exc)}, 1
    sys.stdout.write(json.dumps(report) + "\n")
    return code
