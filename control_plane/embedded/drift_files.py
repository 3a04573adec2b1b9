"""Profiles of files, larger than memory if need be: columns are read a few at a time and folded as they come.

A CSV or NDJSON file that is large is turned into a temporary Parquet file first, in pieces; a folder of Parquet files
is one table. pyarrow has no types: this is where they begin. Numbers of a file are float64 in memory, so a column of a
million rows takes 8 MB.
"""

import json
import math
import os
import tempfile
from collections import Counter
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
_SAMPLE = 2_000_000  # rows a reference's cells are cut by at least, where a file has more
_WHOLE_BYTES = 256 * 2**20  # a CSV or NDJSON file up to this size is read at once
_LINES = 50_000


@dataclass(frozen=True, slots=True)
class Part:
    """Some row groups of one Parquet file: what can be folded by itself, anywhere the file can be read."""

    path: Path
    groups: list[int]
    rows: int
    footer: Any  # pyarrow.parquet.FileMetaData, read once: of a wide file it is large

    def open(self, *, coded: Sequence[str] = ()) -> Any:
        """A reader of its own. `coded`: columns to read as dictionaries."""
        parquet = import_module("pyarrow.parquet")
        return parquet.ParquetFile(self.path, memory_map=True, metadata=self.footer, read_dictionary=list(coded))


@dataclass(frozen=True, slots=True)
class File:
    """An open table. `kinds`: column -> type, None for one drift is not defined for.

    `table`: of a small text file, a pyarrow.Table; else None and `parts` say what to read.
    """

    rows: int
    kinds: Mapping[str, FeatureType | None]
    table: Any
    parts: tuple[Part, ...] = ()

    def column(self, name: str) -> Any:
        """All rows of it. Several threads may read at once: each has readers of its own."""
        if self.table is not None:
            return self.table.column(name)
        coded = [name] if self.kinds[name] is FeatureType.CATEGORY else []
        read: list[Any] = []
        for part in self.parts:
            with part.open(coded=coded) as own:
                read.append(own.read_row_groups(part.groups, columns=[name], use_threads=False).column(name))
        if len(read) == 1:
            return read[0]
        chunks = [chunk for column in read for chunk in column.chunks]
        return import_module("pyarrow").chunked_array(chunks, type=read[0].type)

    def pieces(self, name: str, rows: int) -> Iterator[Any]:
        """The same in arrays of about so many rows."""
        if self.table is not None:
            yield from (piece.column(name) for piece in self.table.select([name]).to_batches(max_chunksize=rows))
        for part in self.parts:
            with part.open() as own:
                for piece in own.iter_batches(batch_size=max(1, rows), row_groups=part.groups, columns=[name]):
                    yield piece.column(name)


@contextmanager
def opened(path: Path, groups: Sequence[int] | None = None) -> Generator[File]:
    """`groups`: only these row groups of a Parquet file. Raises InvalidInput for what cannot be read."""
    with ExitStack() as stack:
        try:
            file = _open(path, stack, groups)
        except (OSError, ValueError) as exc:  # pyarrow's own errors are ValueErrors
            raise InvalidInput(f"{path} cannot be read: {exc}") from exc
        yield file


def reference(file: File, types: Mapping[str, FeatureType], *, cells: fold.Cells, threads: int = 0) -> Profile:
    """The profile of these columns that defines the cells. `threads`: 0 for one per processor.

    Cells are cut by every k-th row where the file has many; which rows follows from the file alone, so every machine
    cuts the same ones.
    """
    if _step(file) > 1 or not _fits(file, threads):
        return window(file, grid(file, types, cells=cells), threads=threads)
    made = _each(list(types), lambda name: _reference(file.column(name), types[name], cells), threads)
    return Profile(file.rows, dict(zip(types, made, strict=True)))


def sampled(file: File) -> bool:
    """Whether the cells of a reference are cut by some of the rows, which then have to be read twice."""
    return _step(file) > 1


def grid(file: File, types: Mapping[str, FeatureType], *, cells: fold.Cells) -> Profile:
    """The cells of these columns as `reference` cuts them; the counts on them are of the rows they were cut by."""
    return Profile(file.rows, {name: _grid(file, name, kind, cells) for name, kind in types.items()})


def window(file: File, grid: Profile, *, threads: int = 0) -> Profile:
    """The file on the cells of `grid`; a column it lacks counts every row as missing. `threads`: as of `reference`."""
    there = [name for name in grid.features if name in file.kinds]
    features: dict[str, Feature] = {}
    if _fits(file, threads):
        made = _each(there, lambda name: _fold(grid.features[name], file.column(name)), threads)
        features |= dict(zip(there, made, strict=True))
    else:
        for name in there:
            features[name] = _streamed(file, name, grid.features[name])
    if missing := grid.features.keys() - features.keys():
        blank = fold.fold(Profile(0, {n: grid.features[n] for n in missing}), {"": np.zeros(file.rows)})
        features |= blank.features
    return Profile(file.rows, {name: features[name] for name in grid.features})


