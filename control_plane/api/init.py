"""`python -m control_plane.api.init`: schema, installation, first keys. Run before first start and after updates."""

import asyncio
import sys
from datetime import UTC, datetime

import structlog

from control_plane import telemetry
from control_plane.adapters import store
from control_plane.adapters.store import migrate
from control_plane.domain.audit import Actor
from control_plane.services import first_start
from control_plane.services.cutover import Cause
from control_plane.settings import ApiSettings

log = structlog.get_logger()


async def _prepare(settings: ApiSettings, dsn: str) -> None:
    engine = store.create_engine(dsn, pooler=settings.transaction_pooler)
    folder = settings.home / "keys"
    try:
        async with store.transaction(store.sessions(engine)) as session:
            cause = Cause(Actor("init"), "init")
            fresh = await first_start.prepare(session, folder, cause=cause, now=datetime.now(UTC))
    finally:
        await engine.dispose()
    first_start.publish(folder, fresh)
    log.info("prepared", new_keys=list(fresh))


def main() -> int:
    settings = ApiSettings()  # pyright: ignore[reportCallIssue]  (the environment fills it)
    telemetry.configure_logging("init", level=settings.log_level)
    dsn = settings.postgres_dsn.get_secret_value()
    migrate.upgrade(dsn)
    asyncio.run(_prepare(settings, dsn))
    return 0


if __name__ == "__main__":
    sys.exit(main())
