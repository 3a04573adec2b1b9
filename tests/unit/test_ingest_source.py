"""The shipper's reading of one spool."""

from pathlib import Path

import pytest

from control_plane.adapters.bus import Batch, Progress
from control_plane.contracts import frames
from control_plane.ingest import source
from control_plane.ingest.source import Source
from control_plane.router import spool


class Disk:
    """A spool written by hand, and what the shipper set aside of it."""

    def __init__(self, root: Path) -> None:
        self.folder = root / "predictions-0"
        self.folder.mkdir(parents=True)
        self.aside: list[tuple[str, bytes]] = []
        spool.name_of(self.folder)

    def write(self, segment: int, data: bytes) -> None:
        with (self.folder / f"{segment:016d}.seg").open("ab") as file:
            file.write(data)

    def source(self) -> Source:
        return Source(self.folder, lambda _, why, data: self.aside.append((why, data)))


@pytest.fixture
def disk(tmp_path: Path) -> Disk:
    return Disk(tmp_path)


def progress(
    waiting: int = 0, rewinds: dict[str, str] | None = None, watermarks: dict[str, tuple[int, int]] | None = None
) -> Progress:
    return Progress(waiting, watermarks or {}, rewinds or {})


def read(batches: list[Batch]) -> list[bytes]:
    return [payload for batch in batches for payload in frames.payloads(batch.frames)]


def records(*items: bytes) -> bytes:
    return frames.joined(items)


def test_segments_are_read_in_order_and_each_batch_begins_where_the_last_one_ended(disk: Disk) -> None:
    disk.write(1, records(b"a", b"b"))
    disk.write(2, records(b"c"))
    one = disk.source()
    one.follow(progress())
    batches = one.batches(10)
    assert read(batches) == [b"a", b"b", b"c"]
    assert (batches[0].first, batches[1].first) == (True, False)
    assert batches[1].start == batches[0].end
    assert one.batches(10) == []
    disk.write(2, records(b"d"))
    assert read(one.batches(10)) == [b"d"]


def test_a_new_shipper_starts_at_the_watermark(disk: Disk) -> None:
    disk.write(1, records(b"a", b"b"))
    one = disk.source()
    one.follow(progress(watermarks={one.name: (1, len(records(b"a")))}))
    assert read(one.batches(10)) == [b"b"]


@pytest.mark.parametrize("how", ["the stream is empty", "the ingester asks"])
def test_what_the_bus_lost_is_sent_again_from_the_watermark(disk: Disk, how: str) -> None:
    disk.write(1, records(b"a", b"b"))
    one = disk.source()
    one.follow(progress())
    (sent,) = one.batches(10)
    one.follow(progress(waiting=1))
    assert one.batches(10) == [], "while it waits in the stream nothing is lost"
    done = {one.name: (1, len(records(b"a")))}
    asked = {one.name: sent.generation}
    one.follow(progress(watermarks=done) if how == "the stream is empty" else progress(1, asked, done))
    again = one.batches(10)
    assert read(again) == [b"b"]
    assert again[0].generation != sent.generation
    one.follow(progress(1, asked, done))
    assert one.batches(10) == [], "a request about an earlier generation is answered already"


def test_segments_are_deleted_only_behind_the_watermark(disk: Disk) -> None:
    for number in (1, 2, 3):
        disk.write(number, records(b"x"))
    one = disk.source()
    one.follow(progress(watermarks={one.name: (2, 0)}))
    assert spool.segments(disk.folder) == [2, 3]


def test_a_watermark_from_before_the_oldest_segment_begins_there_and_says_so(disk: Disk) -> None:
    disk.write(5, records(b"x"))
    one = disk.source()
    one.follow(progress(watermarks={one.name: (2, 7)}))
    (batch,) = one.batches(10)
    assert (batch.start, batch.first) == ((5, 0), True)


def test_a_tail_being_written_is_waited_for_and_set_aside_only_once_it_is_torn_for_good(disk: Disk) -> None:
    whole = records(b"a", b"b")
    disk.write(1, whole[:-1])
    one = disk.source()
    one.follow(progress())
    assert read(one.batches(10)) == [b"a"]
    assert one.batches(10) == []
    disk.write(1, whole[-1:])
    assert read(one.batches(10)) == [b"b"]
    disk.write(1, b"torn")
    disk.write(2, records(b"c"))
    assert read(one.batches(10)) == [b"c"]
    assert disk.aside == [("torn", b"torn")]


def test_damage_is_set_aside_and_hides_nothing_after_it(disk: Disk) -> None:
    disk.write(1, records(b"a") + b"damage" + records(b"b"))
    one = disk.source()
    one.follow(progress())
    batches = one.batches(10)
    assert read(batches) == [b"a", b"b"]
    assert disk.aside == [("damaged", b"damage")]
    assert batches[1].end == (1, len(records(b"a", b"b")) + len(b"damage"))


def test_batches_are_bounded_in_records_and_one_longer_than_a_batch_still_passes(disk: Disk) -> None:
    small = [b"%d" % n for n in range(2 * source.BATCH_RECORDS + 1)]
    disk.write(1, records(*small))
    disk.write(1, records(b"x" * (source.BATCH_BYTES + 1)))
    one = disk.source()
    one.follow(progress())
    batches = one.batches(100)
    assert read(batches) == [*small, b"x" * (source.BATCH_BYTES + 1)]
    assert max(len(read([batch])) for batch in batches) == source.BATCH_RECORDS


def test_what_could_not_be_handed_over_is_made_again(disk: Disk) -> None:
    disk.write(1, records(b"a"))
    one = disk.source()
    one.follow(progress())
    first = one.batches(10)
    one.unsent()
    one.follow(progress())
    assert read(one.batches(10)) == read(first) == [b"a"]
