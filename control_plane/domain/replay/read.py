"""From the sums of a replay to what it says: shift, flips, metrics, segments."""

from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from itertools import accumulate
from typing import Final

import numpy as np

from control_plane.domain import quality
from control_plane.domain.drift import scores
from control_plane.domain.model_config import Problem
from control_plane.domain.quality import Tally
from control_plane.domain.replay import bounds, intervals
from control_plane.domain.replay.intervals import GROUPS
from control_plane.domain.replay.report import Cell, Change, Direction, Interval, Labels, Segment, Shift, Spread
from control_plane.domain.replay.sums import STEPS, Floats, Known, Sums, Words, middle_of

_BINS: Final = 10
_SMOOTHING: Final = 0.5
_CONFIDENCE: Final = 0.95
_DIRECTIONS: Final = 20
_LOWER_IS_BETTER: Final = frozenset({"log_loss", "cost", "rmse", "mae"})
_SHOWN: Final = {
    Problem.BINARY: ("roc_auc", "average_precision", "log_loss", "accuracy", "precision", "recall", "cost"),
    Problem.MULTICLASS: ("accuracy", "macro_f1"),
    Problem.REGRESSION: ("mae", "rmse", "r2"),
    Problem.OPAQUE: ("mae", "rmse"),
}


def shift(sums: Sums) -> Shift | None:
    """None where no row has two scores."""
    rows = sums.scores[:, 0]
    total = rows.sum()
    if not total:
        return None
    before, after = _spread(sums, 0), _spread(sums, 1)
    difference = _ratio(sums.scores[:, 2] - sums.scores[:, 1], rows)
    edges, counts = _cells(sums)
    psi = scores.psi(counts[0], counts[1], smoothing=_SMOOTHING) if len(counts[0]) > 1 else 0.0
    shares = counts / counts.sum(axis=1, keepdims=True)
    cells = tuple(
        Cell(low, high, float(p), float(q)) for low, high, p, q in zip(edges, edges[1:], *shares, strict=False)
    )
    return Shift(int(total), before, after, difference, psi, cells)


def flips(sums: Sums, words: Words) -> tuple[int, int, Interval, tuple[Direction, ...]] | None:
    """Rows that both decided, flips, their rate and directions; None where nothing was decided."""
    rows, units = sums.decided[:, 0], sums.units()
    if not rows.sum():
        return None
    rate = intervals.share(sums.decided[:, 1].tolist(), rows.tolist(), units=units)
    found = sorted(sums.pairs.items(), key=lambda item: -item[1].sum())[:_DIRECTIONS]
    directions = tuple(
        Direction(
            words.word(before),
            words.word(after),
            int(count.sum()),
            intervals.share(count.tolist(), rows.tolist(), units=units),
        )
        for (before, after), count in found
    )
    return int(rows.sum()), int(sums.decided[:, 1].sum()), rate, directions


def labels(sums: Sums) -> Labels:
    counts = sums.states.tolist()
    return Labels(counts[Known.LABELLED], counts[Known.HIDDEN], counts[Known.UNKNOWN], counts[Known.WAITING])


def metrics(sums: Sums) -> tuple[Change, ...]:
    """Every metric the problem has, on rows whose truth is known; bounds where the decision hid some of it."""
    hides = sums.problem is Problem.BINARY and bool(sums.states[Known.HIDDEN])
    pair = _Figures(sums)
    before, after = pair.of(0, None), pair.of(1, None)
    bounded = _bounded(sums) if hides else {}
    made: list[Change] = []
    without: list[tuple[Mapping[str, float], Mapping[str, float]]] | None = None
    for name in _SHOWN[sums.problem]:
        better = name not in _LOWER_IS_BETTER
        mine = before.get(name), after.get(name)
        if hides:
            hidden = int(sums.states[Known.HIDDEN])
            if name in bounded:
                low, high, interval = bounded[name]
                why = f"The decision prevented the outcome of {hidden:,} rows; every truth of theirs is allowed for."
                made.append(Change(name, better, *mine, interval, (low, high), why))
            elif None not in mine:
                why = f"The decision prevented the outcome of {hidden:,} rows, which cannot be ranked without it."
                made.append(Change(name, better, *mine, None, None, why))
        elif mine[0] is not None and mine[1] is not None:
            if without is None:
                without = [(pair.of(0, group), pair.of(1, group)) for group in pair.groups]
            left = [b.get(name, float("nan")) - a.get(name, float("nan")) for a, b in without]
            made.append(Change(name, better, *mine, intervals.jackknife(mine[1] - mine[0], left)))
    return tuple(made)


def segments(sums: Sums, names: Callable[[int], str]) -> tuple[Segment, ...]:
    """The largest first."""
    made: list[Segment] = []
    for number, kept in sums.segments.items():
        rows, decided = kept[:, 0], kept[:, 2]
        moved = _ratio(kept[:, 1], rows) if rows.sum() else None
        units = max(1, min(sums.units(), int(decided.sum())))
        rate = intervals.share(kept[:, 3].tolist(), decided.tolist(), units=units) if decided.sum() else None
        made.append(Segment(names(number), int(max(rows.sum(), decided.sum())), moved, rate))
    return tuple(sorted(made, key=lambda segment: -segment.rows))


def _ratio(parts: Floats, rows: Floats) -> Interval:
    """A mean with its interval; by group: sums and rows."""
    mine = rows > 0
    value = float(parts.sum() / rows.sum())
    left = rows.sum() - rows[mine]
    if not (left > 0).all():
        return Interval(value)
    return intervals.jackknife(value, ((parts.sum() - parts[mine]) / left).tolist())


