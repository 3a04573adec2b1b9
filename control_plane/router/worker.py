"""One worker process: a listener on the shared socket, a spool slot, a feed of snapshots."""

import asyncio
import os
import signal
import socket
from collections.abc import Callable
from hashlib import sha256
from typing import Final

import structlog

from control_plane import garbage
from control_plane.adapters import bus, otel
from control_plane.adapters.metrics import HEARTBEAT_S, Metrics
from control_plane.router import ids, siblings
from control_plane.router.app import App
from control_plane.router.feed import Feed
from control_plane.router.http import Listener
from control_plane.router.limits import Limits, Trader
from control_plane.router.metrics import Meter
from control_plane.router.rest import LOOK_S, Rest, sleep_precisely
from control_plane.router.routes import Known
from control_plane.router.spool import Spool
from control_plane.router.tools import Tools
from control_plane.router.upstream import Pool
from control_plane.settings import RouterSettings

DRAIN_S: Final = 10.0
FLUSH_S: Final = 0.25  # of metrics counted in memory
_log: structlog.stdlib.BoundLogger = structlog.get_logger()


def router_id(settings: RouterSettings, slot: int) -> str:
    """The same for the same slot of the same installation, whatever its pid."""
    home = sha256(str(settings.home).encode()).hexdigest()[:8]
    return f"{socket.gethostname()}-{home}-{settings.router_port}-{slot}"


async def serve(
    settings: RouterSettings,
    listening: socket.socket,
    board: siblings.Board,
    slot: int,
    parent: int,
    ready: Callable[[], None],
) -> None:
    """Serve until SIGTERM or until the parent is gone. `parent`: read end of a pipe only the parent writes to."""
    loop = asyncio.get_running_loop()
    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    loop.add_reader(parent, stopping.set)  # its end of the pipe closes when it dies, however it dies

    meter = Meter(Metrics(settings.run / "metrics", f"router-{settings.router_port}-{slot}"))
    spools = settings.home / "spool"
    size = settings.spool_segment_bytes
    predictions = Spool(spools, "predictions", slot, segment_bytes=size, durable=settings.spool_fsync == "tick")
    outcomes = Spool(spools, "outcomes", slot, segment_bytes=size, durable=True)
    tracer = otel.tracer("router", os.environ)
    push = otel.push_metrics("router", os.environ, meter.families) if slot == 0 else None
    tools = Tools(predictions, ids.generator(), meter, loop, tracer)
    app = App(tools, outcomes)
    listener = Listener(app)
    app.spawn = listener.spawn

    redis = bus.connect(settings.redis_url)
    token = settings.router_token.get_secret_value() if settings.router_token else None
    name, api = router_id(settings, slot), Pool(settings.api_url)
    sleep_precisely()
    rest = Rest(listener.traffic, lambda: predictions.pending)
    known = Known(meter, Limits(settings.router_workers, settings.router_workers), rest=rest)
    trader = Trader(known.limits, redis, name, settings.home / "router" / "workers")
    feed = Feed(settings.home / "router", name, redis, api, known, app.apply, token)
    feed.load()
    among = siblings.Siblings(board, slot, listening, listener, known.limits)
    await among.begin(settings.home / "router" / "shares")
    gathering = loop.create_task(among.run())
    background = [
        loop.create_task(feed.run()),
        loop.create_task(trader.run()),
        loop.create_task(_every(1.0, lambda: listener.expire(loop.time()))),
        loop.create_task(_every(LOOK_S, rest.look)),
        loop.create_task(_every(FLUSH_S, meter.flush)),
        loop.create_task(_every(FLUSH_S, app.adapt)),
        loop.create_task(_every(HEARTBEAT_S, meter.beat)),
    ]
    garbage.collect_seldom(50_000)  # requests leave no cycles behind; a look at everything took 30 to 60 ms
    meter.beat()
    ready()
    _log.info("worker.ready", slot=slot, pid=os.getpid())
    await stopping.wait()

    loop.remove_reader(parent)
    gathering.cancel()
    await asyncio.gather(gathering, return_exceptions=True)
    await among.end()
    await listener.drain(DRAIN_S)
    for task in background:
        task.cancel()
    await asyncio.gather(*background, return_exceptions=True)
    await predictions.close()
    await outcomes.close()
    meter.flush()
    await feed.stop()
    await trader.leave()
    for pool in (api, *(server.pool for server in known.servers.values())):
        await pool.end()
    rest.close()
    await redis.aclose()
    for exporting in (tracer, push):
        if exporting is not None:
            await asyncio.to_thread(exporting.stop)
    _log.info("worker.stopped", slot=slot)


async def _every(seconds: float, work: Callable[[], None]) -> None:
    while True:
        await asyncio.sleep(seconds)
        work()
