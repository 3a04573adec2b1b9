"""Feature values -> the matrix a scorer reads. Two ways in, one result: rows (requests) and columns (batches)."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model_servers.native.manifest import Column, Feature

Matrix = NDArray[np.floating[Any]]
Row = Sequence[object]  # values in manifest feature order, None for null
Columns = Sequence[NDArray[Any]]  # one array per feature: floats with NaN for null, or objects with None for null


class Encoder:
    """Lookups made once from the manifest, so that a row costs a few dictionary reads and one array.

    Holds no buffers: any number of threads may encode at once.
    """

    def __init__(
        self, features: Sequence[Feature], columns: Sequence[Column], dtype: type[np.float32 | np.float64]
    ) -> None:
        position = {feature.name: i for i, feature in enumerate(features)}
        self._dtype: np.dtype[np.floating[Any]] = np.dtype(dtype)
        self._numbers: list[tuple[int, int, float]] = []  # feature, column, fill
        self._nulls: list[tuple[int, int]] = []  # feature, column of "is null"
        self._codes: list[tuple[int, dict[object, int]]] = []  # feature, value -> column
        self._ordinals: list[tuple[int, int, dict[object, float]]] = []  # feature, column, value -> position
        self.sources: list[int] = []  # of each column: the feature it comes from
        at = 0
        for column in columns:
            i = position[column.feature]
            match column.op:
                case "number":
                    self._numbers.append((i, at, np.nan if column.fill is None else column.fill))
                    if column.null:
                        self._nulls.append((i, at + 1))
                case "onehot":
                    codes: dict[object, int] = {value: at + k for k, value in enumerate(column.values)}
                    if column.null:
                        codes[None] = at + len(column.values)
                    self._codes.append((i, codes))
                case "ordinal":
                    self._ordinals.append((i, at, {value: float(k) for k, value in enumerate(column.values)}))
            self.sources += [i] * column.width
            at += column.width
        self.width = at
        plain = [i for i, _, _ in self._numbers] == list(range(len(features)))
        self._plain = plain and at == len(features) and all(np.isnan(fill) for _, _, fill in self._numbers)

    def rows(self, rows: Sequence[Row]) -> Matrix:
        """(n, width). A value of the wrong type raises TypeError or ValueError: callers validate first."""
        if self._plain:  # numpy reads None as NaN
            return np.array(rows, dtype=self._dtype).reshape(len(rows), self.width)
        return np.array([self._row(row) for row in rows], dtype=self._dtype).reshape(len(rows), self.width)

    def _row(self, row: Row) -> list[Any]:
        out: list[Any] = [0.0] * self.width
        for i, at, fill in self._numbers:
            value = row[i]
            out[at] = fill if value is None or value != value else value
        for i, at in self._nulls:
            value = row[i]
            out[at] = 1.0 if value is None or value != value else 0.0
        for i, codes in self._codes:
            code = codes.get(row[i])
            if code is not None:
                out[code] = 1.0
        for i, at, positions in self._ordinals:
            out[at] = positions.get(row[i], np.nan)
        return out

    def columns(self, columns: Columns) -> Matrix:
        """The same matrix from whole columns; nothing is copied row by row."""
        size = len(columns[0]) if columns else 0
        out = np.zeros((size, self.width), dtype=self._dtype)
        for i, at, fill in self._numbers:
            values = np.asarray(columns[i], dtype=np.float64)
            out[:, at] = values if np.isnan(fill) else np.where(np.isnan(values), fill, values)
        for i, at in self._nulls:
            out[:, at] = np.isnan(np.asarray(columns[i], dtype=np.float64))
        for i, codes in self._codes:
            found = np.array([codes.get(value, -1) for value in columns[i].tolist()], dtype=np.int64)
            known = np.flatnonzero(found >= 0)
            out[known, found[known]] = 1.0
        for i, at, positions in self._ordinals:
            out[:, at] = [positions.get(value, np.nan) for value in columns[i].tolist()]
        return out
