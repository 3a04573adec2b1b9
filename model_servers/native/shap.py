"""Exact TreeSHAP by table look-up: what does not depend on the row is computed once, when the model is loaded.

A leaf's share of the attributions depends on the row only through which of the features on its path the row satisfies:
one bit per feature. So each leaf has a table of 2^depth rows, made from the closed form of Shapley values with the
tree's own covers for absent features, the "path-dependent" form that the libraries compute too. A row then costs
comparisons and one look-up per leaf, several times less than the recursion.

Sources: Lundberg et al. 2018, arXiv:1802.03888 (the value computed); Yang 2021, arXiv:2109.09847 (tables per leaf).
"""

from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

_Floats = NDArray[np.float64]
_DEEPEST: Final = 8  # features on one path; a table has 2^8 rows then
_MOST_CELLS: Final = 8_000_000  # of all tables: 32 MB
_LARGEST: Final = np.finfo(np.float32).max


@dataclass(slots=True)
class _Leaf:
    value: float
    features: dict[int, "_Condition"]


@dataclass(frozen=True, slots=True)
class _Condition:
    """All splits of one feature on the way to a leaf: low <= x < high, or missing where all default this way."""

    low: float = -np.inf
    high: float = np.inf
    missing: bool = True
    share: float = 1.0  # of the training weight that goes this way, when the feature is not known


class Unsuitable(Exception):
    """The trees are too deep or of a kind that tables are not made of."""


@dataclass(frozen=True, slots=True)
class Tables:
    """Attributions of an ensemble with one output, in margin units."""

    columns: int
    feature: NDArray[np.intp]  # (depth, leaves); padding repeats column 0 and is always satisfied
    low: NDArray[np.float32]
    high: NDArray[np.float32]
    missing: NDArray[np.bool_]
    table: NDArray[np.float32] = field(repr=False)  # (leaves x 2^depth, depth)

    def probe(self, rows: int) -> NDArray[np.float32]:
        """Rows whose values are the trees' own thresholds, some missing: where two readings of a tree would differ."""
        rng = np.random.default_rng(0)
        made = np.zeros((rows, self.columns), np.float32)
        for column in range(self.columns):
            limits = np.concatenate([self.low[self.feature == column], self.high[self.feature == column]])
            limits = limits[np.isfinite(limits)]
            made[:, column] = rng.choice(limits, rows) if limits.size else 0.0
        made[rng.random(made.shape) < 0.1] = np.nan
        return made

    def contributions(self, matrix: NDArray[Any]) -> _Floats:
        """(n, columns) of float32 rows, NaN for missing; without the bias."""
        out = np.empty((len(matrix), self.columns))
        depth, leaves = self.feature.shape
        first: NDArray[np.intp] = np.arange(leaves, dtype=np.intp) << depth
        where = self.feature.T.ravel()
        absent = np.isnan(matrix)
        matrix = np.clip(matrix, -_LARGEST, _LARGEST)  # infinity is below no threshold, yet on the way to some leaf
        for i, row in enumerate(matrix):
            x = row[self.feature]
            holds = (x >= self.low) & (x < self.high)
            if absent[i].any():
                holds |= absent[i][self.feature] & self.missing
            at = first.copy()
            for slot, bits in enumerate(holds):
                at += bits.astype(np.intp) << slot
            out[i] = np.bincount(where, self.table.take(at, axis=0).ravel(), self.columns)
        return out


def of_xgboost(model: dict[str, Any], columns: int) -> Tables:
    """From the library's own JSON document. Raises Unsuitable."""
    try:
        learner = model["learner"]
        booster = learner["gradient_booster"]
        trees, groups = booster["model"]["trees"], booster["model"]["tree_info"]
        if booster["name"] != "gbtree" or any(groups):
            raise Unsuitable("several outputs, or weighted trees")
        leaves = [leaf for tree in trees for leaf in _leaves(tree)]
    except (KeyError, IndexError, TypeError, ZeroDivisionError) as exc:
        raise Unsuitable(f"no document that is known: {exc!r}") from exc
    depth = max((len(leaf.features) for leaf in leaves), default=0)
    if not 0 < depth <= _DEEPEST or len(leaves) * depth << depth > _MOST_CELLS:
        raise Unsuitable(f"{len(leaves)} leaves, {depth} deep")
    shape = (len(leaves), depth)
    feature, missing = np.zeros(shape, np.intp), np.ones(shape, np.bool_)
    low, high = np.full(shape, -np.inf, np.float32), np.full(shape, np.inf, np.float32)
    share = np.ones(shape)
    for i, leaf in enumerate(leaves):
        for slot, (column, condition) in enumerate(leaf.features.items()):
            feature[i, slot], missing[i, slot], share[i, slot] = column, condition.missing, condition.share
            low[i, slot], high[i, slot] = condition.low, condition.high
    values = np.array([leaf.value for leaf in leaves])
    turned = np.ascontiguousarray
    return Tables(columns, turned(feature.T), turned(low.T), turned(high.T), turned(missing.T), _table(values, share))


def _leaves(tree: dict[str, Any]) -> list[_Leaf]:
    if any(tree["split_type"]):
        raise Unsuitable("splits of categories")
    left, right, cover = tree["left_children"], tree["right_children"], tree["sum_hessian"]
    found: list[_Leaf] = []
    todo: list[tuple[int, dict[int, _Condition]]] = [(0, {})]
    while todo:
        node, path = todo.pop()
        if left[node] == -1:
            found.append(_Leaf(tree["split_conditions"][node], path))
            continue
        column, at = tree["split_indices"][node], tree["split_conditions"][node]
        before = path.get(column, _Condition())
        for child, is_left in ((left[node], True), (right[node], False)):
            condition = _Condition(
                before.low if is_left else max(before.low, at),
                min(before.high, at) if is_left else before.high,
                before.missing and bool(tree["default_left"][node]) == is_left,
                before.share * cover[child] / cover[node],
            )
            todo.append((child, {**path, column: condition}))
    return found


def _table(values: _Floats, share: _Floats) -> NDArray[np.float32]:
    """Shapley values of every leaf for every mask of satisfied features; padding is a player that changes nothing.

    For player j: value x (holds_j - share_j) x sum over s of w(s) x [t^s] of the product over the others of
    (holds_k t + share_k), with w(s) = s! (d - s - 1)! / d!.
    """
    leaves, depth = share.shape
    masks = 1 << depth
    bits: NDArray[np.intp] = (np.arange(masks, dtype=np.intp)[:, None] >> np.arange(depth, dtype=np.intp)) & 1
    holds = bits.astype(np.float64)
    weights = np.empty(depth)
    weights[0] = 1.0 / depth
    for s in range(1, depth):
        weights[s] = weights[s - 1] * s / (depth - s)
    made = np.empty((leaves, masks, depth), np.float32)
    for start in range(0, leaves, 256):  # bounds memory
        part = share[start : start + 256]
        for j in range(depth):
            terms: list[_Floats] = [np.ones((len(part), masks))]  # coefficients of t^0, t^1, ...
            for k in range(depth):
                if k == j:
                    continue
                known, absent = holds[:, k], part[:, k, None]
                shifted: list[_Floats] = [np.zeros_like(terms[0]), *(term * known for term in terms)]
                terms = [a * absent + b for a, b in zip([*terms, np.zeros_like(terms[0])], shifted, strict=True)]
            total: _Floats = np.tensordot(weights, np.array(terms), axes=1)
            gain: _Floats = values[start : start + 256, None] * (holds[:, j] - part[:, j, None])
            made[start : start + 256, :, j] = gain * total
    return made.reshape(-1, depth)
