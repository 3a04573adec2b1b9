"""`python -m control_plane.ingest.shipper`: hands the records of all spools of this host to the bus.

It keeps no state of its own. Where the bus loses batches, or this process its memory, it starts over at the watermark
the ingester publishes; batches that arrive twice change nothing. Segments are deleted only behind the watermark.
"""

import asyncio
import shutil
import signal
import sys
import time
from pathlib import Path
from typing import Final

import structlog
import uvloop
from redis.asyncio import Redis

from control_plane.adapters import bus
from control_plane.adapters.metrics import Metrics
from control_plane.errors import BusUnavailable
from control_plane.ingest import source
from control_plane.ingest.dead_letters import DeadLetters
from control_plane.ingest.source import Source
from control_plane.settings import ShipperSettings
from control_plane.telemetry import Metric, configure_logging, mark_ready

_IDLE_S: Final = 0.2  # a transaction of the ingester has its price, and a large one holds the processor for longer
_LONGEST_IDLE_S: Final = 0.25
_LOST_S: Final = 0.5
_LOOK_S: Final = 0.5  # for spools that are new
_AT_ONCE: Final = 8  # batches of one spool in one round
_log: structlog.stdlib.BoundLogger = structlog.get_logger()


async def ship(settings: ShipperSettings, redis: Redis, stopping: asyncio.Event) -> None:
    """Until `stopping` is set."""
    metrics = Metrics(settings.run / "metrics", "shipper")
    async with metrics.alive("shipper", settings.metrics_host, settings.metrics_port):
        await _ship(settings, redis, stopping, metrics)


async def _ship(settings: ShipperSettings, redis: Redis, stopping: asyncio.Event, metrics: Metrics) -> None:
    root = settings.home / "spool"
    waiting_bytes = metrics.gauge(Metric.SPOOL_BYTES, "Bytes of records on this host's disk.")
    free_bytes = metrics.gauge(Metric.SPOOL_FREE, "Bytes free on the file system of the spool.")
    up = metrics.gauge(Metric.DEPENDENCY_UP, "1 while it answers.", ("process", "dependency"))
    bus_up = up.labels("shipper", "redis")
    set_aside = metrics.counter(Metric.DEAD_LETTERS, "Records set aside because they cannot be read.", ("process",))
    letters = DeadLetters(root / "dead-letters", "shipper")
    # A batch is full when it matters: where the stream fills up, the spool is behind.
    most = max(16, settings.stream_high_water // source.BATCH_RECORDS)

    def aside(where: str, why: str, data: bytes) -> None:
        letters.add(where, why, data)
        set_aside.labels("shipper").inc()

    sources: dict[Path, Source] = {}
    lost, look_at, pause_s = False, 0.0, _IDLE_S
    while not stopping.is_set():
        if time.monotonic() >= look_at:
            look_at = time.monotonic() + _LOOK_S
            for folder in source.find(root):
                if folder not in sources:
                    sources[folder] = Source(folder, aside)
            free_bytes.set(_free(root))
            waiting_bytes.set(sum(one.waiting_bytes for one in sources.values()))
        try:
            sent, more = await _round(redis, list(sources.values()), most)
            lost = False
            bus_up.set(1)
            pause_s = _IDLE_S if sent else min(2 * pause_s, _LONGEST_IDLE_S)
        except BusUnavailable as exc:
            if not lost:
                _log.warning("shipper.bus_lost", error=str(exc))
            bus_up.set(0)
            lost, more, pause_s = True, False, _LOST_S
        if not more:  # one batch of many records costs less than many of a few
            await _pause(stopping, pause_s)


async def _round(redis: Redis, sources: list[Source], most: int) -> tuple[int, bool]:
    """Send what there is room for: how many batches, and whether a spool has more to send at once."""
    progress = await bus.progress(redis)
    sent, more = 0, False
    for one in sources:
        one.follow(progress)
        room = min(_AT_ONCE, most - progress.waiting - sent)
        if room > 0 and (batches := one.batches(room)):
            try:
                await bus.send(redis, batches)
            except BusUnavailable:
                one.unsent()
                raise
            sent += len(batches)
            more = more or len(batches) >= _AT_ONCE
    return sent, more


def _free(folder: Path) -> float:
    """What a process without privileges may still write there; the folder is made by the router, so maybe later."""
    while not folder.exists():
        folder = folder.parent
    return float(shutil.disk_usage(folder).free)


async def _pause(stopping: asyncio.Event, seconds: float) -> None:
    try:
        async with asyncio.timeout(seconds):
            await stopping.wait()
    except TimeoutError:
        return


async def _main(settings: ShipperSettings) -> None:
    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    redis = bus.connect(settings.redis_url)
    mark_ready()
    await ship(settings, redis, stopping)
    await redis.aclose()


def main() -> int:
    settings = ShipperSettings()  # pyright: ignore[reportCallIssue]  (the environment has the rest)
    configure_logging("shipper", level=settings.log_level)
    uvloop.run(_main(settings))
    return 0


if __name__ == "__main__":
    sys.exit(main())
