"""How processes of one host share it: connections and limits among the workers of a router, and who is real-time."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

STALE_S: Final = 0.25  # a worker that has not looked for so long is busy with one thing, stopped, or dead
FULL: Final = 0.8  # share of a processor from which on a worker takes no new connections while another one has room
OVERLOAD: Final = 0.9  # from here on it hands some over
GATHERED: Final = 0.7  # what two would use together, so that one of them takes all
CEILING: Final = 0.66  # share of all processors from which on nobody is real-time
FLOOR: Final = 0.58  # and below which everybody is again
AWAKE: Final = 0.1  # share of all processors from which on idle ones do not sleep
ASLEEP: Final = 0.05  # and below which they do again
REST_S: Final = 0.002  # that a worker waits for company between two batches
ENOUGH: Final = 14  # a rest is no longer than it takes so many to come
COMPANY: Final = 8  # requests that come in that time, so that it pays
CROWD: Final = 2 / 3  # of the connections that ask are under way at once: each waits for its answer and asks again
GAP_S: Final = 0.00007  # that those get to ask again, between two looks whether all have
GAPS: Final = 10  # at most
_IDLE_DEMAND: Final = 0.5  # requests a second that a worker counts for though nobody asks it


@dataclass(frozen=True, slots=True)
class Seen:
    """A worker as it last said of itself. `busy`: of one processor; `demand`: limited requests a second; `share`: of
    what this router may let through of each limit."""

    slot: int
    beat: float = 0.0  # monotonic seconds; 0: there is none
    busy: float = 0.0
    demand: float = 0.0
    share: float = 0.0
    connections: int = 0

    def alive(self, now: float) -> bool:
        return now - self.beat < STALE_S


@dataclass(frozen=True, slots=True)
class Move:
    to: int
    connections: int


def takes_new(me: int, seen: Sequence[Seen], now: float) -> bool:
    """Whether `me` accepts connections: the first worker with room does, and where none has room every one does."""
    roomy = (one.slot for one in seen if one.slot == me or one.alive(now) if one.busy < FULL)
    return next(roomy, me) == me


def hands_over(me: int, seen: Sequence[Seen], now: float) -> Move | None:
    """What `me` should hand over, and to whom; None: nothing."""
    mine = seen[me]
    others = [one for one in seen if one.slot != me and one.alive(now)]
    if not others or not mine.connections:
        return None
    if mine.busy > OVERLOAD:
        idlest = min(others, key=lambda one: one.busy)
        half = math.ceil(mine.connections * (mine.busy - idlest.busy) / (2 * mine.busy))
        room = math.floor(mine.connections * (OVERLOAD - idlest.busy) / mine.busy)  # more would come back at once
        count = min(mine.connections - 1, half, room)
        return Move(idlest.slot, count) if idlest.busy < GATHERED and count > 0 else None
    for lower in others:
        if lower.slot < me and lower.busy + mine.busy < GATHERED:
            return Move(lower.slot, mine.connections)
    return None


def fair_share(me: int, seen: Sequence[Seen], now: float) -> float:
    """The share of each limit that `me` may use from now on: as much as it is asked for, never what another one holds.

    What all hold together stays at 1 or below, if one after the other asks and says what it took.
    """
    asked = [one.demand + _IDLE_DEMAND if one.slot == me or one.alive(now) else 0.0 for one in seen]
    target = asked[me] / sum(asked)
    mine = seen[me].share
    free = max(0.0, 1.0 - sum(one.share for one in seen))
    return target if target < mine else min(target, mine + free)


def realtime(before: bool, share: float) -> bool:
    """Whether what answers customers should be real-time. `before`: it is; `share`: of all processors, 0..1."""
    return share <= CEILING if before else share < FLOOR


def awake(before: bool, share: float) -> bool:
    """Whether idle processors should wait for work instead of sleeping. Arguments as for `realtime`."""
    return share >= ASLEEP if before else share > AWAKE


@dataclass(frozen=True, slots=True)
class Rests:
    """How a worker rests between two batches. `seconds`: at most; 0: not at all. `everybody`: connections of which each
    waits for its answer before it asks again: a rest is over when all have asked. 0: there is no such number."""

    seconds: float = 0.0
    everybody: int = 0

    def wait(self, under_way: int, before: int, gaps: int) -> bool:
        """Whether to wait for others of everybody, in a rest in which all that was asked is answered.

        `under_way`: requests that have come since; `before`: of them before the last gap; `gaps`: there were so far.
        """
        if under_way >= self.everybody or gaps >= GAPS:
            return False
        return not gaps or under_way > before or 2 * under_way < self.everybody


def rests(rate: float, connections: int, peak: int) -> Rests:
    """How a worker rests. `rate`: requests a second; `connections`: that asked lately; `peak`: most of them under way
    at once."""
    if rate * REST_S < COMPANY:
        return Rests()
    if peak >= CROWD * connections:
        return Rests(REST_S, connections) if connections >= COMPANY else Rests()
    return Rests(min(REST_S, ENOUGH / rate))
