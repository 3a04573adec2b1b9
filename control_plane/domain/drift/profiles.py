"""What a window of traffic looked like, in constant memory: frozen profiles that merge.

A profile counts the values of every feature on the cells its reference defined. Merging is exact on every count and
commutative to the bit; only the floating-point moments depend on the order of merging, in their last digits. So hours
add up to days, and fifty replicas to the same profile as one. `fold.py` builds profiles, `scores.py` compares them.
Only the standard library is needed here.

Counts are rows, except in `Text.words`, which counts words.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from control_plane.domain.drift import sketches
from control_plane.domain.model_config import FeatureType

FORMAT = 1
HUGE = 1e100  # beyond it a value counts as huge and leaves the moments alone, which would overflow


@dataclass(frozen=True, slots=True)
class Moments:
    """Count, mean, sum of squared deviations, smallest and largest of the finite values. Unit: the feature's."""

    count: int = 0
    mean: float = 0.0
    m2: float = 0.0
    low: float = math.inf
    high: float = -math.inf

    @property
    def variance(self) -> float:
        """Unbiased sample variance; NaN below two values."""
        return self.m2 / (self.count - 1) if self.count > 1 else math.nan


@dataclass(frozen=True, slots=True)
class Absent:
    """Rows without a usable value: null (or NaN), key not in the row at all, or a value of another type."""

    nulls: int = 0
    missing: int = 0
    mistyped: int = 0

    @property
    def total(self) -> int:
        return self.nulls + self.missing + self.mistyped


@dataclass(frozen=True, slots=True)
class Numeric:
    """A number on the reference's quantile cells.

    `edges` e_0 <= ... <= e_k are finite (none if the reference had no value); `counts` has k + 2 cells:
    x < e_0, then [e_0, e_1), ..., [e_{k-1}, e_k] closed on both sides, then x > e_k. `huge` values (infinite or
    beyond HUGE) are also in the first or the last cell. `outside`: values outside the range model.yaml declares.
    """

    type: FeatureType
    edges: tuple[float, ...]
    counts: tuple[int, ...]
    absent: Absent = field(default_factory=Absent)
    moments: Moments = field(default_factory=Moments)
    huge: int = 0
    outside: int = 0
    range: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        if len(self.counts) != len(self.edges) + 1:
            raise ValueError(f"{len(self.edges)} edges make {len(self.edges) + 1} cells, got {len(self.counts)}")
        if any(a > b for a, b in zip(self.edges, self.edges[1:], strict=False)):
            raise ValueError("edges must ascend")

    @property
    def rows(self) -> int:
        return sum(self.counts) + self.absent.total


@dataclass(frozen=True, slots=True)
class Categorical:
    """A category: counts of the reference's most frequent values, the rest by hash, and what is new.

    `tail`: values the reference knew but does not name, spread over buckets by hash, so a shift among ten thousand
    levels stays visible. `unseen`: values the reference never had, a lower bound where `known` has false members.
    `known`: a member filter over the unnamed values; empty: there are none; None: not recorded, then nothing can be
    called unseen. `distinct`: a sketch of all values seen here. `once`: unnamed values the reference had exactly once,
    from which follows how much of the next window is new without any drift.
    """

    type: FeatureType
    categories: Mapping[str, int]
    tail: tuple[int, ...] = (0,)
    unseen: int = 0
    absent: Absent = field(default_factory=Absent)
    distinct: bytes = field(default_factory=sketches.empty_distinct)
    known: bytes | None = b""
    once: int = 0

    @property
    def other(self) -> int:
        return sum(self.tail)

    @property
    def counts(self) -> tuple[int, ...]:
        """Cells in a fixed order: named categories, tail buckets, unseen."""
        return (*self.categories.values(), *self.tail, self.unseen)

    @property
    def rows(self) -> int:
        return sum(self.counts) + self.absent.total


@dataclass(frozen=True, slots=True)
class Text:
    """Free text: its words as a category (counts are words, not rows) and its length in characters."""

    words: Categorical
    length: Numeric

    @property
    def type(self) -> FeatureType:
        return FeatureType.TEXT

    @property
    def absent(self) -> Absent:
        return self.length.absent

    @property
    def rows(self) -> int:
        return self.length.rows


Feature = Numeric | Categorical | Text


@dataclass(frozen=True, slots=True)
class Profile:
    """One window or the reference. `prediction` is the score, value or class answered; `label` the truth, if known."""

    rows: int
    features: Mapping[str, Feature]
    prediction: Feature | None = None
    label: Feature | None = None


