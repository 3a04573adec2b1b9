"""Builds profiles from columns, fast: each numeric column is sorted once and the edges are looked up in it.

A column is a numpy array or any sequence of Python values; None, NaN and the sentinel MISSING mean "no value".
Numbers are compared in single precision where the edges leave it room (`single_precision`), which sorts four times
faster; the choice follows from the edges alone, so every process makes the same one.
"""

import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from functools import lru_cache
from typing import Any, Final, cast

import numpy as np
from numpy.typing import NDArray

from control_plane.domain.drift import sketches
from control_plane.domain.drift.profiles import (
    HUGE,
    Absent,
    Categorical,
    Feature,
    Moments,
    Numeric,
    Profile,
    Text,
    empty_like,
)
from control_plane.domain.model_config import FeatureType


class _Mark(Enum):
    MISSING = "missing"
    MISTYPED = "mistyped"


MISSING: Final = _Mark.MISSING  # the row has no such key
_MISTYPED: Final = _Mark.MISTYPED
Floats = NDArray[np.float64]
Column = NDArray[Any] | Sequence[object]
_WORD = re.compile(r"\w+")
_MAX_WORDS = 256  # of one text; the rest of a longer one is not counted
_BLOCK = 16_384  # values at a time that stay in the processor's cache
_ROOM = 1024  # single precision needs this many steps between neighbouring edges


@dataclass(frozen=True, slots=True)
class Cells:
    """How a reference cuts its features. `bins`: quantile cells of a number. `named`: categories counted by name.

    `tail`: hash buckets for the categories beyond those.
    """

    bins: int = 16
    named: int = 64
    tail: int = 16

    def __post_init__(self) -> None:
        if min(self.bins, self.named, self.tail) < 1:
            raise ValueError(f"bins, named and tail must be at least 1, got {self}")


def reference(
    columns: Mapping[str, Column],
    types: Mapping[str, FeatureType],
    *,
    cells: Cells,
    ranges: Mapping[str, tuple[float, float]] | None = None,
    prediction: tuple[FeatureType, Column] | None = None,
    label: tuple[FeatureType, Column] | None = None,
) -> Profile:
    """The profile that defines the cells of all windows to come, filled with its own rows.

    Raises ValueError if a declared column is absent or the columns differ in length.
    """
    rows = _rows(columns.values())
    absent = [name for name in types if name not in columns]
    if absent:
        raise ValueError(f"no column for {absent}")
    features = {n: reference_feature(columns[n], t, cells=cells, range=(ranges or {}).get(n)) for n, t in types.items()}
    answers = (None if g is None else reference_feature(g[1], g[0], cells=cells) for g in (prediction, label))
    return Profile(rows, features, *answers)


def reference_feature(
    column: Column, kind: FeatureType, *, cells: Cells, range: tuple[float, float] | None = None
) -> Feature:
    match kind:
        case FeatureType.NUMBER | FeatureType.INTEGER:
            values, absent = numbers(column)
            return reference_numbers(kind, values, absent=absent, cells=cells, range=range)
        case FeatureType.BOOLEAN | FeatureType.CATEGORY:
            counts, absent = categories(column)
            return reference_counts(kind, counts, absent=absent, cells=cells)
        case FeatureType.TEXT:
            words, lengths, _ = _texts(column)
            edges = quantile_edges(lengths, bins=cells.bins)
            length = Numeric(FeatureType.INTEGER, edges, (0,) * (len(edges) + 1))
            return fold_feature(Text(_category_grid(FeatureType.CATEGORY, words, cells), length), column)


def reference_numbers(
    kind: FeatureType,
    values: Floats,
    *,
    absent: Absent,
    cells: Cells,
    range: tuple[float, float] | None = None,
) -> Numeric:
    """`values`: float64, NaN where null (counted on top of `absent`)."""
    edges, ordered = _cut(values, bins=cells.bins)
    grid = Numeric(kind, edges, (0,) * (len(edges) + 1), range=range)
    return fold_numbers(grid, values, absent=absent, ordered=ordered)


