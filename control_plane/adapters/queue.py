"""Procrastinate, in this one module: the queue that carries out what `jobs_wanted` rows ask for.

It lives in a Postgres schema of its own, `procrastinate`. It is a means, not a record: a job's truth is its row. The
same row may come out of the queue twice, after a crash; whoever carries it out claims the row first.
"""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from uuid import UUID

import procrastinate
import psycopg
from procrastinate.exceptions import AlreadyEnqueued, ConnectorException
from procrastinate.jobs import DeleteJobCondition, Job, Status
from procrastinate.schema import SchemaManager
from sqlalchemy import make_url

from control_plane.errors import StoreUnavailable

_SCHEMA = "procrastinate"
_SEARCH_PATH = f"-c search_path={_SCHEMA}"
_LOCK = 7_305_006  # advisory, while the schema is made
_TASK = "carry_out"
_MONITOR = "monitor"  # also the queue of what the clock asks for
_QUEUE_OF = {"report": "reports", "notify": "notify"}  # what no training of hours may hold up, nor each other
_RECEIVERS_AT_ONCE = 8
_HOURLY = "hourly"
_AT = "12 * * * *"  # after the hour: its last records have reached Postgres
_HEARTBEAT_S = 2.0
STALLED_S = 10.0  # a worker silent for so long is dead


def prepare(dsn: str) -> None:
    """Make the queue's schema if it is not there. Blocking; safe from several processes at once."""
    with psycopg.connect(_plain(dsn)) as connection:
        connection.execute("SELECT pg_advisory_xact_lock(%s)", (_LOCK,))
        made = connection.execute(f"SELECT to_regclass('{_SCHEMA}.procrastinate_jobs')").fetchone()
        if made and made[0] is None:
            connection.execute(f"CREATE SCHEMA IF NOT EXISTS {_SCHEMA}")
            connection.execute(f"SET LOCAL search_path TO {_SCHEMA}")
            connection.execute(SchemaManager.get_schema())


class Queue:
    """An open queue; see `opened`."""

    def __init__(self, app: procrastinate.App) -> None:
        self._app = app

    async def put(self, job_id: UUID, kind: str, receiver: str | None = None) -> None:
        """Have the job carried out once. Putting it again while it waits changes nothing.

        Jobs of one `receiver` are carried out one after the other: a slow one takes no more than one place.
        """
        one, queue = None if receiver is None else f"receiver {receiver}", _QUEUE_OF.get(kind, "default")
        task = self._app.configure_task(_TASK, queueing_lock=str(job_id), queue=queue, lock=one)
        try:
            await task.defer_async(job_id=str(job_id))
        except AlreadyEnqueued:
            return
        except ConnectorException as exc:
            raise StoreUnavailable(f"The job queue does not answer: {exc}") from exc

    async def abandoned(self) -> list[tuple[UUID, Job]]:
        """Jobs whose worker died while it carried them out. Hand each to `again`."""
        try:
            stalled = await self._app.job_manager.get_stalled_jobs(seconds_since_heartbeat=STALLED_S)
        except ConnectorException as exc:
            raise StoreUnavailable(f"The job queue does not answer: {exc}") from exc
        for job in stalled:
            if job.task_name != _TASK and job.id is not None:  # the next minute's look is as good
                await self._app.job_manager.finish_job(job, Status.FAILED, delete_job=True)
        return [(UUID(str(job.task_kwargs["job_id"])), job) for job in stalled if job.task_name == _TASK]

    async def again(self, job: Job) -> None:
        """Put an abandoned job back."""
        try:
            await self._app.job_manager.retry_job(job)
        except AlreadyEnqueued:
            return  # its row was put anew meanwhile
        except ConnectorException as exc:
            raise StoreUnavailable(f"The job queue does not answer: {exc}") from exc

    async def work(self, *, concurrency: int, patience_s: float) -> None:
        """Carry out jobs until cancelled; those under way then get `patience_s` before they are cancelled too.

        What is done every minute has a worker of its own: a training of hours must not keep it waiting.
        """

        async def worker(queue: str, at_once: int) -> None:
            await self._app.run_worker_async(
                queues=[queue],
                concurrency=at_once,
                shutdown_graceful_timeout=patience_s,
                install_signal_handlers=False,
                update_heartbeat_interval=_HEARTBEAT_S,
                stalled_worker_timeout=STALLED_S,
                delete_jobs=DeleteJobCondition.ALWAYS,
            )

        async with asyncio.TaskGroup() as group:
            group.create_task(worker("default", concurrency), name="jobs")
            group.create_task(worker("reports", 1), name="reports")
            group.create_task(worker("notify", _RECEIVERS_AT_ONCE), name="notify")
            group.create_task(worker(_MONITOR, 1), name="monitor")


@asynccontextmanager
async def opened(
    dsn: str,
    carry_out: Callable[[UUID], Awaitable[None]],
    *,
    every_minute: Callable[[], Awaitable[None]] | None = None,
    every_hour: Callable[[], Awaitable[None]] | None = None,
) -> AsyncGenerator[Queue]:
    """The queue in the database `dsn` (as SQLAlchemy takes it) leads to; `carry_out` is what `work` does with a job.

    `every_minute`, `every_hour`: done by one of the workers each minute, at twelve past each hour, however many there
    are.
    """
    connector = procrastinate.PsycopgConnector(
        conninfo=_plain(dsn), kwargs={"options": _SEARCH_PATH}, min_size=1, max_size=6
    )
    app = procrastinate.App(connector=connector)

    @app.task(name=_TASK)
    async def _(job_id: str) -> None:  # pyright: ignore[reportUnusedFunction]  (known to the app by its name)
        await carry_out(UUID(job_id))

    for name, cron, what in ((_MONITOR, "* * * * *", every_minute), (_HOURLY, _AT, every_hour)):
        if what is not None:
            _periodic(app, name, cron, what)

    async with app.open_async():
        yield Queue(app)


def _plain(dsn: str) -> str:
    return make_url(dsn).set(drivername="postgresql").render_as_string(hide_password=False)


def _periodic(app: procrastinate.App, name: str, cron: str, what: Callable[[], Awaitable[None]]) -> None:
    """In a queue of its own, which no long job holds up."""

    @app.periodic(cron=cron)
    @app.task(name=name, queue=_MONITOR, queueing_lock=name)
    async def _(timestamp: int) -> None:  # pyright: ignore[reportUnusedFunction]
        await what()
