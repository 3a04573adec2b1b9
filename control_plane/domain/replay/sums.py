"""What a replay keeps of its rows: sums by random group of customers, so its memory does not grow with the traffic."""

import math
from collections import Counter
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Final

import numpy as np
from numpy.typing import NDArray

from control_plane.domain.model_config import Costs, Problem
from control_plane.domain.quality import GRID
from control_plane.domain.replay import bounds
from control_plane.domain.replay.intervals import GROUPS

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Hashes = NDArray[np.uint64]

STEPS: Final = 2 * round(GRID * math.log(1e9)) + 1  # of log-odds, as in domain.quality: 0 and 1 are one in a billion
_CELLS: Final = 1 << 22  # of the bitmap that counts customers: 1 % up to ten million
_REST: Final = "\N{HORIZONTAL ELLIPSIS}"


class Known(IntEnum):
    """What is known of a row's truth."""

    WAITING = 0  # its label has not had its time
    UNKNOWN = 1  # nothing was reported, and that says nothing
    HIDDEN = 2  # the decision prevented the outcome
    LABELLED = 3


@dataclass(frozen=True, slots=True)
class Side:
    """One version's answers. `score`: NaN where there is no number; `said`: a decision of `Words`, -1 for none."""

    score: Floats
    said: Ints


@dataclass(frozen=True, slots=True)
class Rows:
    """n rows. `unit`: a uniform 64-bit hash of the customer. `truth`: 0 or 1 (binary), a decision of `Words`
    (multiclass), a value (regression). `amount`: what a false no costs, NaN for the constant."""

    unit: Hashes
    baseline: Side
    candidate: Side
    state: Ints
    truth: Floats
    amount: Floats
    segment: Ints | None = None


class Words:
    """Decisions as small numbers. Of a binary problem 0 is no and 1 is yes."""

    def __init__(self, *known: str, most: int = 2_000) -> None:
        """`most`: words kept apart; further ones are one."""
        self._most = most
        self._numbers = {word: number for number, word in enumerate(known)}
        self._words = list(known)

    def number(self, word: str | None) -> int:
        if word is None:
            return -1
        found = self._numbers.get(word)
        if found is None:
            if len(self._words) >= self._most:
                word = _REST
            found = self._numbers.setdefault(word, len(self._words))
            if found == len(self._words):
                self._words.append(word)
        return found

    def word(self, number: int) -> str:
        return self._words[number]


def _zeros(*shape: int) -> Floats:
    return np.zeros(shape, dtype=np.float64)