def reference_counts(kind: FeatureType, counts: Mapping[str, int], *, absent: Absent, cells: Cells) -> Categorical:
    """`counts`: rows per value; of a boolean "true" and "false"."""
    if kind is FeatureType.BOOLEAN:
        return fold_categories(Categorical(kind, {"false": 0, "true": 0}, known=b""), counts, absent=absent)
    return fold_categories(_category_grid(kind, counts, cells), counts, absent=absent)


def fold(
    grid: Profile, columns: Mapping[str, Column], *, prediction: Column | None = None, label: Column | None = None
) -> Profile:
    """The profile of these rows on the cells of `grid`, the reference with its filters. Its counts are not added.

    A feature without a column counts every row as missing; a column `grid` does not know is ignored. Without rows for
    `prediction` or `label` those cells stay empty.
    """
    given = [*columns.values(), *(c for c in (prediction, label) if c is not None)]
    rows = _rows(given)
    blank = empty_like(grid)
    features: dict[str, Feature] = {}
    for name, feature in blank.features.items():
        column = columns.get(name)
        features[name] = _all_missing(feature, rows) if column is None else fold_feature(feature, column)
    extras = ((blank.prediction, prediction), (blank.label, label))
    named = (f if f is None or column is None else fold_feature(f, column) for f, column in extras)
    return Profile(rows, features, *named)


def fold_rows(grid: Profile, rows: Sequence[Mapping[str, object]]) -> Profile:
    """As `fold`, for the rows of predict bodies: {feature: value}."""
    columns = {name: [row.get(name, MISSING) for row in rows] for name in grid.features}
    return replace(fold(grid, columns), rows=len(rows))


def fold_feature(grid: Feature, column: Column) -> Feature:
    """One column on the cells of `grid`, whose own counts are not added."""
    match grid:
        case Numeric():
            values, absent = numbers(column)
            return fold_numbers(grid, values, absent=absent)
        case Categorical():
            counts, absent = categories(column)
            return fold_categories(grid, counts, absent=absent)
        case Text():
            words, lengths, absent = _texts(column)
            length = fold_numbers(grid.length, lengths, absent=absent)
            return Text(fold_categories(grid.words, words, absent=Absent()), length)


def fold_numbers(
    grid: Numeric, values: Floats, *, absent: Absent, ordered: NDArray[np.floating[Any]] | None = None
) -> Numeric:
    """`values`: float64, NaN where null (counted on top of `absent`). `ordered`: the others sorted, if that is done."""
    if ordered is None:
        ordered = ordered_values(values, single=single_precision(grid.edges))
    usable = int(np.searchsorted(ordered, np.nan))  # NaN sorts last
    ordered = ordered[:usable]
    edges = np.asarray(grid.edges, dtype=ordered.dtype)
    bounds = np.searchsorted(ordered, edges[:-1], side="left")
    last = np.searchsorted(ordered, edges[-1:], side="right")
    counts = np.diff(np.concatenate(([0], bounds, last, [usable])))
    finite = values if usable == len(values) else values[~np.isnan(values)]
    huge = outside = 0
    if usable and max(-float(ordered[0]), float(ordered[-1])) > HUGE:  # the ends of what is sorted already
        finite = finite[np.abs(finite) <= HUGE]
        huge = usable - len(finite)
    if grid.range is not None:
        low, high = grid.range
        outside = huge + int(np.count_nonzero((finite < low) | (finite > high)))
    nulls = absent.nulls + len(values) - usable
    return replace(
        grid,
        counts=tuple(int(c) for c in counts),
        absent=replace(absent, nulls=nulls),
        moments=_moments(finite),
        huge=huge,
        outside=outside,
    )


