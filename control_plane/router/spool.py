"""The spool: records on this host's disk, written before the answer leaves, shipped later.

One folder per worker slot, held by an exclusive lock that the kernel drops with the process; the next holder adopts
what is there. A holder never appends to a segment it did not begin: were the end of a segment lost with the machine,
new records could land where the ingester believes to have read. Segments are numbered by the clock for the same reason.
"""

import asyncio
import fcntl
import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from uuid import uuid4

import structlog

from control_plane.contracts import frames

SUFFIX = ".seg"
Done = Callable[[bool], None]
_log: structlog.stdlib.BoundLogger = structlog.get_logger()


class Spool:
    """Appends records to `<root>/<kind>-<slot>`, or to the next free slot while another process holds that one.

    `durable`: every write reaches the disk before it is acknowledged. Records appended within one tick of the event
    loop become one write. A disk that cannot take them is no error: `append` answers False, the next tick tries again.
    """

    def __init__(self, root: Path, kind: str, slot: int, *, segment_bytes: int, durable: bool = False) -> None:
        self._root, self._kind, self._slot = root, kind, slot
        self._limit, self._durable = segment_bytes, durable
        self._folder = root  # of the slot, once one is held
        self._lock: int | None = None
        self._last = 0  # number of the newest segment
        self._fd: int | None = None
        self._size = 0
        self._full = False
        self._records: list[bytes] = []
        self._waiting: list[Done] = []
        self._loop = asyncio.get_running_loop()
        self._thread = ThreadPoolExecutor(1, "spool") if durable else None
        self._writing: asyncio.Future[int] | None = None
        try:
            self._hold()
        except OSError as exc:  # a full disk at start: the first write tries again
            _log.error("spool.not_open", root=str(root), error=str(exc))

    def append(self, record: bytes, done: Done) -> None:
        """Queue one record; `done` is called with True once it is written, with False when the disk refused it."""
        if not self._records and self._writing is None:
            self._loop.call_soon(self._flush)
        self._records.append(record)
        self._waiting.append(done)

    @property
    def pending(self) -> bool:
        """Records wait for the end of this tick."""
        return bool(self._records) and self._writing is None

    async def close(self) -> None:
        """Write what is queued and give the slot up."""
        while self._records or self._writing is not None:
            if self._writing is not None:
                await asyncio.wait([self._writing])
            await asyncio.sleep(0)
        self._end_segment()
        if self._thread is not None:
            self._thread.shutdown()
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _flush(self) -> None:
        records, waiting = self._records, self._waiting
        self._records, self._waiting = [], []
        if self._thread is None:
            _acknowledge(waiting, self._write(records))
            return
        self._writing = self._loop.run_in_executor(self._thread, self._write, records)
        self._writing.add_done_callback(lambda written: self._written(waiting, written.result()))

    def _written(self, waiting: list[Done], count: int) -> None:
        self._writing = None
        _acknowledge(waiting, count)
        if self._records:
            self._flush()

    def _write(self, records: list[bytes]) -> int:
        """How many of the records, from the first on, are in the segment now. Never raises for a full disk."""
        data = frames.joined(records)
        try:
            descriptor = self._segment()
            written = os.write(descriptor, data)
        except OSError as exc:
            self._refused(str(exc))
            self._give_up_segment()
            return 0
        if written == len(data):
            count = len(records)
        else:  # the disk took a part: whole records stay, for the shipper may have read them already
            ends = frames.scan(data[:written]).ends
            count, written = len(ends), ends[-1] if ends else 0
            self._refused(f"wrote {count} of {len(records)} records")
        self._size += written
        try:
            if count < len(records):
                os.ftruncate(descriptor, self._size)
            if self._durable:
                os.fsync(descriptor)
        except OSError as exc:
            self._refused(str(exc))
            self._end_segment()
            return 0 if self._durable else count
        if self._size >= self._limit:
            self._end_segment()
        if count == len(records):
            self._full = False
        return count

    def _refused(self, error: str) -> None:
        if not self._full:  # once per full disk, not once per tick
            _log.error("spool.write_refused", spool=self._folder.name, error=error)
        self._full = True

    def _segment(self) -> int:
        """The open segment, a fresh one if there is none."""
        if self._fd is None:
            folder = self._hold()
            name_of(folder)  # the spool has its name before its first record
            self._last = max(self._last + 1, time.time_ns() // 1_000_000)
            path = folder / f"{self._last:016d}{SUFFIX}"
            flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC
            self._fd, self._size = os.open(path, flags, 0o600), 0
            if self._durable:
                sync_folder(folder)
        return self._fd

    def _hold(self) -> Path:
        """The folder of the slot we hold; takes one, and adopts what is in it, if we hold none.

        Raises:
            OSError: no folder can be made or locked.
        """
        if self._lock is not None:
            return self._folder
        for number in _slots(self._slot):
            folder = self._root / f"{self._kind}-{number}"
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            lock = os.open(folder / "lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(lock)
                continue
            self._lock, self._folder, self._last = lock, folder, cut_torn_tail(folder)
            return folder
        raise OSError(f"every spool in {self._root} is in use")

    def _give_up_segment(self) -> None:
        """After a refused write: an empty segment is kept for the next try, one with records is ended."""
        if self._size:
            self._end_segment()

    def _end_segment(self) -> None:
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None


def name_of(folder: Path) -> str:
    """The spool's own name, unique across hosts and homes, made on first use: watermarks are kept under it."""
    path = folder / "name"
    if path.exists() and not path.stat().st_size:
        path.unlink()  # its content was lost with the machine
    if not path.exists():
        fresh = folder / f"name.{uuid4().hex}"
        try:
            fresh.write_text(f"{folder.name}-{uuid4().hex}")
            with suppress(FileExistsError):
                os.link(fresh, path)  # the first one wins
        finally:
            fresh.unlink(missing_ok=True)
    return path.read_text()


def segments(folder: Path) -> list[int]:
    """Numbers of the segments on disk, oldest first."""
    return sorted(int(path.name.removesuffix(SUFFIX)) for path in folder.glob(f"*{SUFFIX}"))


def cut_torn_tail(folder: Path) -> int:
    """Cut what a crash left half written at the end of the newest segment. Returns that segment's number, or 0."""
    numbers = segments(folder)
    if not numbers:
        return 0
    path = folder / f"{numbers[-1]:016d}{SUFFIX}"
    data, at = path.read_bytes(), 0
    while at < len(data):
        found = frames.scan(data[at:])
        if found.damaged_at is None:
            return numbers[-1]
        if found.resumes_at is None:
            os.truncate(path, at + found.damaged_at)
            _log.warning("spool.tail_cut", spool=folder.name, bytes=len(data) - at - found.damaged_at)
            break
        at += found.resumes_at  # damage in the middle is left for the shipper to set aside
    return numbers[-1]


def sync_folder(folder: Path) -> None:
    """Make names just created or renamed in `folder` survive the loss of the machine."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _slots(first: int) -> Iterator[int]:
    yield first
    yield from (number for number in range(1000) if number != first)


def _acknowledge(waiting: list[Done], count: int) -> None:
    for number, done in enumerate(waiting):
        try:
            done(number < count)
        except Exception:  # noqa: BLE001  (one answer may fail, the others of its tick may not)
            _log.exception("spool.acknowledgement_failed")