@dataclass(slots=True)
class Sums:
    """Sums by group; see `fold`. The first index of every array is the group, of `sides` the version."""

    problem: Problem
    costs: Costs | None = None
    rows: int = 0
    seen: NDArray[np.bool_] = field(default_factory=lambda: np.zeros(_CELLS, dtype=np.bool_))
    scores: Floats = field(default_factory=lambda: _zeros(GROUPS, 3))  # rows, baseline's sum, candidate's
    grids: tuple[Counter[int], Counter[int]] = field(default_factory=lambda: (Counter(), Counter()))
    decided: Floats = field(default_factory=lambda: _zeros(GROUPS, 2))  # rows, flips
    pairs: dict[tuple[int, int], Floats] = field(default_factory=dict[tuple[int, int], Floats])  # flips by direction
    states: Ints = field(default_factory=lambda: np.zeros(4, dtype=np.int64))
    known: Floats = field(default_factory=lambda: _zeros(GROUPS, 2, 2, 2))  # truth, baseline said, candidate said
    hidden: Floats = field(default_factory=lambda: _zeros(GROUPS, 2, 2))
    paid: Floats = field(default_factory=lambda: _zeros(GROUPS, 3))  # rows, baseline's cost, candidate's
    paid_hidden: Floats = field(default_factory=lambda: _zeros(GROUPS, 3))  # rows, least and most of the difference
    losses: Floats = field(default_factory=lambda: _zeros(GROUPS, 3))  # log loss, as `paid`
    losses_hidden: Floats = field(default_factory=lambda: _zeros(GROUPS, 3))
    bins: tuple[Floats, Floats] | None = None  # of each side: step of log-odds, truth
    named: tuple[list[Counter[tuple[int, int]]], list[Counter[tuple[int, int]]]] | None = None  # said, truth
    errors: tuple[Floats, Floats] = field(default_factory=lambda: (_zeros(GROUPS, 7), _zeros(GROUPS, 7)))
    segments: dict[int, Floats] = field(default_factory=dict[int, Floats])  # rows, difference, decided, flips

    def fold(self, rows: Rows) -> None:
        """Add rows that both versions answered."""
        group = (rows.unit % np.uint64(GROUPS)).astype(np.int64)
        self.rows += len(group)
        self.seen[((rows.unit >> np.uint64(8)) % np.uint64(_CELLS)).astype(np.int64)] = True
        self.states += np.bincount(rows.state, minlength=4)
        scored = np.isfinite(rows.baseline.score) & np.isfinite(rows.candidate.score)
        said = (rows.baseline.said >= 0) & (rows.candidate.said >= 0)
        flipped = said & (rows.baseline.said != rows.candidate.said)
        self._score(rows, group, scored)
        self._decide(rows, group, said, flipped)
        self._segment(rows, group, scored, said, flipped)
        match self.problem:
            case Problem.BINARY:
                self._judge(rows, group, scored, said)
            case Problem.MULTICLASS:
                self._name(rows, group, said & (rows.state == Known.LABELLED))
            case Problem.REGRESSION | Problem.OPAQUE:
                self._miss(rows, group, scored & (rows.state == Known.LABELLED))

    def units(self) -> int:
        """Customers, about: linear counting (Whang, Vander-Zanden & Taylor, ACM TODS 15, 1990)."""
        empty = _CELLS - int(self.seen.sum())
        return min(self.rows, round(-_CELLS * math.log(max(1, empty) / _CELLS)))

    def _score(self, rows: Rows, group: Ints, mine: NDArray[np.bool_]) -> None:
        at = group[mine]
        self.scores[:, 0] += np.bincount(at, minlength=GROUPS)
        for side, (answers, grid) in enumerate(zip((rows.baseline, rows.candidate), self.grids, strict=True)):
            values = answers.score[mine]
            self.scores[:, side + 1] += np.bincount(at, values, GROUPS)
            steps, counts = np.unique(step_of(values, self.problem), return_counts=True)
            grid.update(dict(zip(steps.tolist(), counts.tolist(), strict=True)))

    def _decide(self, rows: Rows, group: Ints, said: NDArray[np.bool_], flipped: NDArray[np.bool_]) -> None:
        self.decided[:, 0] += np.bincount(group[said], minlength=GROUPS)
        self.decided[:, 1] += np.bincount(group[flipped], minlength=GROUPS)
        found = np.stack((rows.baseline.said[flipped], rows.candidate.said[flipped], group[flipped]))
        for (before, after, at), count in zip(*_distinct(found), strict=True):
            if (before, after) not in self.pairs:
                self.pairs[before, after] = _zeros(GROUPS)
            self.pairs[before, after][at] += count

    def _segment(
        self,
        rows: Rows,
        group: Ints,
        scored: NDArray[np.bool_],
        said: NDArray[np.bool_],
        flipped: NDArray[np.bool_],
    ) -> None:
        if rows.segment is None:
            return
        moved = np.where(scored, rows.candidate.score - rows.baseline.score, 0.0)
        for number in np.unique(rows.segment).tolist():
            mine = rows.segment == number
            kept = self.segments.setdefault(number, _zeros(GROUPS, 4))
            for column, (chosen, weight) in enumerate(((scored, None), (scored, moved), (said, None), (flipped, None))):
                here = mine & chosen
                kept[:, column] += np.bincount(group[here], None if weight is None else weight[here], GROUPS)

    def _judge(self, rows: Rows, group: Ints, scored: NDArray[np.bool_], said: NDArray[np.bool_]) -> None:
        labelled, hidden = rows.state == Known.LABELLED, rows.state == Known.HIDDEN
        before, after = rows.baseline.said, rows.candidate.said
        mine = labelled & said
        truth = np.where(labelled, rows.truth, 0.0).astype(np.int64)
        index = ((group * 2 + truth) * 2 + before) * 2 + after
        self.known += np.bincount(index[mine], minlength=GROUPS * 8).reshape(GROUPS, 2, 2, 2)
        index = (group * 2 + before) * 2 + after
        self.hidden += np.bincount(index[hidden & said], minlength=GROUPS * 4).reshape(GROUPS, 2, 2)
        if self.costs is not None:
            for side, answers in enumerate((before, after)):
                spent = np.where(truth == 1, *self._prices(answers, rows.amount))
                self.paid[:, side + 1] += np.bincount(group[mine], spent[mine], GROUPS)
            self.paid[:, 0] += np.bincount(group[mine], minlength=GROUPS)
            yes_before, no_before = self._prices(before, rows.amount)
            yes_after, no_after = self._prices(after, rows.amount)
            _spread(self.paid_hidden, group, hidden & said, no_after - no_before, yes_after - yes_before)
        mine, ends = labelled & scored, list[tuple[Floats, Floats]]()
        if self.bins is None:
            self.bins = _zeros(GROUPS, STEPS, 2), _zeros(GROUPS, STEPS, 2)
        for side, scores in enumerate((rows.baseline.score, rows.candidate.score)):
            inside = np.clip(np.where(scored, scores, 0.5), 1e-9, 1 - 1e-9)
            no, yes = -np.log1p(-inside), -np.log(inside)
            ends.append((no, yes))
            self.losses[:, side + 1] += np.bincount(group[mine], np.where(truth == 1, yes, no)[mine], GROUPS)
            steps = step_of(inside, Problem.BINARY) + STEPS // 2
            index = (group * STEPS + steps) * 2 + truth
            self.bins[side][...] += np.bincount(index[mine], minlength=GROUPS * STEPS * 2).reshape(GROUPS, STEPS, 2)
        self.losses[:, 0] += np.bincount(group[mine], minlength=GROUPS)
        (no_b, yes_b), (no_c, yes_c) = ends
        _spread(self.losses_hidden, group, hidden & scored, no_c - no_b, yes_c - yes_b)

    def _prices(self, said: Ints, amount: Floats) -> tuple[Floats, Floats]:
        """What the decision costs where the truth is yes, and where it is no."""
        costs = self.costs or Costs()
        missed = np.where(np.isfinite(amount), amount, costs.false_negative)
        return np.where(said == 1, costs.true_positive, missed), np.where(
            said == 1, costs.false_positive, costs.true_negative
        )

    def _name(self, rows: Rows, group: Ints, mine: NDArray[np.bool_]) -> None:
        if self.named is None:
            self.named = [Counter() for _ in range(GROUPS)], [Counter() for _ in range(GROUPS)]
        for side, answers in enumerate((rows.baseline, rows.candidate)):
            found = np.stack((group[mine], answers.said[mine], rows.truth[mine].astype(np.int64)))
            for (at, said, truth), count in zip(*_distinct(found), strict=True):
                self.named[side][at][said, truth] += count

    def _miss(self, rows: Rows, group: Ints, mine: NDArray[np.bool_]) -> None:
        truth, at = rows.truth[mine], group[mine]
        for side, answers in enumerate((rows.baseline, rows.candidate)):
            error = answers.score[mine] - truth
            columns = (np.ones_like(error), error, abs(error), error**2, error**4, truth, truth**2)
            for number, column in enumerate(columns):
                self.errors[side][:, number] += np.bincount(at, column, GROUPS)