def fold_categories(grid: Categorical, counts: Mapping[str, int], *, absent: Absent) -> Categorical:
    """`counts`: rows per value, e.g. from a GROUP BY or a dictionary-encoded column."""
    named = dict.fromkeys(grid.categories, 0)
    tail, unseen = [0] * len(grid.tail), 0
    hashes: list[int] = []
    for value, count in counts.items():
        hashes.append(hashed := sketches.hash64(value))
        if value in named:
            named[value] = count
        elif grid.known is None or sketches.is_member(grid.known, hashed):
            tail[hashed % len(tail)] += count
        else:
            unseen += count
    if grid.type is FeatureType.BOOLEAN:  # what is neither true nor false is of another type
        absent, unseen = replace(absent, mistyped=absent.mistyped + unseen), 0
    distinct = sketches.add_distinct(sketches.empty_distinct(), hashes)
    return replace(grid, categories=named, tail=tuple(tail), unseen=unseen, absent=absent, distinct=distinct)


def quantile_edges(values: Floats, *, bins: int) -> tuple[float, ...]:
    """Edges of about equally filled cells over the values that are neither NaN nor huge; at most bins + 1, ascending.

    Up to `bins` distinct values get a cell each (edges half-way between them). A value that fills several cells by
    itself leaves fewer, wider ones around it. No usable value: no edges.
    """
    return _cut(values, bins=bins)[0]


def _cut(values: Floats, *, bins: int) -> tuple[tuple[float, ...], NDArray[np.floating[Any]] | None]:
    """Edges, and the values in order as `fold_numbers` wants them; None where huge ones would be missing."""
    if bins < 1:
        raise ValueError(f"bins must be at least 1, got {bins}")
    for single in (True, False):
        ordered = ordered_values(values, single=single)
        ordered = ordered[: np.searchsorted(ordered, np.nan)]  # NaN sorts last
        whole = not len(ordered) or max(-float(ordered[0]), float(ordered[-1])) <= HUGE
        if not whole:
            ordered = ordered_values(values[np.abs(values) <= HUGE], single=single)
        if not len(ordered):
            return (), None
        found = _edges(ordered, bins)
        if single_precision(found) or not single:
            return found, ordered if whole and single_precision(found) is single else None
    raise AssertionError("the second pass always returns")  # pragma: no cover