def merge(left: Profile, right: Profile) -> Profile:
    """The profile of both windows together. Raises ValueError if they were not folded on one reference."""
    if left.features.keys() != right.features.keys():
        differing = sorted(left.features.keys() ^ right.features.keys())
        raise ValueError(f"profiles of different references: {differing} are only in one")
    return Profile(
        left.rows + right.rows,
        {name: merge_feature(feature, right.features[name]) for name, feature in left.features.items()},
        _merge_optional(left.prediction, right.prediction),
        _merge_optional(left.label, right.label),
    )


def empty_like(profile: Profile) -> Profile:
    """The neutral element of `merge` on this profile's cells: what a window starts from."""
    features = {name: _emptied(feature) for name, feature in profile.features.items()}
    prediction, label = (None if f is None else _emptied(f) for f in (profile.prediction, profile.label))
    return Profile(0, features, prediction, label)


def thin(profile: Profile) -> Profile:
    """Without the member filters, which only the reference needs: what is worth storing for a window."""
    features = {name: _thinned(feature) for name, feature in profile.features.items()}
    prediction, label = (None if f is None else _thinned(f) for f in (profile.prediction, profile.label))
    return replace(profile, features=features, prediction=prediction, label=label)


def merge_feature(left: Feature, right: Feature) -> Feature:
    """As `merge`, for one feature."""
    match left, right:
        case Numeric(), Numeric():
            return _merge_numeric(left, right)
        case Categorical(), Categorical():
            return _merge_categorical(left, right)
        case Text(), Text():
            return Text(_merge_categorical(left.words, right.words), _merge_numeric(left.length, right.length))
        case _:
            raise ValueError(f"a {left.type} and a {right.type} profile cannot be merged")


def merge_moments(left: Moments, right: Moments) -> Moments:
    """Source: Chan, Golub, LeVeque, "Updating formulae and a pairwise algorithm" (1979), eq. 2.1, symmetric form."""
    count = left.count + right.count
    if count == 0:
        return Moments()
    a, b = left.count / count, right.count / count
    delta = right.mean - left.mean
    m2 = left.m2 + right.m2 + delta * delta * (a * b * count)
    return Moments(count, left.mean * a + right.mean * b, m2, min(left.low, right.low), max(left.high, right.high))


def _merge_numeric(left: Numeric, right: Numeric) -> Numeric:
    if (left.type, left.edges, left.range) != (right.type, right.edges, right.range):
        raise ValueError("profiles of different references: type, edges or declared range differ")
    return replace(
        left,
        counts=_added(left.counts, right.counts),
        absent=_merge_absent(left.absent, right.absent),
        moments=merge_moments(left.moments, right.moments),
        huge=left.huge + right.huge,
        outside=left.outside + right.outside,
    )


def _merge_categorical(left: Categorical, right: Categorical) -> Categorical:
    one_reference = left.known is None or right.known is None or left.known == right.known
    shapes = [(c.type, c.categories.keys(), len(c.tail)) for c in (left, right)]
    if shapes[0] != shapes[1] or not one_reference:
        raise ValueError("profiles of different references: categories, tail or known values differ")
    return replace(
        left,
        categories={name: count + right.categories[name] for name, count in left.categories.items()},
        tail=_added(left.tail, right.tail),
        unseen=left.unseen + right.unseen,
        absent=_merge_absent(left.absent, right.absent),
        distinct=sketches.merge_distinct(left.distinct, right.distinct),
        known=right.known if left.known is None else left.known,
        once=max(left.once, right.once),  # of the one reference; a stored window may not carry it
    )


def _merge_absent(left: Absent, right: Absent) -> Absent:
    return Absent(left.nulls + right.nulls, left.missing + right.missing, left.mistyped + right.mistyped)


def _merge_optional(left: Feature | None, right: Feature | None) -> Feature | None:
    if left is None or right is None:
        if left is not right:
            raise ValueError("profiles of different references: prediction or label is only in one")
        return None
    return merge_feature(left, right)


def _added(left: tuple[int, ...], right: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(a + b for a, b in zip(left, right, strict=True))


def _emptied(feature: Feature) -> Feature:
    match feature:
        case Numeric():
            return Numeric(feature.type, feature.edges, (0,) * len(feature.counts), range=feature.range)
        case Categorical():
            return _emptied_categorical(feature)
        case Text():
            length = feature.length
            empty_length = Numeric(length.type, length.edges, (0,) * len(length.counts), range=length.range)
            return Text(_emptied_categorical(feature.words), empty_length)


def _emptied_categorical(feature: Categorical) -> Categorical:
    names = dict.fromkeys(feature.categories, 0)
    return Categorical(feature.type, names, (0,) * len(feature.tail), known=feature.known, once=feature.once)


def _thinned(feature: Feature) -> Feature:
    match feature:
        case Categorical():
            return replace(feature, known=None)
        case Text():
            return replace(feature, words=replace(feature.words, known=None))
        case Numeric():
            return feature
