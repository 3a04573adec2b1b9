"""A job of the kind `notify`: a notice is routed, or brought to one receiver, in this process."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from uuid import UUID

import structlog
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from control_plane.adapters.notify import Message
from control_plane.adapters.objects import Objects, location
from control_plane.adapters.store import notices as store
from control_plane.adapters.store import work
from control_plane.adapters.store.tables import JobRow, NoticeRow
from control_plane.domain import notices as domain
from control_plane.errors import ControlPlaneError, NotFound, Unavailable
from control_plane.services import notices, reports
from control_plane.settings import WorkerSettings
from control_plane.worker import receivers

_REPORT = "report:"  # the key of a notice whose documents go with it
Sessions = async_sessionmaker[AsyncSession]

log = structlog.get_logger()


async def carry_out(settings: WorkerSettings, sessions: Sessions, job: JobRow) -> None:
    """Ends the job, or gives it back until the next attempt: whatever happens, it is not lost."""
    known, name = receivers.known(settings), job.args.get("receiver")
    notice_id, why = UUID(str(job.args["notice"])), "It was interrupted."

    async def route(session: AsyncSession) -> None:
        told = await notices.route(session, notice_id, known.routes, now=datetime.now(UTC))
        await work.end(session, job.id, "succeeded", now=datetime.now(UTC), result={"told": told})

    async def delivered(session: AsyncSession) -> None:
        await work.end(session, job.id, "succeeded", now=datetime.now(UTC), result={"receiver": name})

    async def failed(session: AsyncSession) -> None:
        now, attempt = datetime.now(UTC), int(job.progress.get("attempt", 1))
        at = domain.again(attempt, since=job.created_at, now=now, jitter=random.random())  # noqa: S311
        if at is None:
            await work.end(session, job.id, "failed", now=now, error=why)
        else:
            await work.later(session, job.id, at=at, why=why)
        log.warning("notice not delivered", job=str(job.id), receiver=name, why=why, attempt=attempt, again=str(at))

    if name is None:
        await _written(sessions, route)
        return
    try:
        async with sessions() as session:
            message = await _message(settings, await store.load(session, notice_id), job.id)
        await known.send(str(name), message)
    except ControlPlaneError as exc:
        why = exc.detail
        await _written(sessions, failed)
    except Exception as exc:  # noqa: BLE001  (the attempt is over, the job is not; its words may hold an address)
        log.error("notice not delivered", job=str(job.id), receiver=name, error=type(exc).__name__)
        why = f"The attempt broke off: {type(exc).__name__}."
        await _written(sessions, failed)
    else:
        await _written(sessions, delivered)
        log.info("notice delivered", job=str(job.id), receiver=name)


async def _written(sessions: Sessions, write: Callable[[AsyncSession], Awaitable[None]]) -> None:
    """For as long as it takes: what was sent and is not noted is sent again."""
    while True:
        try:
            async with sessions.begin() as session:
                await write(session)
            return
        except (SQLAlchemyError, OSError) as exc:
            log.warning("the outcome cannot be saved yet", error=type(exc).__name__)
            await asyncio.sleep(1)


async def _message(settings: WorkerSettings, row: NoticeRow, job: UUID) -> Message:
    link = None if row.path is None or settings.public_url is None else settings.public_url.rstrip("/") + row.path
    files = list[tuple[str, bytes]]()
    if row.key.startswith(_REPORT):
        report = UUID(row.key.removeprefix(_REPORT))
        objects = Objects(location(settings.archive_url, settings.home), reports.FOLDER)
        stem = row.title.partition(":")[0].lower().replace(" ", "_")
        try:
            for form in ("json", "pdf"):
                content = await asyncio.to_thread(objects.read, reports.file(report, form))
                files.append((f"{stem}.{form}", content))
        except NotFound:
            raise Unavailable("The documents of the report are not where they were put.") from None
    return Message(str(job), row.event, row.severity, row.model, row.title, row.lines, link, row.at, files)
