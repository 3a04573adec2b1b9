"""Where snapshots come from: the saved copy at start, then Redis, then the API while Redis is dead.

Only a higher (epoch, revision) is taken. A document that cannot be used is refused, reported, and changes nothing.
"""

import asyncio
import fcntl
import os
import time
from collections.abc import Callable, Coroutine
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import msgspec
import structlog
from redis.asyncio import Redis

from control_plane.adapters import bus
from control_plane.contracts import snapshot
from control_plane.errors import BusUnavailable
from control_plane.router import calls
from control_plane.router.pins import Folder, journal
from control_plane.router.routes import Known, Routes, build
from control_plane.router.upstream import Pool

POLL_S: Final = 1.0  # of the document in Redis, should a publication be missed; also how often we report
PINS_S: Final = 0.2
_LONG_POLL_S: Final = 20
_ASKED_S: Final = 3_600.0  # for so long we go on saying that a version was asked for
_log: structlog.stdlib.BoundLogger = structlog.get_logger()


class Feed:
    """Keeps one worker's routes current. `apply` is called with every new set of them."""

    def __init__(
        self,
        folder: Path,
        router_id: str,
        redis: Redis,
        api: Pool,
        known: Known,
        apply: Callable[[Routes], None],
        token: str | None = None,
    ) -> None:
        self._path, self._id, self._redis, self._api = folder / "snapshot.json", router_id, redis, api
        self._known, self._apply = known, apply
        self._headers = {"authorization": f"Bearer {token}"} if token else {}
        self._pins = Folder(folder / "pins")
        self._source: snapshot.Snapshot | None = None
        self._offered = b""  # the document last looked at, good or bad
        self._rejected: str | None = None
        self._bus_ok = False
        self._changed = asyncio.Event()

    @property
    def version(self) -> tuple[int, int]:
        """(epoch, revision) in use; (0, 0) while there is none."""
        return (self._source.epoch, self._source.revision) if self._source is not None else (0, 0)

    def load(self) -> None:
        """Take the saved copy, if there is a good one. Called once, before the first request."""
        self._pins.look()
        with suppress(FileNotFoundError):
            self.offer(self._path.read_bytes(), save=False)

    def offer(self, document: bytes, *, save: bool = True) -> None:
        """Use `document` if it is good and newer than what is in use."""
        if document == self._offered:
            return
        self._offered = document
        try:
            source = snapshot.decode(document)
            if (source.epoch, source.revision) <= self.version:
                return
            routes = build(source, self._pins.pins, self._known)
        except ValueError as exc:
            self._rejected = str(exc)
            _log.error("snapshot.rejected", reason=str(exc), kept=self.version)
            self._changed.set()
            return
        self._source, self._rejected = source, None
        self._use(routes)
        _log.info("snapshot.applied", epoch=source.epoch, revision=source.revision)
        if save:
            asyncio.get_running_loop().run_in_executor(None, save_document, self._path, document)

    async def run(self) -> None:
        """Everything that goes on beside requests, for ever."""
        async with asyncio.TaskGroup() as tasks:
            for work in (self._subscribe, self._poll, self._long_poll, self._report, self._watch_pins):
                tasks.create_task(_for_ever(work))

    async def stop(self) -> None:
        """Take our report back: a router that ended in order is not waited for."""
        with suppress(BusUnavailable):
            await bus.forget_router(self._redis, self._id)

    def _use(self, routes: Routes) -> None:
        self._apply(routes)
        self._known.meter.revision(self._id, routes.revision)
        self._changed.set()

    async def _subscribe(self) -> None:
        async for _ in bus.snapshot_changes(self._redis):
            await self._take()

    async def _poll(self) -> None:
        await self._take()
        await asyncio.sleep(POLL_S)

    async def _take(self) -> None:
        try:
            document = await bus.snapshot(self._redis)
        except BusUnavailable:
            self._bus_ok = False
            raise
        self._bus_ok = document is not None  # a Redis that came back empty knows nothing: ask the API
        if document is not None:
            self.offer(document)

    async def _long_poll(self) -> None:
        if self._bus_ok:
            await asyncio.sleep(POLL_S / 2)
            return
        epoch, revision = self.version
        path = f"/api/v1/snapshot?epoch={epoch}&revision={revision}&wait_s={_LONG_POLL_S}"
        head = calls.request_head("GET", path, headers=self._headers)
        status, body = await calls.fetch(self._api, head, seconds=_LONG_POLL_S + 5)
        if status == 200:
            self.offer(body)
        elif status != 304:
            raise ConnectionError(f"the API answered {status}")

    async def _report(self) -> None:
        epoch, revision = self.version
        pins = {name: msgspec.to_builtins(pin) for name, pin in self._pins.pins.items()}
        now = time.time()
        lately = {
            model: versions
            for model, asked in self._known.asked.items()
            if (versions := {version: at for version, at in asked.items() if now - at < _ASKED_S})
        }
        report = {"epoch": epoch, "revision": revision, "pins": pins, "rejected": self._rejected, "at": now}
        if lately:
            report["asked"] = lately
        self._changed.clear()
        try:
            await bus.report_router(self._redis, self._id, report | {"journal": journal(self._path.parent)})
        except BusUnavailable:
            head = calls.request_head("POST", f"/api/v1/routers/{self._id}", headers=self._headers)
            await calls.fetch(self._api, head, msgspec.json.encode(report), seconds=POLL_S)
        with suppress(TimeoutError):
            async with asyncio.timeout(POLL_S):
                await self._changed.wait()

    async def _watch_pins(self) -> None:
        await asyncio.sleep(PINS_S)
        if self._pins.look() and self._source is not None:
            _log.warning("pins.changed", pins=sorted(self._pins.pins))
            self._use(build(self._source, self._pins.pins, self._known))


def save_document(path: Path, document: bytes) -> None:
    """Keep `document` for the next start: temporary file, fsync, rename. Workers share the file; the newest stays."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        with (path.parent / "snapshot.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if _version(path) >= _version_of(document):
                return
            fresh = path.with_suffix(".new")
            with fresh.open("wb") as out:
                os.fchmod(out.fileno(), 0o600)
                out.write(document)
                out.flush()
                os.fsync(out.fileno())
            fresh.rename(path)
            folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
    except OSError as exc:  # a full disk: we go on with what is in memory
        _log.error("snapshot.not_saved", error=str(exc))


def _version(path: Path) -> tuple[int, int]:
    try:
        return _version_of(path.read_bytes())
    except (OSError, ValueError):
        return (0, 0)


def _version_of(document: bytes) -> tuple[int, int]:
    source = snapshot.decode(document)
    return source.epoch, source.revision


async def _for_ever(work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Do `work` again and again; a dead Redis or API is waited for, and logged once per loss."""
    lost = False
    while True:
        try:
            await work()
            lost = False
        except (BusUnavailable, ConnectionError) as exc:
            if not lost:
                _log.warning("feed.lost", what=work.__name__.strip("_"), error=str(exc))
            lost = True
            await asyncio.sleep(POLL_S / 2)
        except Exception:  # noqa: BLE001  (configuration may go stale, predictions may not stop)
            _log.exception("feed.failed", what=work.__name__.strip("_"))
            await asyncio.sleep(POLL_S)
