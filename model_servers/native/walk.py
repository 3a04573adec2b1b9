"""Walks tree ensembles in numpy, all trees and rows level by level: a few rows cost a third of the library's call.

The library prepares every call anew (it reads JSON, looks for each tree's depth, lays out the tops of the trees), which
costs more than the trees for the rows of one tick. Its arithmetic is repeated exactly: comparisons and the sum of the
leaves in float32, in the order of the trees. From some number of rows on the library is faster; where that is depends
on the trees and the machine and is measured when the model is loaded.
"""

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

_MOST_ROWS: Final = 64  # beyond that the library is faster whatever the trees are
_TRIES: Final = 7
_PROBED: Final = 512  # rows
_MOST_NODES: Final = 1_000_000  # of all trees: 24 MB
_Floats = NDArray[np.float64]


class Unsuitable(Exception):
    """The trees are of a kind that is not walked here."""


@dataclass(frozen=True, slots=True)
class Walk:
    """Nodes of all trees in one array, the two children of a node side by side; a leaf is its own left child.

    `feature`: 2 x column, plus 1 where a missing value goes right: a row is read from pairs (x, x), in which missing
    values are (-inf, +inf), so that one comparison sends them the right way. The threshold of a leaf is NaN: every
    comparison with it is false, and the walk stays.
    """

    columns: int
    outputs: int
    depth: int
    base: NDArray[np.float32]  # (outputs,)
    feature: NDArray[np.intp]
    threshold: NDArray[np.float32]
    left: NDArray[np.intp]
    value: NDArray[np.float32]
    roots: NDArray[np.intp]  # in the order the library sums the trees

    def margins(self, matrix: NDArray[np.float32]) -> _Floats:
        """(n, outputs) of float32 rows, NaN for missing."""
        rows = len(matrix)
        pairs = np.repeat(matrix, 2, axis=1)
        missing = np.isnan(matrix)
        if missing.any():
            pairs[:, 0::2][missing] = -np.inf
            pairs[:, 1::2][missing] = np.inf
        flat = pairs.ravel()
        node = np.repeat(self.roots[None], rows, axis=0)
        first = (np.arange(rows) * pairs.shape[1])[:, None]
        for _ in range(self.depth):
            at = self.feature.take(node)
            if rows > 1:
                at += first
            goes_right = flat.take(at) >= self.threshold.take(node)
            node = self.left.take(node)
            node += goes_right
        leaves = self.value.take(node)
        made = np.empty((rows, self.outputs), np.float32)
        for output in range(self.outputs):
            # Trees of several outputs take turns. A running sum adds in order, as the library does; `sum` does not.
            terms = leaves[:, output :: self.outputs]
            terms[:, 0] += self.base[output]
            made[:, output] = terms.cumsum(axis=1, dtype=np.float32)[:, -1]
        return made.astype(np.float64)

    def probe(self, rows: int) -> NDArray[np.float32]:
        """Rows of the trees' own thresholds, some a step below, some missing: where two readings would differ."""
        rng = np.random.default_rng(0)
        made = np.zeros((rows, self.columns), np.float32)
        for column in range(self.columns):
            limits = self.threshold[(self.feature // 2 == column) & ~np.isnan(self.threshold)]
            made[:, column] = rng.choice(limits, rows) if limits.size else 0.0
        below = rng.random(made.shape) < 0.5
        made[below] = np.nextafter(made[below], np.float32(-np.inf))
        made[rng.random(made.shape) < 0.1] = np.nan
        return made


def of_xgboost(model: dict[str, Any], columns: int, library: Callable[[NDArray[np.float32]], _Floats]) -> Walk:
    """From the library's own JSON document, held equal to its answers bit by bit on rows made to tell them apart.

    Raises Unsuitable for trees that are not walked here, and where a single bit differs. `library`: margins of rows.
    """
    outputs = library(np.zeros((1, columns), np.float32)).shape[1]
    try:
        learner = model["learner"]
        booster = learner["gradient_booster"]
        if booster["name"] != "gbtree":
            raise Unsuitable("weighted trees, or none")
        trees, groups = booster["model"]["trees"], booster["model"]["tree_info"]
        if any(any(tree["split_type"]) for tree in trees):
            raise Unsuitable("splits of categories")
        if not trees or sum(len(tree["left_children"]) for tree in trees) > _MOST_NODES:
            raise Unsuitable("no trees, or too many")
        if groups != [i % outputs for i in range(len(trees))]:
            raise Unsuitable("trees that do not take turns")
        scores = np.array(json.loads(learner["learner_model_param"]["base_score"]), np.float32)
        if scores.size not in {1, outputs}:
            raise Unsuitable("base scores of other outputs")
        walk = _walk(trees, columns, outputs)
    except (KeyError, IndexError, TypeError, ValueError) as exc:
        raise Unsuitable(f"no document that is known: {exc!r}") from exc
    if walk.feature.max() >= 2 * columns or np.isinf(walk.threshold).any():
        raise Unsuitable("columns that are not there, or thresholds beyond float32")
    probe = walk.probe(_PROBED)
    expected = library(probe)
    for base in _bases(scores.ravel(), outputs):
        held = replace(walk, base=base)
        if np.array_equal(held.margins(probe), expected):
            return held
    raise Unsuitable("the library does not agree")


def _bases(scores: NDArray[np.float32], outputs: int) -> Iterator[NDArray[np.float32]]:
    """What the sums may start from: the base score itself, or its log-odds, which depends on the objective."""
    yield np.broadcast_to(scores, (outputs,)).astype(np.float32)
    with np.errstate(all="ignore"):
        odds = -np.log(np.float32(1) / scores - np.float32(1))
    for step in (odds, np.nextafter(odds, np.float32(-np.inf)), np.nextafter(odds, np.float32(np.inf))):
        yield np.broadcast_to(step, (outputs,)).astype(np.float32)


def _walk(trees: list[dict[str, Any]], columns: int, outputs: int) -> Walk:
    feature: list[int] = []
    threshold: list[float] = []
    left: list[int] = []
    value: list[float] = []
    roots: list[int] = []
    depth = 0

    def leaf() -> int:
        at = len(left)
        feature.append(0)
        threshold.append(np.nan)
        left.append(at)
        value.append(0.0)
        return at

    for tree in trees:
        children, others, split = tree["left_children"], tree["right_children"], tree["split_conditions"]
        roots.append(leaf())
        todo = [(0, roots[-1], 0)]
        for node, at, level in todo:
            depth = max(depth, level)
            if children[node] == -1:
                value[at] = split[node]
                continue
            if not np.isfinite(split[node]):
                raise Unsuitable("a threshold that is not finite")
            feature[at] = 2 * tree["split_indices"][node] + (not tree["default_left"][node])
            threshold[at] = split[node]
            left[at] = leaf()
            todo += [(children[node], left[at], level + 1), (others[node], leaf(), level + 1)]
    return Walk(
        columns,
        outputs,
        depth,
        np.zeros(outputs, np.float32),
        np.array(feature, np.intp),
        np.array(threshold, np.float32),
        np.array(left, np.intp),
        np.array(value, np.float32),
        np.array(roots, np.intp),
    )


def faster_until(walk: Walk, library: Callable[[NDArray[np.float32]], _Floats]) -> int:
    """The number of rows up to which walking takes less time than the library; 0 if it never does."""
    rows, limit = 1, 0
    while rows <= _MOST_ROWS:
        matrix = walk.probe(rows)
        if _seconds(walk.margins, matrix) >= _seconds(library, matrix):
            break
        rows, limit = 2 * rows, rows
    return limit


def _seconds(margins: Callable[[NDArray[np.float32]], _Floats], matrix: NDArray[np.float32]) -> float:
    best = float("inf")
    for _ in range(_TRIES):
        began = time.perf_counter()
        margins(matrix)
        best = min(best, time.perf_counter() - began)
    return best