def _step(file: File) -> int:
    return max(1, file.rows // max(1, _SAMPLE))


def _fits(file: File, threads: int) -> bool:
    """Whether each thread may have a whole column in memory."""
    return file.rows * (threads or _threads()) <= _VALUES


def _threads() -> int:
    return len(os.sched_getaffinity(0))


def _each(names: Sequence[str], work: Callable[[str], Feature], threads: int) -> list[Feature]:
    """Reading, sorting and hashing leave the interpreter's lock alone: one thread per processor."""
    with ThreadPoolExecutor(threads or _threads()) as pool:
        return list(pool.map(work, names))


def _streamed(file: File, name: str, grid: Feature) -> Feature:
    found = _fold(grid, import_module("pyarrow").nulls(0))
    for piece in file.pieces(name, _VALUES // 4):
        found = profiles.merge_feature(found, _fold(grid, piece))
    return found


def _grid(file: File, name: str, kind: FeatureType, cells: fold.Cells) -> Feature:
    """Cells from every k-th row of the whole file; categories are all counted, since rare ones must be known."""
    step = _step(file)
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
    if types.is_null(kind) or types.is_floating(kind) or types.is_decimal(kind):
        return FeatureType.NUMBER
    if types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind):
        return FeatureType.CATEGORY
    return None


def _open(path: Path, stack: ExitStack, groups: Sequence[int] | None) -> File:
    if path.is_dir():
        return _folder(path)
    suffix = path.suffix.lower()
    if suffix not in {".csv", ".parquet", ".ndjson", ".jsonl"}:
        raise InvalidInput(f"{path}: {suffix or 'no suffix'} is none of .csv, .parquet, .ndjson, nor a folder.")
    if suffix == ".parquet":
        return _described([path], groups)
    if path.stat().st_size <= _WHOLE_BYTES:
        if suffix == ".csv":
            return _held(import_module("pyarrow.csv").read_csv(path))
        return _held(_table(path.read_text(encoding="utf-8").split("\n"), path, 1))
    folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="mlcp-drift-"))
    turned = Path(folder) / "turned.parquet"
    with ExitStack() as writing:
        writer: Any = None
        pieces = import_module("pyarrow.csv").open_csv(path) if suffix == ".csv" else _pieces(path)
        for piece in pieces:
            if writer is None:
                writer = writing.enter_context(import_module("pyarrow.parquet").ParquetWriter(turned, piece.schema))
            if hasattr(piece, "to_batches"):
                writer.write_table(piece.cast(writer.schema) if piece.schema != writer.schema else piece)
            else:
                writer.write_batch(piece)
    return _described([turned])


def _folder(path: Path) -> File:
    found = sorted(file for file in path.iterdir() if file.suffix.lower() == ".parquet")
    if not found:
        raise InvalidInput(f"{path} has no .parquet file.")
    return _described(found)


def _described(paths: Sequence[Path], groups: Sequence[int] | None = None) -> File:
    """Parquet files as one table; they have to have the same columns, in any order."""
    columns: dict[str, Any] = {}
    parts: list[Part] = []
    for path in paths:
        with import_module("pyarrow.parquet").ParquetFile(path, memory_map=True) as parquet:
            own = {field.name: field.type for field in parquet.schema_arrow}
            _once(parquet.schema_arrow.names)
            footer, kept = parquet.metadata, list(range(parquet.num_row_groups) if groups is None else groups)
        parts.append(Part(path, kept, sum(footer.row_group(group).num_rows for group in kept), footer))
        columns = columns or own
        if own != columns:
            odd = sorted(name for name in own.keys() | columns.keys() if own.get(name) != columns.get(name))
            raise InvalidInput(f"{path} has not the columns of {paths[0].name}: {', '.join(odd)}.")
    kinds = {name: _kind(kind) for name, kind in columns.items()}
    return File(sum(part.rows for part in parts), kinds, None, tuple(parts))


def _held(table: Any) -> File:
    _once(table.column_names)
    return File(table.num_rows, {field.name: _kind(field.type) for field in table.schema}, table)


def _once(names: Sequence[str]) -> None:
    twice = sorted(name for name, count in Counter(names).items() if count > 1)
    if twice:
        raise InvalidInput(f"Columns named more than once: {', '.join(twice)}.")


def _pieces(path: Path) -> Iterator[Any]:
    with path.open(encoding="utf-8", newline="\n") as file:
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


def _parsed(line: str, path: Path, number: int) -> object:
    try:
        return json.loads(line)
    except RecursionError as exc:
        raise InvalidInput(f"{path}: line {number} is nested too deeply.") from exc


def _table(lines: Sequence[str], path: Path, first: int) -> Any:
    """NDJSON as a table; a column of several types is text."""
    rows: list[dict[str, object]] = []
    for number, line in enumerate(lines, start=first):
        if line.strip():
            found = _parsed(line, path, number)
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
        except OverflowError:  # integers beyond 64 bits among them
            arrays[name] = pa.array([float(v) if isinstance(v, int) else v for v in values])
        except (pa.ArrowInvalid, pa.ArrowTypeError):
            arrays[name] = pa.array([v if v is None or isinstance(v, str) else json.dumps(v) for v in values])
    return pa.table(arrays)
