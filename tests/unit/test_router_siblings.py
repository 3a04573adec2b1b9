"""Who accepts, who hands over, and how a limit is shared among the workers of one router."""

import os
import socket
from dataclasses import replace

from hypothesis import example, given
from hypothesis import strategies as st

from control_plane.domain.sharing import FULL, Seen, fair_share, hands_over, takes_new
from control_plane.router.siblings import Board

NOW = 1_000.0
BUSY = st.floats(0, 1)


def workers(*busy: float, connections: int = 8, demand: float = 0.0) -> list[Seen]:
    return [Seen(slot, beat=NOW, busy=one, connections=connections, demand=demand) for slot, one in enumerate(busy)]


def dead(seen: list[Seen], slot: int) -> list[Seen]:
    return [replace(one, beat=0.0) if one.slot == slot else one for one in seen]


def accepting(seen: list[Seen]) -> list[int]:
    return [one.slot for one in seen if one.alive(NOW) and takes_new(one.slot, seen, NOW)]


def test_the_first_with_room_accepts_and_all_do_where_none_has_room() -> None:
    assert accepting(workers(0.1, 0.0)) == [0]
    assert accepting(workers(FULL, 0.0, 0.0)) == [1]
    assert accepting(dead(workers(0.1, 0.0), 0)) == [1]
    assert accepting(workers(0.95, 0.9)) == [0, 1]


@given(st.lists(BUSY, min_size=1, max_size=6), st.sets(st.integers(0, 5)))
def test_somebody_accepts_whoever_is_dead_as_long_as_one_lives(busy: list[float], gone: set[int]) -> None:
    seen = workers(*busy)
    for slot in gone:
        seen = dead(seen, slot)
    alive = [one for one in seen if one.alive(NOW)]
    assert bool(accepting(seen)) == bool(alive)
    if any(one.busy < FULL for one in alive):
        assert len(accepting(seen)) == 1


def test_idle_workers_give_what_they_have_to_the_first_and_a_full_one_gives_half_away() -> None:
    given_up = hands_over(1, workers(0.2, 0.1), NOW)
    assert given_up is not None
    assert (given_up.to, given_up.connections) == (0, 8)
    assert hands_over(0, workers(0.2, 0.1), NOW) is None
    assert hands_over(1, workers(0.5, 0.4), NOW) is None, "together they would fill it"
    relieved = hands_over(0, workers(1.0, 0.0), NOW)
    assert relieved is not None
    assert (relieved.to, relieved.connections) == (1, 4)
    assert hands_over(0, workers(1.0, 0.8), NOW) is None, "the other has no room either"
    assert hands_over(0, dead(workers(1.0, 0.0), 1), NOW) is None
    assert hands_over(0, workers(1.0, 0.0, connections=1), NOW) is None, "one connection cannot be divided"
    assert hands_over(0, workers(1.0), NOW) is None


@given(BUSY, BUSY, st.integers(2, 200))
@example(1.0, 0.69, 2)
def test_what_was_handed_over_is_not_handed_back_at_once(first: float, second: float, connections: int) -> None:
    seen = workers(first, second, connections=connections)
    for me in (0, 1):
        move = hands_over(me, seen, NOW)
        if move is None:
            continue
        part = seen[me].busy * move.connections / connections
        after = [
            replace(
                one,
                busy=one.busy + (part if one.slot == move.to else -part),
                connections=one.connections + (move.connections if one.slot == move.to else -move.connections),
            )
            for one in seen
        ]
        assert hands_over(move.to, after, NOW) is None


@given(st.integers(1, 5), st.lists(st.tuples(st.integers(0, 4), st.floats(0, 1_000), st.booleans()), max_size=80))
def test_workers_never_hold_more_than_the_whole_of_a_limit(count: int, steps: list[tuple[int, float, bool]]) -> None:
    seen = workers(*[0.0] * count)
    for number, demand, dies in steps:
        slot = number % count
        if dies:
            seen[slot] = Seen(slot)
            continue
        seen[slot] = replace(seen[slot], beat=NOW, demand=demand)
        seen[slot] = replace(seen[slot], share=fair_share(slot, seen, NOW))
        assert sum(one.share for one in seen) <= 1 + 1e-9


def test_a_limit_goes_where_it_is_asked_for() -> None:
    seen = workers(0.0, 0.0)
    for _ in range(3):
        for slot, demand in ((1, 0.0), (0, 99.5)):
            seen[slot] = replace(seen[slot], demand=demand)
            seen[slot] = replace(seen[slot], share=fair_share(slot, seen, NOW))
    assert seen[0].share > 0.99
    assert 0 < seen[1].share < 0.01
    hung = [seen[0], replace(seen[1], beat=NOW - 60, share=0.5)]
    assert fair_share(0, [replace(hung[0], share=0.5), hung[1]], NOW) == 0.5, "it may still use what it holds"


def test_what_is_written_is_read_and_a_socket_comes_through() -> None:
    board = Board(3)
    me = Seen(1, beat=2.0, busy=0.25, demand=7.0, share=0.5, connections=11)
    board.write(me)
    assert board.read() == [Seen(0), me, Seen(2)]
    board.clear(1)
    assert board.read()[1] == Seen(1)
    ours, theirs = socket.socketpair()
    assert board.send(2, theirs.fileno())
    theirs.close()
    _, (descriptor,), _, _ = socket.recv_fds(board.inboxes[2], 1, 1)
    ours.send(b"hello")
    assert os.read(descriptor, 10) == b"hello"
    os.close(descriptor)
    ours.close()
    board.close()
