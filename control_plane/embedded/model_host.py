"""`python -m control_plane.embedded.model_host`: model servers alone, as the service `models` of docker-compose.yml.

It shares `run` and the artifacts with the reconciler and the router and has no address of theirs, no secret and, unless
models bring environments of their own, no network. Nobody needs the Docker socket for a new version to be served.
"""

import asyncio
import contextlib
import logging
import os
import signal
import sys
from collections.abc import Mapping
from pathlib import Path

from control_plane.embedded import child, layout, logs, status
from control_plane.embedded.files import write_json
from control_plane.embedded.layout import Layout
from control_plane.embedded.models import ModelServers, harmless

log = logging.getLogger(__name__)

_STATUS_EVERY_S = 2.0
_END_S = 20.0  # for what is being answered; then SIGKILL


def main() -> int:
    logs.configure()
    os.umask(0o077)
    places = layout.of(Path(os.environ.get("MLCP_HOME") or "var").expanduser().absolute())
    for folder in (places.logs, places.wanted, places.ready, places.metrics, places.sockets):
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    return asyncio.run(_host(places, os.environ))


async def _host(places: Layout, environ: Mapping[str, str]) -> int:
    told = harmless(environ) | {"PATH": environ.get("PATH", os.defpath), "MLCP_HOME": str(places.home)}
    changed, ending = asyncio.Event(), asyncio.Event()
    servers = ModelServers(places, told, changed.set)
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, ending.set)
    following = asyncio.ensure_future(servers.follow())
    reporting = asyncio.ensure_future(_report(places, servers, changed))
    _mark_ready(environ)
    await ending.wait()
    following.cancel()
    await child.end(servers.running, _END_S)
    reporting.cancel()
    return 0


def _mark_ready(environ: Mapping[str, str]) -> None:
    if path := environ.get("MLCP_READY_FILE"):
        Path(path).write_text(str(os.getpid()))


async def _report(places: Layout, servers: ModelServers, changed: asyncio.Event) -> None:
    """What the deployer reads to say why a server does not come up."""
    while True:
        rows = [status.process_row(server, None, id=id_) for id_, server in servers.children.items()]
        document = status.document(
            supervisor_pid=os.getpid(), state="ready", waiting="", steps=(), error=None, urls={}, rows=rows, pss_mb=None
        )
        try:
            write_json(places.status, document)
        except OSError as error:
            log.error("the status cannot be written: %s", error)
        for server in servers.children.values():
            logs.trim(server.log_path)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_STATUS_EVERY_S):
                await changed.wait()
        changed.clear()


if __name__ == "__main__":
    sys.exit(main())
