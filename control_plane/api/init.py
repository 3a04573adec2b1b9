"""`python -m control_plane.api.init [--schema-only | --print-keys]`: schema, installation, first keys.

Run before the first start and after updates. Where MLCP_HOME does not last (a cluster) the schema is brought up to date
alone, and a person asks for the first keys: JSON on stdout, once. Asked for again, those printed before are revoked.
"""

import asyncio
import json
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path

import structlog

from control_plane import telemetry
from control_plane.adapters import queue, signing, store
from control_plane.adapters.store import migrate, roles
from control_plane.domain.audit import Actor
from control_plane.services import first_start
from control_plane.services.cutover import Cause
from control_plane.settings import InitSettings

log = structlog.get_logger()


async def _prepare(settings: InitSettings, dsn: str, folder: Path) -> None:
    engine = store.create_engine(dsn, pooler=settings.transaction_pooler)
    try:
        async with store.transaction(store.sessions(engine)) as session:
            cause = Cause(Actor("init"), "init")
            fresh = await first_start.prepare(session, folder, cause=cause, now=datetime.now(UTC))
    finally:
        await engine.dispose()
    first_start.publish(folder, fresh)
    log.info("prepared", new_keys=list(fresh))


def main() -> int:
    settings = InitSettings()  # pyright: ignore[reportCallIssue]  (the environment fills it)
    telemetry.configure_logging("init", level=settings.log_level)
    dsn = settings.postgres_dsn.get_secret_value()
    asked = sys.argv[1:]
    if asked not in ([], ["--schema-only"], ["--print-keys"]):
        log.error("usage", usage="python -m control_plane.api.init [--schema-only | --print-keys]")
        return 2
    owner = settings.postgres_owner_dsn.get_secret_value() if settings.postgres_owner_dsn else dsn
    if not migrate.upgrade(owner):
        log.warning("the schema is newer than this version and stays as it is")
    queue.prepare(owner)
    if not roles.settle(owner, roles.name_in(dsn)):
        log.warning("the role of the processes owns the audit: set MLCP_POSTGRES_OWNER_DSN to another one for init")
    if asked == ["--schema-only"]:
        return 0
    if asked == ["--print-keys"]:
        with tempfile.TemporaryDirectory() as folder:
            asyncio.run(_prepare(settings, dsn, Path(folder)))
            keys = {path.stem: path.read_text().strip() for path in sorted(Path(folder).glob("*.key"))}
        sys.stdout.write(json.dumps(keys, indent=1) + "\n")
        return 0
    keys_folder = settings.home / "keys"
    asyncio.run(_prepare(settings, dsn, keys_folder))
    log.info("signing key", new=signing.ensure(keys_folder))
    return 0


if __name__ == "__main__":
    sys.exit(main())
