"""Profiles of files, larger than memory if need be: columns are read a few at a time and folded as they come.

A CSV or NDJSON file that is large is turned into a temporary Parquet file first, in pieces. pyarrow has no types: this
is where they begin. Numbers of a file are float64 in memory, so a column of a million rows takes 8 MB.
"""

import json
import math
import os
import tempfile
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, cast

import numpy as np

from control_plane.domain.drift import fold, profiles
from control_plane.domain.drift.profiles import Absent, Categorical, Feature, Numeric, Profile, Text
from control_plane.domain.model_config import FeatureType
from control_plane.errors import InvalidInput

_VALUES = 24_000_000  # values in memory at a time: about 200 MB
_SAMPLE = 2_000_000  # rows a reference's cells are cut by, where a column has more than fit
_WHOLE_BYTES = 256 * 2**20  # a CSV or NDJSON file up to this size is read at once
_LINES = 50_000


@dataclass(frozen=True, slots=True)
class File:
    """An open table. `path`: of the Parquet file, if it is one now. `kinds`: column -> type, None for one drift is not
    defined for.
    """

    path: Path
    rows: int
    kinds: Mapping[str, FeatureType | None]
    table: Any  # of a small file: a pyarrow.Table; else None
    parquet: Any  # else: a pyarrow.parquet.ParquetFile

    def column(self, name: str) -> Any:
        """All rows of it. Several threads may read at once: each has a reader of its own."""
        if self.parquet is None:
            return self.table.column(name)
        parquet = import_module("pyarrow.parquet")
        coded = [name] if self.kinds[name] is FeatureType.CATEGORY else None
        known = self.parquet.metadata
        with parquet.ParquetFile(self.path, memory_map=True, metadata=known, read_dictionary=coded) as own:
            return own.read(columns=[name], use_threads=False).column(name)

    def pieces(self, name: str, rows: int) -> Iterator[Any]:
        """The same in arrays of about so many rows."""
        if self.parquet is None:
            yield from (piece.column(name) for piece in self.table.select([name]).to_batches(max_chunksize=rows))
        else:
            for piece in self.parquet.iter_batches(batch_size=max(1, rows), columns=[name]):
                yield piece.column(name)


@contextmanager
def opened(path: Path) -> Generator[File]:
    """Raises InvalidInput for a file that cannot be read."""
    with ExitStack() as stack:
        try:
            path, table, parquet = _open(path, stack)
            schema = table.schema if parquet is None else parquet.schema_arrow
            rows = table.num_rows if parquet is None else parquet.metadata.num_rows
        except (OSError, ValueError) as exc:  # pyarrow's own errors are ValueErrors
            raise InvalidInput(f"{path} cannot be read: {exc}") from exc
        yield File(path, rows, {field.name: _kind(field.type) for field in schema}, table, parquet)


def reference(file: File, types: Mapping[str, FeatureType], *, cells: fold.Cells) -> Profile:
    """The profile of these columns that defines the cells."""
    features: dict[str, Feature] = {}
    if _fits(file):
        made = _each(list(types), lambda name: _reference(file.column(name), types[name], cells))
        features |= dict(zip(types, made, strict=True))
    else:
        for name in types:
            features[name] = _streamed(file, name, _grid(file, name, types[name], cells))
    return Profile(file.rows, {name: features[name] for name in types})


def window(file: File, grid: Profile) -> Profile:
    """The file on the cells of `grid`; a column it lacks counts every row as missing."""
    there = [name for name in grid.features if name in file.kinds]
    features: dict[str, Feature] = {}
    if _fits(file):
        made = _each(there, lambda name: _fold(grid.features[name], file.column(name)))
        features |= dict(zip(there, made, strict=True))
    else:
        for name in there:
            features[name] = _streamed(file, name, grid.features[name])
    if missing := grid.features.keys() - features.keys():
        blank = fold.fold(Profile(0, {n: grid.features[n] for n in missing}), {"": np.zeros(file.rows)})
        features |= blank.features
    return Profile(file.rows, {name: features[name] for name in grid.features})


