import asyncio
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from control_plane.contracts import frames
from control_plane.router import spool
from control_plane.router.spool import Spool

records = st.lists(st.binary(max_size=60), max_size=8)


def framed(items: list[bytes]) -> bytes:
    return b"".join(map(frames.frame, items))


async def append(one: Spool, *items: bytes) -> list[bool]:
    done: list[asyncio.Future[bool]] = [asyncio.get_running_loop().create_future() for _ in items]
    for item, future in zip(items, done, strict=True):
        one.append(item, future.set_result)
    return await asyncio.gather(*done)


def stored(root: Path) -> list[bytes]:
    folder = root / "predictions-0"
    return [
        payload
        for number in spool.segments(folder)
        for payload in frames.payloads((folder / f"{number:016d}.seg").read_bytes())
    ]


def opened(root: Path, *, slot: int = 0, segment_bytes: int = 1 << 20, durable: bool = False) -> Spool:
    return Spool(root, "predictions", slot, segment_bytes=segment_bytes, durable=durable)


@given(records)
def test_what_is_framed_is_read_back(items: list[bytes]) -> None:
    data = framed(items)
    assert list(frames.payloads(data)) == items
    assert frames.joined(items) == data
    assert frames.scan(data).ends == tuple(len(framed(items[: n + 1])) for n in range(len(items)))


@given(records.filter(bool), st.data())
def test_a_torn_tail_is_cut_and_nothing_before_it_is_lost(items: list[bytes], data: st.DataObject) -> None:
    whole = framed(items)
    cut = data.draw(st.integers(0, len(whole)))
    found = frames.scan(whole[:cut])
    complete = [n for n in range(len(items) + 1) if len(framed(items[:n])) <= cut][-1]
    assert list(frames.payloads(whole[: found.ends[-1] if found.ends else 0])) == items[:complete]
    assert found.resumes_at is None


@given(records.filter(bool), st.binary(min_size=1, max_size=40), records.filter(bool))
def test_damage_between_frames_hides_none_of_those_after_it(
    before: list[bytes], damage: bytes, after: list[bytes]
) -> None:
    data = framed(before) + b"\0" + damage.replace(frames.MAGIC, b"") + framed(after)
    found = frames.scan(data)
    assert found.ends[-1] == found.damaged_at == len(framed(before))
    assert found.resumes_at is not None
    assert list(frames.payloads(data[found.resumes_at :])) == after


@pytest.mark.parametrize("durable", [False, True])
async def test_records_of_one_tick_are_acknowledged_once_they_are_on_disk(tmp_path: Path, durable: bool) -> None:
    one = opened(tmp_path, durable=durable)
    assert await append(one, b"a", b"b") == [True, True]
    assert stored(tmp_path) == [b"a", b"b"]
    assert await append(one, b"c") == [True]
    await one.close()
    assert stored(tmp_path) == [b"a", b"b", b"c"]


async def test_at_every_byte_of_a_torn_tail_the_next_holder_keeps_the_records_before_it(tmp_path: Path) -> None:
    whole = framed([b"first", b"second"])
    folder = tmp_path / "predictions-0"
    folder.mkdir()
    for cut in range(len(whole) + 1):
        for path in folder.glob("*.seg"):
            path.unlink()
        (folder / f"{7:016d}.seg").write_bytes(whole[:cut])
        one = opened(tmp_path)
        await append(one, b"next")
        await one.close()
        kept = (cut >= len(frames.frame(b"first"))) + (cut == len(whole))
        assert stored(tmp_path) == [*[b"first", b"second"][:kept], b"next"]
        assert len(spool.segments(folder)) == 2, "the adopted segment is not written to"


async def test_a_slot_has_one_holder_and_the_next_one_adopts_it(tmp_path: Path) -> None:
    first, second = opened(tmp_path), opened(tmp_path)
    await append(first, b"of the first")
    await append(second, b"of the second")
    name = spool.name_of(tmp_path / "predictions-0")
    await first.close()
    third = opened(tmp_path)
    await append(third, b"of the third")
    assert stored(tmp_path) == [b"of the first", b"of the third"]
    assert spool.name_of(tmp_path / "predictions-0") == name != spool.name_of(tmp_path / "predictions-1")
    await second.close()
    await third.close()


async def test_a_full_segment_is_followed_by_one_with_a_higher_number(tmp_path: Path) -> None:
    one = opened(tmp_path, segment_bytes=40)
    for n in range(6):
        await append(one, b"record %d" % n)
    await one.close()
    assert len(spool.segments(tmp_path / "predictions-0")) == 3
    assert stored(tmp_path) == [b"record %d" % n for n in range(6)]


async def test_a_disk_that_takes_a_part_keeps_whole_records_and_says_which(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, write, room = opened(tmp_path), os.write, [45]

    def small(descriptor: int, data: bytes) -> int:
        if room[0] <= 0:
            raise OSError(28, "No space left on device")
        taken = data[: room[0]]
        room[0] -= len(taken)
        return write(descriptor, taken)

    assert await append(one, b"before") == [True]
    monkeypatch.setattr(os, "write", small)
    assert await append(one, b"a" * 10, b"b" * 10, b"c" * 10) == [True, True, False]
    assert await append(one, b"d") == [False]
    room[0] = 1000
    assert await append(one, b"e") == [True]
    await one.close()
    assert stored(tmp_path) == [b"before", b"a" * 10, b"b" * 10, b"e"]


async def test_a_folder_that_cannot_be_made_refuses_records_until_it_can(tmp_path: Path) -> None:
    root = tmp_path / "spool"
    root.write_text("in the way")
    one = opened(root)
    assert await append(one, b"a") == [False]
    root.unlink()
    assert await append(one, b"b") == [True]
    await one.close()
    assert stored(root) == [b"b"]


async def test_files_of_the_spool_are_for_their_owner_only(tmp_path: Path) -> None:
    one = opened(tmp_path)
    await append(one, b"personal")
    await one.close()
    folder = tmp_path / "predictions-0"
    assert folder.stat().st_mode & 0o077 == 0
    assert all(path.stat().st_mode & 0o077 == 0 for path in folder.glob("*.seg"))
