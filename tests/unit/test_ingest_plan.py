"""Which parts of arriving batches are new: whatever arrives, and however often, each record is taken once, in order."""

from hypothesis import given
from hypothesis import strategies as st

from control_plane.adapters.bus import Batch
from control_plane.contracts import frames
from control_plane.ingest.ingester import plan

PAYLOADS = [b"%d" % n for n in range(12)]
FRAME = len(frames.frame(b"0"))
ONE = [frames.frame(payload) for payload in PAYLOADS[:10]]  # of equal length


def batch(first: int, last: int, *, segment: int = 1, begins: bool = False, generation: str = "g") -> Batch:
    """Records first..last-1 of a segment."""
    data = b"".join(ONE[first:last])
    return Batch("s", (segment, first * FRAME), (segment, last * FRAME), generation, begins, data)


def taken(batches: list[Batch], watermark: tuple[int, int] | None) -> list[bytes]:
    made = plan(batches, {"s": watermark} if watermark else {})
    return [payload for _, data in made.frames for payload in frames.payloads(data)]


def test_batches_that_follow_the_watermark_are_taken() -> None:
    made = plan([batch(2, 4), batch(4, 5)], {"s": (1, 2 * FRAME)})
    assert [payload for _, data in made.frames for payload in frames.payloads(data)] == PAYLOADS[2:5]
    (move,) = made.moves
    assert (move.before, move.after) == ((1, 2 * FRAME), (1, 5 * FRAME))


def test_what_is_behind_the_watermark_is_left_out_even_within_a_batch() -> None:
    assert taken([batch(0, 2)], (1, 2 * FRAME)) == []
    assert taken([batch(0, 6)], (1, 4 * FRAME)) == PAYLOADS[4:6]
    assert taken([batch(0, 3, begins=True), batch(0, 5, begins=True)], None) == PAYLOADS[:5]


def test_a_batch_after_a_gap_is_asked_for_again_and_moves_nothing() -> None:
    made = plan([batch(5, 6, generation="lost")], {"s": (1, 2 * FRAME)})
    assert made.rewinds == {"s": "lost"}
    assert not made.moves
    assert plan([batch(0, 1)], {}).rewinds == {"s": "g"}, "without a watermark only the oldest record may begin"


def test_where_the_disk_has_nothing_older_a_batch_is_taken_and_the_jump_reported() -> None:
    made = plan([batch(0, 2, segment=9, begins=True)], {"s": (1, 2 * FRAME)})
    assert made.jumped == ["s"]
    assert [move.after for move in made.moves] == [(9, 2 * FRAME)]


def test_the_next_segment_continues_where_the_last_one_ended() -> None:
    crossing = Batch("s", (1, 3 * FRAME), (2, 2 * FRAME), "g", False, b"".join(ONE[:2]))
    assert taken([crossing], (1, 3 * FRAME)) == PAYLOADS[:2]
    assert taken([crossing], (2, FRAME)) == PAYLOADS[1:2]


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(1, 10)), max_size=20), st.integers(1, 4))
def test_any_redelivery_in_any_order_takes_each_record_once_and_in_order(
    deliveries: list[tuple[int, int]], size: int
) -> None:
    watermarks: dict[str, tuple[int, int]] = {}
    seen = list[bytes]()
    arriving = [batch(a, min(10, a + n), begins=a == 0) for a, n in deliveries if a < min(10, a + n)]
    for at in range(0, len(arriving), size):
        made = plan(arriving[at : at + size], watermarks)
        seen += [payload for _, data in made.frames for payload in frames.payloads(data)]
        watermarks |= {move.spool: move.after for move in made.moves}
    assert seen == PAYLOADS[: len(seen)]