def step_of(values: Floats, problem: Problem) -> Ints:
    """The step of the grid a score is on: of log-odds for probabilities, else of asinh; 64 to a factor of e."""
    if problem in {Problem.BINARY, Problem.MULTICLASS}:
        inside = np.clip(values, 1e-9, 1 - 1e-9)
        steps: Floats = np.rint(GRID * np.log(inside / (1 - inside)))
    else:
        steps = np.rint(GRID * np.arcsinh(values))
    return steps.astype(np.int64)


def middle_of(step: float, problem: Problem) -> float:
    """The score a step of the grid stands for."""
    if problem in {Problem.BINARY, Problem.MULTICLASS}:
        return (1 + math.tanh(step / GRID / 2)) / 2
    return math.sinh(step / GRID)


def _spread(kept: Floats, group: Ints, mine: NDArray[np.bool_], if_no: Floats, if_yes: Floats) -> None:
    least, most = bounds.cost(if_no[mine], if_yes[mine])
    kept[:, 0] += np.bincount(group[mine], minlength=GROUPS)
    kept[:, 1] += np.bincount(group[mine], least, GROUPS)
    kept[:, 2] += np.bincount(group[mine], most, GROUPS)


def _distinct(found: Ints) -> tuple[list[tuple[int, int, int]], list[int]]:
    """The distinct columns of three rows, and how often each is there."""
    if not found.shape[1]:
        return [], []
    columns, counts = np.unique(found, axis=1, return_counts=True)
    return [(int(a), int(b), int(c)) for a, b, c in columns.T], counts.tolist()