def _spread(sums: Sums, side: int) -> Spread:
    steps = sorted(sums.grids[side].items())
    counts = list(accumulate(count for _, count in steps))
    at = [steps[bisect_left(counts, share * counts[-1])][0] for share in (0.05, 0.25, 0.5, 0.75, 0.95)]
    mean = float(sums.scores[:, side + 1].sum() / sums.scores[:, 0].sum())
    p05, p25, p50, p75, p95 = (middle_of(step, sums.problem) for step in at)
    return Spread(mean, p05, p25, p50, p75, p95)


def _cells(sums: Sums) -> tuple[list[float], Floats]:
    """Cells with a tenth of the baseline's scores each, as far as its grid allows: edges, and counts of both sides."""
    steps = sorted(sums.grids[0] | sums.grids[1])
    total, seen, cuts = sum(sums.grids[0].values()), 0, list[int]()
    for step in steps:
        seen += sums.grids[0].get(step, 0)
        if seen * _BINS >= total * (len(cuts) + 1) and step != steps[-1] and seen < total:
            cuts.append(step)
            while len(cuts) < _BINS and seen * _BINS >= total * (len(cuts) + 1):
                cuts.append(step)  # one step holds several tenths
    upper = sorted(set(cuts))
    counts = np.zeros((2, len(upper) + 1))
    for side, grid in enumerate(sums.grids):
        for step, count in grid.items():
            counts[side, int(np.searchsorted(upper, step))] += count
    inner = [middle_of(step + 0.5, sums.problem) for step in upper]
    return [middle_of(steps[0] - 0.5, sums.problem), *inner, middle_of(steps[-1] + 0.5, sums.problem)], counts


class _Figures:
    """Metrics of one side, of all rows or of all but one group's."""

    def __init__(self, sums: Sums) -> None:
        self._sums = sums
        match sums.problem:
            case Problem.BINARY:
                sizes = sums.known.sum(axis=(1, 2, 3)) + sums.losses[:, 0]
            case Problem.MULTICLASS:
                sizes = np.array([sum(one.values()) for one in sums.named[0]] if sums.named else [0.0] * GROUPS)
            case Problem.REGRESSION | Problem.OPAQUE:
                sizes = sums.errors[0][:, 0]
        self.groups = np.nonzero(sizes)[0].tolist()
        bins = sums.bins or (np.zeros((GROUPS, STEPS, 2)),) * 2
        self._bins = bins, tuple(side.sum(axis=0) for side in bins)
        named = sums.named or ([], [])
        self._named = named, tuple(_merged(side) for side in named)

    def of(self, side: int, without: int | None) -> dict[str, float]:
        sums, tally, found = self._sums, Tally(), dict[str, float]()
        match sums.problem:
            case Problem.BINARY:
                table = _left(sums.known, without).sum(axis=1 + (side == 0))  # truth, said
                tally.decided = [int(count) for count in table.ravel()]
                bins = self._bins[1][side] - (0 if without is None else self._bins[0][side][without])
                steps = np.nonzero(bins.sum(axis=1))[0]
                counts = bins[steps].astype(np.int64).tolist()
                tally.bins = dict(zip((steps - STEPS // 2).tolist(), counts, strict=True))
                for name, kept in (("cost", sums.paid), ("log_loss", sums.losses)):
                    rows, *totals = _left(kept, without)
                    if rows:
                        found[name] = float(totals[side] / rows)
            case Problem.MULTICLASS:
                pairs = self._named[1][side]
                less = Counter[tuple[int, int]]() if without is None else self._named[0][side][without]
                for pair, count in pairs.items():
                    if left := count - less.get(pair, 0):
                        tally.pairs[str(pair[0]), str(pair[1])] = left
            case Problem.REGRESSION | Problem.OPAQUE:
                tally.errors = _left(sums.errors[side], without).tolist()
        measured = quality.metrics(tally, sums.problem, None)
        return {name: estimate.value for name, estimate in measured.items()} | found


def _bounded(sums: Sums) -> dict[str, tuple[float, float, Interval]]:
    """Lowest and highest candidate - baseline, and the interval that holds both ends."""
    ends = _decision_ends(sums, None)
    groups = np.nonzero(sums.known.sum(axis=(1, 2, 3)) + sums.hidden.sum(axis=(1, 2)))[0].tolist()
    left = [_decision_ends(sums, group) for group in groups]
    made: dict[str, tuple[float, float, Interval]] = {}
    for name, (low, high) in ends.items():
        if np.isfinite([low, high]).all():
            lows, highs = ([one[name][end] for one in left if name in one] for end in (0, 1))
            made[name] = low, high, intervals.outer(low, high, lows, highs, confidence=_CONFIDENCE)
    return made


def _decision_ends(sums: Sums, without: int | None) -> dict[str, tuple[float, float]]:
    found = dict(bounds.decisions(_left(sums.known, without), _left(sums.hidden, without)))
    for name, known, hidden in (
        ("cost", sums.paid, sums.paid_hidden),
        ("log_loss", sums.losses, sums.losses_hidden),
    ):
        (rows, before, after), (unknown, least, most) = _left(known, without), _left(hidden, without)
        if rows + unknown and (name != "cost" or sums.costs is not None):
            sure, n = after - before, rows + unknown
            found[name] = float((sure + least) / n), float((sure + most) / n)
    return found


def _left(by_group: Floats, without: int | None) -> Floats:
    """The sum over all groups, or over all but one."""
    total: Floats = by_group.sum(axis=0)
    return total if without is None else total - by_group[without]


def _merged(counters: Iterable[Counter[tuple[int, int]]]) -> Counter[tuple[int, int]]:
    made = Counter[tuple[int, int]]()
    for counter in counters:
        made.update(counter)
    return made