def _fits(file: File) -> bool:
    """Whether each thread may have a whole column in memory."""
    return file.rows * _threads() <= _VALUES


def _threads() -> int:
    return len(os.sched_getaffinity(0))


def _each(names: Sequence[str], work: Callable[[str], Feature]) -> list[Feature]:
    """Reading, sorting and hashing leave the interpreter's lock alone: one thread per processor."""
    with ThreadPoolExecutor(_threads()) as pool:
        return list(pool.map(work, names))


def _streamed(file: File, name: str, grid: Feature) -> Feature:
    found = _fold(grid, import_module("pyarrow").nulls(0))
    for piece in file.pieces(name, _VALUES // 4):
        found = profiles.merge_feature(found, _fold(grid, piece))
    return found


def _grid(file: File, name: str, kind: FeatureType, cells: fold.Cells) -> Feature:
    """Cells from every k-th row of the whole file; categories are all counted, since rare ones must be known."""
    step = max(1, file.rows // max(1, min(_SAMPLE, _VALUES // 4)))
    pa, seen = import_module("pyarrow"), 0
    taken: list[Any] = []
    counts: dict[str, int] = {}
    for piece in file.pieces(name, _VALUES // 4):
        if kind in {FeatureType.BOOLEAN, FeatureType.CATEGORY}:
            for value, count in _counted(piece)[0].items():
                counts[value] = counts.get(value, 0) + count
        else:
            taken.append(piece.take(pa.array(np.arange(-seen % step, len(piece), step))))
        seen += len(piece)
    if kind in {FeatureType.BOOLEAN, FeatureType.CATEGORY}:
        return fold.reference_counts(kind, counts, absent=Absent(), cells=cells)
    return _reference(pa.chunked_array(taken), kind, cells)


def _reference(column: Any, kind: FeatureType, cells: fold.Cells) -> Feature:
    match kind:
        case FeatureType.NUMBER | FeatureType.INTEGER:
            values, absent = _numbers(column)
            return fold.reference_numbers(kind, values, absent=absent, cells=cells)
        case FeatureType.BOOLEAN | FeatureType.CATEGORY:
            counts, absent = _counted(column)
            return fold.reference_counts(kind, counts, absent=absent, cells=cells)
        case FeatureType.TEXT:
            return fold.reference_feature(_listed(column), kind, cells=cells)


def _fold(grid: Feature, column: Any) -> Feature:
    match grid:
        case Numeric():
            values, absent = _numbers(column)
            return fold.fold_numbers(grid, values, absent=absent)
        case Categorical():
            counts, absent = _counted(column)
            return fold.fold_categories(grid, counts, absent=absent)
        case Text():
            return fold.fold_feature(grid, _listed(column))


def _numbers(column: Any) -> tuple[fold.Floats, Absent]:
    """float64 with NaN for null; of a column of another type every value counts as mistyped."""
    if _is_null(column):
        return np.full(len(column), np.nan), Absent()
    kind = _kind(column.type)
    if kind not in {FeatureType.NUMBER, FeatureType.INTEGER}:
        nulls = int(column.null_count)
        return np.full(nulls, np.nan), Absent(mistyped=len(column) - nulls)
    if str(column.type) != "double":
        column = column.cast("float64", safe=False)
    if column.null_count:
        column = import_module("pyarrow.compute").fill_null(column, math.nan)
    # Not to_numpy(), which imports pandas where that is installed: two seconds.
    parts = [chunk for chunk in getattr(column, "chunks", [column]) if len(chunk)]
    chunks = [cast(fold.Floats, np.from_dlpack(part)) for part in parts]
    return (chunks[0] if len(chunks) == 1 else np.concatenate(chunks or [np.zeros(0)])), Absent()


def _counted(column: Any) -> tuple[dict[str, int], Absent]:
    """Rows per value; of a column of another type every value counts as mistyped."""
    if _is_null(column):
        return {}, Absent(nulls=len(column))
    nulls = int(column.null_count)
    if _kind(column.type) not in {FeatureType.CATEGORY, FeatureType.BOOLEAN}:
        return {}, Absent(nulls=nulls, mistyped=len(column) - nulls)
    counts: dict[str, int] = {}
    for chunk in getattr(column, "chunks", [column]):  # each may have a dictionary of its own
        found = import_module("pyarrow.compute").value_counts(chunk)
        for value, count in zip(found.field("values").to_pylist(), found.field("counts").to_pylist(), strict=True):
            if value is not None:
                named = ("true" if value else "false") if isinstance(value, bool) else str(value)
                counts[named] = counts.get(named, 0) + int(count)
    return counts, Absent(nulls=nulls)


def _listed(column: Any) -> list[object]:
    return cast("list[object]", column.to_pylist())


def _is_null(column: Any) -> bool:
    return bool(import_module("pyarrow").types.is_null(column.type))


def _kind(kind: Any) -> FeatureType | None:
    types = import_module("pyarrow").types
    if types.is_dictionary(kind):
        kind = kind.value_type
    if types.is_boolean(kind):
        return FeatureType.BOOLEAN
    if types.is_integer(kind):
        return FeatureType.INTEGER
    if types.is_floating(kind) or types.is_decimal(kind):
        return FeatureType.NUMBER
    if types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind):
        return FeatureType.CATEGORY
    return None


def _open(path: Path, stack: ExitStack) -> tuple[Path, Any, Any]:
    """(path, table, None) or (path of the Parquet file, None, ParquetFile)."""
    suffix = path.suffix.lower()
    if suffix not in {".csv", ".parquet", ".ndjson", ".jsonl"}:
        raise InvalidInput(f"{path}: {suffix or 'no suffix'} is none of .csv, .parquet, .ndjson.")
    parquet = import_module("pyarrow.parquet")
    if suffix == ".parquet":
        return path, None, stack.enter_context(parquet.ParquetFile(path, memory_map=True))
    if path.stat().st_size <= _WHOLE_BYTES:
        if suffix == ".csv":
            return path, import_module("pyarrow.csv").read_csv(path), None
        return path, _table(path.read_text().splitlines(), path, 1), None
    folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="mlcp-drift-"))
    turned = Path(folder) / "turned.parquet"
    with ExitStack() as writing:
        writer: Any = None
        pieces = import_module("pyarrow.csv").open_csv(path) if suffix == ".csv" else _pieces(path)
        for piece in pieces:
            if writer is None:
                writer = writing.enter_context(parquet.ParquetWriter(turned, piece.schema))
            if hasattr(piece, "to_batches"):
                writer.write_table(piece.cast(writer.schema) if piece.schema != writer.schema else piece)
            else:
                writer.write_batch(piece)
    return turned, None, stack.enter_context(parquet.ParquetFile(turned, memory_map=True))


def _pieces(path: Path) -> Iterator[Any]:
    with path.open() as file:
        lines: list[str] = []
        first = 1
        for line in file:
            lines.append(line)
            if len(lines) == _LINES:
                yield _table(lines, path, first)
                first += len(lines)
                lines = []
        if lines:
            yield _table(lines, path, first)


def _table(lines: Sequence[str], path: Path, first: int) -> Any:
    """NDJSON as a table; a column of several types is text."""
    rows: list[dict[str, object]] = []
    for number, line in enumerate(lines, start=first):
        if line.strip():
            found = json.loads(line)
            if not isinstance(found, dict):
                raise InvalidInput(f"{path}: line {number} is no object.")
            rows.append(cast("dict[str, object]", found))
    pa = import_module("pyarrow")
    names = dict.fromkeys(name for row in rows for name in row)
    arrays: dict[str, Any] = {}
    for name in names:
        values = [row.get(name) for row in rows]
        try:
            arrays[name] = pa.array(values)
        except (pa.ArrowInvalid, pa.ArrowTypeError):
            arrays[name] = pa.array([v if v is None or isinstance(v, str) else json.dumps(v) for v in values])
    return pa.table(arrays)