def _edges(ordered: NDArray[np.floating[Any]], bins: int) -> tuple[float, ...]:
    """Of at least one value, none of them NaN."""
    differ = ordered[1:] != ordered[:-1]
    if np.count_nonzero(differ) < bins:
        changes = np.flatnonzero(differ)
        lower, upper = ordered[changes].astype(np.float64), ordered[changes + 1].astype(np.float64)
        middles = np.maximum((lower + upper) / 2, np.nextafter(lower, upper))  # neighbours have no middle
        edges = np.concatenate(([ordered[0]], middles, [ordered[-1]])).astype(np.float64)
    else:
        edges = np.unique(ordered[np.arange(bins + 1) * (len(ordered) - 1) // bins]).astype(np.float64)
    return tuple(float(e) for e in edges)


@lru_cache(maxsize=1 << 12)
def single_precision(edges: tuple[float, ...]) -> bool:
    """Whether float32 tells values apart well enough on these edges: many steps between any two of them."""
    if len(edges) < 2 or edges[0] == edges[-1]:
        return False
    array = np.asarray(edges, dtype=np.float64)
    if np.abs(array).max() > float(np.finfo(np.float32).max):
        return False
    step = np.spacing(np.abs(array).astype(np.float32)).astype(np.float64)
    gap = np.diff(array)
    return bool((gap >= _ROOM * np.maximum(step[1:], step[:-1])).all())


def ordered_values(values: Floats, *, single: bool) -> NDArray[np.floating[Any]]:
    """A sorted copy, NaN last."""
    if not single:
        return np.sort(values)
    with np.errstate(over="ignore"):  # beyond float32 is infinite, and sorts to the same end
        narrow = values.astype(np.float32)
    narrow.sort()
    return narrow


def numbers(column: Column) -> tuple[Floats, Absent]:
    """Values as float64 with NaN for null; mistyped and missing rows are left out and counted."""
    if isinstance(column, np.ndarray) and column.dtype.kind in "fiu":
        return column.astype(np.float64, copy=False), Absent()
    values = _listed(column)
    if set(map(type, values)) <= {float, int, type(None)}:
        try:
            return np.array(values, dtype=np.float64), Absent()
        except OverflowError:  # an integer beyond float64
            pass
    kept: list[float] = []
    missing = mistyped = 0
    for value in values:
        if value is MISSING:
            missing += 1
        elif value is None:
            kept.append(math.nan)
        elif isinstance(value, int | float | np.number) and not isinstance(value, bool | np.complexfloating):
            kept.append(_as_float(cast(float, value)))
        else:
            mistyped += 1
    return np.array(kept, dtype=np.float64), Absent(0, missing, mistyped)


def categories(column: Column) -> tuple[dict[str, int], Absent]:
    """Rows per value. Only strings and booleans are categories; a boolean is "true" or "false"."""
    listed = _listed(column)
    kinds = set(map(type, listed))
    counted = Counter(listed if kinds <= {str, type(None)} else map(_category, listed))
    nulls, missing, mistyped = (counted.pop(mark, 0) for mark in (None, MISSING, _MISTYPED))
    return cast(dict[str, int], dict(counted)), Absent(nulls, missing, mistyped)


def words_of(text: str) -> list[str]:
    """Lower-case runs of letters, digits and underscores, at most the first 256."""
    return [match.group() for _, match in zip(range(_MAX_WORDS), _WORD.finditer(text.lower()), strict=False)]


def _texts(column: Column) -> tuple[dict[str, int], Floats, Absent]:
    counted, absent = categories(column)  # equal texts are cut into words once
    words: Counter[str] = Counter()
    for text, count in counted.items():
        for word in words_of(text):
            words[word] += count
    lengths = np.fromiter((len(text) for text in counted), dtype=np.float64, count=len(counted))
    return dict(words), np.repeat(lengths, list(counted.values())), absent


def _category_grid(kind: FeatureType, counts: Mapping[str, int], cells: Cells) -> Categorical:
    frequent = sorted(counts, key=lambda value: (-counts[value], value))
    named, rest = frequent[: cells.named], frequent[cells.named :]
    known = sketches.members(sketches.hash64(value) for value in rest)
    once = sum(1 for value in rest if counts[value] == 1)
    return Categorical(kind, dict.fromkeys(named, 0), (0,) * (cells.tail if rest else 1), known=known, once=once)


def _all_missing(feature: Feature, rows: int) -> Feature:
    absent = Absent(missing=rows)
    if isinstance(feature, Text):
        return replace(feature, length=replace(feature.length, absent=absent))
    return replace(feature, absent=absent)


def _moments(values: Floats) -> Moments:
    if not len(values):
        return Moments()
    mean, squares = float(values.mean()), 0.0
    for at in range(0, len(values), _BLOCK):
        deviations = values[at : at + _BLOCK] - mean
        squares += float(
            np.einsum("i,i->", deviations, deviations)
        )  # not by BLAS, which would start threads of its own
    return Moments(len(values), mean, squares, float(values.min()), float(values.max()))


def _rows(columns: Iterable[Column]) -> int:
    lengths = {len(column) for column in columns}
    if len(lengths) > 1:
        raise ValueError(f"columns differ in length: {sorted(lengths)}")
    return lengths.pop() if lengths else 0


def _listed(column: Column) -> Sequence[object]:
    return cast(list[object], column.tolist()) if isinstance(column, np.ndarray) else column


def _category(value: object) -> object:
    if isinstance(value, bool | np.bool_):
        return "true" if value else "false"
    if value is MISSING or isinstance(value, str):
        return value
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    return _MISTYPED


def _as_float(value: float) -> float:
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf
