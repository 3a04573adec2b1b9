"""Feature values -> the numbers a scorer reads. Two ways in, one result: rows (requests) and columns (batches)."""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model_servers.native.manifest import Column, Feature

Row = Sequence[object]  # values in manifest feature order, None for null
Columns = Sequence[NDArray[Any]]  # one array per feature: floats with NaN for null, or objects with None for null
UNSEEN = -1  # in `codes`: neither a known value nor a known null


@dataclass(frozen=True, slots=True)
class _Bins:
    """A number's interval. Stands in for the dictionary of a category."""

    first: int  # column
    edges: tuple[float, ...]
    null: int

    def get(self, value: Any, default: int) -> int:
        if value is None or value != value:
            return self.null
        return self.first + bisect_right(self.edges, value)


@dataclass(frozen=True, slots=True)
class _Number:
    feature: int
    column: int  # the first of its columns
    fill: float
    low: float
    high: float
    knots: tuple[float, ...]
    null: bool
    positions: dict[object, float] | None  # ordinal: value -> position


class Encoder:
    """Lookups made once from the manifest, so that a row costs a few dictionary reads and one array.

    Numbers and one-hot codes are kept apart: a linear model adds the weights of the codes without ever building the
    zeros; trees ask for the whole matrix. Holds no buffers, so any number of threads may encode at once.
    """

    def __init__(self, features: Sequence[Feature], columns: Sequence[Column]) -> None:
        position = {feature.name: i for i, feature in enumerate(features)}
        self._numbers: list[_Number] = []
        self._codes: list[tuple[int, dict[object, int] | _Bins]] = []  # feature, value -> column
        self.sources: list[int] = []  # of each column: the feature it comes from
        self.numeric: list[int] = []  # the columns `numbers` returns, in its order
        at = 0
        for column in columns:
            i = position[column.feature]
            fill = np.nan if column.fill is None else column.fill
            low = -np.inf if column.low is None else column.low
            high = np.inf if column.high is None else column.high
            match column.op:
                case "number":
                    self._numbers.append(_Number(i, at, fill, low, high, column.knots, column.null, None))
                    self.numeric += range(at, at + column.width)
                case "ordinal":
                    positions: dict[object, float] = {value: float(k) for k, value in enumerate(column.values)}
                    self._numbers.append(_Number(i, at, fill, low, high, (), False, positions))
                    self.numeric.append(at)
                case "bins":
                    null_column = at + len(column.knots) + 1 if column.null else UNSEEN
                    self._codes.append((i, _Bins(at, column.knots, null_column)))
                case "onehot":
                    codes: dict[object, int] = {value: at + k for k, value in enumerate(column.values)}
                    if column.null:
                        codes[None] = at + len(column.values)
                    self._codes.append((i, codes))
            self.sources += [i] * column.width
            at += column.width
        self.width = at
        self.coded = [i for i, _ in self._codes]  # the features `codes` returns, in its order
        self._plain = [n.feature for n in self._numbers] == list(range(at)) == list(range(len(features))) and all(
            np.isnan(n.fill) and n.positions is None and n.high - n.low == np.inf for n in self._numbers
        )

    def numbers(self, rows: Sequence[Row]) -> NDArray[np.float64]:
        """(n, len(numeric)). A value of the wrong type raises TypeError or ValueError: callers validate first."""
        if self._plain:  # numpy reads None as NaN
            return np.array(rows, dtype=np.float64).reshape(len(rows), self.width)
        return np.array([self._row(row) for row in rows], dtype=np.float64).reshape(len(rows), len(self.numeric))

    def codes(self, rows: Sequence[Row]) -> NDArray[np.int64]:
        """(n, len(coded)): for each one-hot feature the column that is 1, or UNSEEN."""
        found = [[codes.get(row[i], UNSEEN) for i, codes in self._codes] for row in rows]
        return np.array(found, dtype=np.int64).reshape(len(rows), len(self._codes))

    def matrix(self, rows: Sequence[Row]) -> NDArray[np.float32]:
        """(n, width), C-contiguous: what tree ensembles read."""
        if self._plain:
            return np.array(rows, dtype=np.float32).reshape(len(rows), self.width)
        out = np.zeros((len(rows), self.width), dtype=np.float32)
        for line, row in zip(out, rows, strict=True):
            line[self.numeric] = self._row(row)
            for i, codes in self._codes:
                if (code := codes.get(row[i], UNSEEN)) != UNSEEN:
                    line[code] = 1.0
        return out

    def _row(self, row: Row) -> list[Any]:
        out: list[Any] = []
        for number in self._numbers:
            value: Any = row[number.feature]
            if number.positions is not None:
                out.append(number.positions.get(value, number.fill))
                continue
            x = np.nan if value is None else float(value)
            if missing := x != x:
                x = number.fill
            elif x < number.low:
                x = number.low
            elif x > number.high:
                x = number.high
            out.append(x)
            if number.knots:
                out += [x - knot if x > knot else 0.0 for knot in number.knots]
            if number.null:
                out.append(missing)
        return out

    def column_numbers(self, columns: Columns) -> NDArray[np.float64]:
        """`numbers` of whole columns; nothing is copied row by row."""
        out = np.empty((_size(columns), len(self.numeric)), dtype=np.float64)
        at = 0
        for number in self._numbers:
            if number.positions is not None:
                get = number.positions.get
                out[:, at] = [get(value, number.fill) for value in columns[number.feature].tolist()]
                at += 1
                continue
            values = np.asarray(columns[number.feature], dtype=np.float64)
            missing = np.isnan(values)
            limited = values.clip(number.low, number.high)
            filled = limited if np.isnan(number.fill) else np.where(missing, number.fill, limited)
            out[:, at] = filled
            at += 1
            for knot in number.knots:
                out[:, at] = np.maximum(filled - knot, 0.0)
                at += 1
            if number.null:
                out[:, at] = missing
                at += 1
        return out

    def column_codes(self, columns: Columns) -> NDArray[np.int64]:
        out = np.empty((_size(columns), len(self._codes)), dtype=np.int64)
        for at, (i, codes) in enumerate(self._codes):
            if isinstance(codes, _Bins):
                values = np.asarray(columns[i], dtype=np.float64)
                found = np.searchsorted(codes.edges, values, side="right") + codes.first
                out[:, at] = np.where(np.isnan(values), codes.null, found)
            else:
                out[:, at] = [codes.get(value, UNSEEN) for value in columns[i].tolist()]
        return out

    def column_matrix(self, columns: Columns) -> NDArray[np.float32]:
        out = np.zeros((_size(columns), self.width), dtype=np.float32)
        out[:, self.numeric] = self.column_numbers(columns)
        for codes in self.column_codes(columns).T:
            known = np.flatnonzero(codes != UNSEEN)
            out[known, codes[known]] = 1.0
        return out


def _size(columns: Columns) -> int:
    return len(columns[0]) if columns else 0
