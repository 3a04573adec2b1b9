"""`python -m control_plane.worker`: carries out background jobs."""

import asyncio
import contextlib
import signal
from functools import partial

import structlog
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from control_plane.adapters import queue, store
from control_plane.adapters.metrics import Metrics
from control_plane.adapters.queue import Queue
from control_plane.adapters.registry import Registry
from control_plane.adapters.store.wake import Wake, listening
from control_plane.errors import Unavailable
from control_plane.settings import WorkerSettings
from control_plane.telemetry import configure_logging, mark_ready
from control_plane.worker import govern, quality, relay, schedule, watch
from control_plane.worker.carry_out import Carrier
from control_plane.worker.monitor import Gauges, Monitor

_LOOK_S = 2.0
_PATIENCE_S = 0.5  # a stopped worker gives its jobs back at once: the next one begins them anew

log = structlog.get_logger()


async def run(settings: WorkerSettings) -> None:
    """Until cancelled."""
    dsn = settings.postgres_dsn.get_secret_value()
    await asyncio.to_thread(queue.prepare, dsn)
    engine = store.create_engine(dsn)
    sessions = store.sessions(engine)
    registry = Registry(settings.mlflow_url)
    metrics = Metrics(settings.run / "metrics", "worker")
    monitor = Monitor(settings, sessions, registry, Gauges(metrics))
    try:
        async with (
            metrics.alive("worker", settings.metrics_host, settings.metrics_port),
            listening(dsn) as wake,
            queue.opened(
                dsn,
                Carrier(settings, sessions),
                every_minute=monitor,
                every_hour=partial(schedule.hourly, sessions),
            ) as jobs,
            asyncio.TaskGroup() as group,
        ):
            group.create_task(_relay(sessions, jobs, wake), name="relay")
            group.create_task(jobs.work(concurrency=settings.worker_concurrency, patience_s=_PATIENCE_S), name="work")
            group.create_task(quality.run(sessions, metrics), name="quality")
            group.create_task(watch.run(sessions, registry, metrics), name="watch")
            group.create_task(govern.run(settings, sessions, wake), name="govern")
            mark_ready()
    finally:
        await registry.aclose()
        await engine.dispose()


async def _relay(sessions: async_sessionmaker[AsyncSession], jobs: Queue, wake: Wake) -> None:
    bell = wake.bell()
    while True:
        bell.clear()
        try:
            await relay.look(sessions, jobs)
        except (Unavailable, SQLAlchemyError, OSError) as exc:
            log.warning("jobs cannot be relayed", error=repr(exc))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_LOOK_S):
                await bell.wait()


async def _main(settings: WorkerSettings) -> None:
    running = asyncio.create_task(run(settings))
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, running.cancel)
    with contextlib.suppress(asyncio.CancelledError):
        await running


def main() -> None:
    settings = WorkerSettings()  # pyright: ignore[reportCallIssue]  (its fields come from the environment)
    configure_logging("worker", level=settings.log_level)
    asyncio.run(_main(settings))


if __name__ == "__main__":
    main()
