"""`python -m control_plane.api`: the admin API as a process."""

import os
import signal
import socket
import sys
from types import FrameType

import structlog
import uvicorn

from control_plane import telemetry
from control_plane.adapters import otel
from control_plane.adapters.metrics import Metrics
from control_plane.api.app import create_app
from control_plane.settings import ApiSettings

log = structlog.get_logger()


class _Server(uvicorn.Server):
    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            telemetry.mark_ready()


def _leave(_number: int, _frame: FrameType | None) -> None:
    sys.exit(0)


def main() -> int:
    settings = ApiSettings()  # pyright: ignore[reportCallIssue]  (the environment fills it)
    telemetry.configure_logging("api", level=settings.log_level)
    tracer = otel.tracer("api", os.environ)
    config = uvicorn.Config(
        create_app(settings, tracer, Metrics(settings.run / "metrics", "api")),
        host=settings.api_host,
        port=settings.api_port,
        log_config=None,
        access_log=False,  # our own line per request has its id
        lifespan="on",
        timeout_graceful_shutdown=5,  # a router's long poll is cut off, nothing else takes that long
    )
    server = _Server(config)
    for asked in (signal.SIGTERM, signal.SIGINT):  # uvicorn raises them again once it has shut down in order
        signal.signal(asked, _leave)
    try:
        listener = socket.create_server((settings.api_host, settings.api_port), backlog=1_024)
    except OSError as exc:
        where = f"{settings.api_host}:{settings.api_port}"
        log.error("cannot listen", address=where, error=exc.strerror, change="MLCP_API_HOST, MLCP_API_PORT")
        return 1
    with listener:
        server.run(sockets=[listener])
    if tracer is not None:
        tracer.stop()
    return 0 if server.started else 1


if __name__ == "__main__":
    sys.exit(main())
