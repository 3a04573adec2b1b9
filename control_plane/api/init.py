"""`python -m control_plane.api.init`: schema, installation, first keys. Run before first start and after updates."""

import asyncio
import sys
from datetime import UTC, datetime

import structlog

from control_plane import telemetry
from control_plane.adapters import queue, signing, store
from control_plane.adapters.store import migrate, roles
from control_plane.domain.audit import Actor
from control_plane.services import first_start
from control_plane.services.cutover import Cause
from control_plane.settings import InitSettings

log = structlog.get_logger()


async def _prepare(settings: InitSettings, dsn: str) -> None:
    engine = store.create_engine(dsn, pooler=settings.transaction_pooler)
    folder = settings.home / "keys"
    try:
        async with store.transaction(store.sessions(engine)) as session:
            cause = Cause(Actor("init"), "init")
            fresh = await first_start.prepare(session, folder, cause=cause, now=datetime.now(UTC))
    finally:
        await engine.dispose()
    first_start.publish(folder, fresh)
    signing_key = signing.ensure(folder)
    log.info("prepared", new_keys=list(fresh), new_signing_key=signing_key)


def main() -> int:
    settings = InitSettings()  # pyright: ignore[reportCallIssue]  (the environment fills it)
    telemetry.configure_logging("init", level=settings.log_level)
    dsn = settings.postgres_dsn.get_secret_value()
    owner = settings.postgres_owner_dsn.get_secret_value() if settings.postgres_owner_dsn else dsn
    migrate.upgrade(owner)
    queue.prepare(owner)
    if not roles.settle(owner, roles.name_in(dsn)):
        log.warning("the role of the processes owns the audit: set MLCP_POSTGRES_OWNER_DSN to another one for init")
    asyncio.run(_prepare(settings, dsn))
    return 0


if __name__ == "__main__":
    sys.exit(main())
