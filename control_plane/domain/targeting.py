"""Who is not divided by the buckets of a rollout. Pure; the order below decides.

held out   a fixed slice of all units, the same for every model: it never gets a candidate
excluded   listed: never gets this candidate
allowed    listed: gets this candidate from the beginning, before anyone
elsewhere  of another slice of the layer: tests of one layer have slices that do not meet, so a unit is in one at most

Everybody else takes part. Only those who take part are analysed: who was chosen by name is no sample.
Units are listed by a keyed hash: their names are personal data and are in no plan, snapshot, audit or approval.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from hashlib import blake2b

from control_plane.domain.assignment import BUCKETS, bucket

HOLD_OUT = "hold-out"  # salt; changing it gives every unit of the slice another fate
DIGEST_SIZE = 16


class Group(StrEnum):
    HELD_OUT = "held_out"
    EXCLUDED = "excluded"
    ALLOWED = "allowed"
    ELSEWHERE = "elsewhere"


@dataclass(frozen=True, slots=True)
class Layer:
    """The slice of a layer a test has: buckets [first, last) of the layer's own hash."""

    name: str
    first: int
    last: int

    def __post_init__(self) -> None:
        if not 0 <= self.first < self.last <= BUCKETS:
            raise ValueError(f"a slice is within 0..{BUCKETS} and not empty: {self}")

    def meets(self, other: "Layer") -> bool:
        return self.name == other.name and self.first < other.last and other.first < self.last


@dataclass(frozen=True, slots=True)
class Targeting:
    """`allow`, `exclude`: digests, ascending; `key`: what they are keyed with, at most 64 bytes."""

    key: str = ""
    allow: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    layer: Layer | None = None


def digest(key: str, unit_id: str) -> str:
    """What a unit is listed by: 16 bytes of blake2b in hex."""
    return blake2b(unit_id.encode(), key=key.encode(), digest_size=DIGEST_SIZE).hexdigest()


def listed(key: str, units: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted({digest(key, unit) for unit in units}))


def layer_salt(name: str) -> str:
    return f"layer:{name}"


def group(targeting: Targeting, *, hold_out: int, unit_id: str) -> Group | None:
    """Where a unit belongs; None: it takes part. `hold_out`: buckets of the slice that never gets a candidate."""
    if bucket(HOLD_OUT, unit_id) < hold_out:
        return Group.HELD_OUT
    if targeting.allow or targeting.exclude:
        name = digest(targeting.key, unit_id)
        if name in targeting.exclude:
            return Group.EXCLUDED
        if name in targeting.allow:
            return Group.ALLOWED
    layer = targeting.layer
    if layer is not None and not layer.first <= bucket(layer_salt(layer.name), unit_id) < layer.last:
        return Group.ELSEWHERE
    return None


def taking_part(targeting: Targeting | None, hold_out: int) -> float:
    """The share of units that is divided by buckets, but for the listed ones."""
    layer = targeting.layer if targeting else None
    return (1 - hold_out / BUCKETS) * ((layer.last - layer.first) / BUCKETS if layer else 1.0)
