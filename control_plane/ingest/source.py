"""One spool as the shipper reads it: segment files in order, cut into batches of whole frames."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final
from uuid import uuid4

from control_plane.adapters import bus
from control_plane.adapters.bus import Batch, Progress
from control_plane.contracts import frames
from control_plane.router import spool

BATCH_BYTES: Final = 256 * 1024
BATCH_RECORDS: Final = 500
Position = tuple[int, int]
SetAside = Callable[[str, str, bytes], None]  # where, why, data


class Source:
    """Reads `folder` from the watermark on. The position lives in memory: a new shipper starts at the watermark."""

    def __init__(self, folder: Path, set_aside: SetAside) -> None:
        self.folder = folder
        self.name = spool.name_of(folder)
        self._set_aside = set_aside
        self._sent: Position | None = None  # end of the last batch made; None: start over
        self._began: Position = (0, 0)  # where it started over the last time
        self._cursor: Position = (0, 0)  # where reading goes on; ahead of `_sent` after a segment's end or damage
        self._first = False
        self._generation = ""
        self._thrown_away: str | None = None  # when the bus threw away what it had, as it last said

    def follow(self, progress: Progress) -> None:
        """Start over where the bus has lost something; delete segments that are in Postgres."""
        watermark = progress.watermarks.get(self.name)
        if self._sent is not None:
            gone = progress.waiting == 0 or progress.rewinds.get(bus.EVERYBODY) != self._thrown_away
            lost = gone and self._shipped_beyond(watermark)
            if lost or progress.rewinds.get(self.name) == self._generation:
                self._sent = None
        self._thrown_away = progress.rewinds.get(bus.EVERYBODY)
        if self._sent is None:
            self._start_over(watermark)
        if watermark is not None:
            for number in spool.segments(self.folder):
                if number < watermark[0]:
                    self._path(number).unlink(missing_ok=True)

    def batches(self, limit: int) -> list[Batch]:
        """At most `limit` further batches. Call `unsent` if they could not be handed over."""
        made = list[Batch]()
        while len(made) < limit and (found := self._read()) is not None:
            data, ends = found
            start = 0
            for index in range(BATCH_RECORDS - 1, len(ends) + BATCH_RECORDS - 1, BATCH_RECORDS):
                end = ends[min(index, len(ends) - 1)]
                made.append(self._batch(data[start:end]))
                start = end
        return made

    def unsent(self) -> None:
        """What `batches` gave last may not have arrived: start over at the watermark, where doubles do no harm."""
        self._sent = None

    @property
    def waiting_bytes(self) -> int:
        """Bytes on disk."""
        total = 0
        for number in spool.segments(self.folder):
            try:
                total += self._path(number).stat().st_size
            except FileNotFoundError:
                continue
        return total

    def _shipped_beyond(self, watermark: Position | None) -> bool:
        assert self._sent is not None
        return self._sent != self._began and (watermark is None or watermark < self._sent)

    def _start_over(self, watermark: Position | None) -> None:
        numbers = spool.segments(self.folder)
        oldest = (numbers[0], 0) if numbers else (0, 0)
        # Nothing older than the oldest segment exists, wherever the watermark is: the ingester may begin there.
        self._first = watermark is None or watermark < oldest
        self._sent = self._cursor = self._began = oldest if watermark is None else max(watermark, oldest)
        self._generation = uuid4().hex

    def _batch(self, data: bytes) -> Batch:
        assert self._sent is not None
        segment, offset = self._cursor
        self._cursor = (segment, offset + len(data))
        batch = Batch(self.name, self._sent, self._cursor, self._generation, self._first, data)
        self._sent, self._first = self._cursor, False
        return batch

    def _read(self) -> tuple[bytes, Sequence[int]] | None:
        """Whole frames at the cursor, at most about BATCH_BYTES, and where each ends; None: nothing more for now."""
        while True:
            numbers = spool.segments(self.folder)  # listed before reading: a later one proves this one's end
            segment, offset = self._cursor
            if segment not in numbers:
                later = [number for number in numbers if number > segment]
                if not later:
                    return None
                self._cursor = (later[0], 0)
                continue
            ended = numbers[-1] > segment
            data, everything = self._bytes(segment, offset, BATCH_BYTES)
            found = frames.scan(data)
            if not found.ends and data and not everything:  # one frame longer than a batch
                data, everything = self._bytes(segment, offset, frames.MAX_PAYLOAD + frames.HEADER.size)
                found = frames.scan(data)
            if found.ends:
                return data[: found.ends[-1]], found.ends
            if found.damaged_at is None:  # the end of the segment
                if not ended:
                    return None
                self._cursor = (next(number for number in numbers if number > segment), 0)
            elif found.resumes_at is not None:
                self._skip(data[: found.resumes_at], "damaged")
            elif ended:
                self._skip(data, "torn")
            else:
                return None  # being written, or torn and not adopted yet

    def _skip(self, data: bytes, why: str) -> None:
        segment, offset = self._cursor
        self._set_aside(f"{self.name}/{segment}:{offset}", why, data)
        self._cursor = (segment, offset + len(data))

    def _bytes(self, segment: int, offset: int, limit: int) -> tuple[bytes, bool]:
        """Up to `limit` bytes, and whether that was everything there is."""
        try:
            with self._path(segment).open("rb") as file:
                file.seek(offset)
                data = file.read(limit)
        except FileNotFoundError:  # somebody emptied the folder
            return b"", True
        return data, len(data) < limit

    def _path(self, segment: int) -> Path:
        return self.folder / f"{segment:016d}{spool.SUFFIX}"


def find(root: Path) -> list[Path]:
    """Folders under `root` that are spools with a name: others have no record yet."""
    return sorted(path.parent for path in root.glob("*/name"))
