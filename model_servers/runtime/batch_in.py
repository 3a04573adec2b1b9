"""Bodies of /batch_predict, read piece by piece: slices of rows, each a row of values or every reason why it is none.

NDJSON is parsed as it arrives. CSV, Arrow and Parquet have readers that block, so they run in a thread, which pulls
pieces out of the event loop when it wants more: a slow model holds back the reader, and the reader the sender.
"""

import asyncio
import csv
import importlib
import io
import tempfile
from collections.abc import AsyncIterator, Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final, cast

import msgspec

from model_servers.runtime import reasons
from model_servers.runtime.features import Row, Warn, outside, row_type
from model_servers.runtime.problems import Refused
from model_servers.runtime.request import Incoming
from model_servers.runtime.spec import Feature

NDJSON: Final = b"application/x-ndjson"
CSV: Final = b"text/csv"
ARROW: Final = b"application/vnd.apache.arrow.stream"
PARQUET: Final = b"application/vnd.apache.parquet"
_MOST_LINE: Final = 1_048_576  # bytes of one NDJSON line
_MOST_FILE: Final = 8 * 2**30  # bytes of a Parquet body, which has to be on disk before its first row can be read

Parsed = Row | list[str]  # a row, or the reasons why it is none


class Reader:
    """Reads the bodies of one model."""

    def __init__(self, features: Mapping[str, Feature], warn: Warn, size: int) -> None:
        """`size`: rows of a slice."""
        self._features, self._warn, self._size = features, warn, size
        strict = row_type(features, (), strict=True)
        lenient = row_type(features, (), strict=False)
        self._decoders: tuple[Callable[[bytes], Any], Callable[[bytes], Any]] = (
            msgspec.json.Decoder(strict).decode,
            msgspec.json.Decoder(lenient).decode,
        )
        self._types = (strict, lenient)

    def slices(self, kind: bytes, stream: Incoming) -> AsyncIterator[list[Parsed]]:
        """Rows in order. Refused is raised for what is no such body at all, or lacks a feature's column."""
        match kind:
            case b"application/x-ndjson":
                return self._lines(stream)
            case b"text/csv":
                return self._threaded(self._csv, stream)
            case b"application/vnd.apache.arrow.stream":
                return self._threaded(self._arrow, stream)
            case _:
                return self._parquet(stream)

    async def _lines(self, stream: Incoming) -> AsyncIterator[list[Parsed]]:
        rest, number, rows = b"", 0, list[Parsed]()
        while piece := await stream.read():
            *lines, rest = (rest + piece).split(b"\n")
            if len(rest) > _MOST_LINE:
                raise unreadable(f"row {number + len(lines)} is longer than {_MOST_LINE} bytes")
            for line in lines:
                if line.strip():
                    rows.append(self._line(line, number))
                    number += 1
                if len(rows) == self._size:
                    yield rows
                    rows = []
        if rest.strip():
            rows.append(self._line(rest, number))
        if rows:
            yield rows

    def _line(self, line: bytes, number: int) -> Parsed:
        row: Row
        try:
            return cast("Row", msgspec.structs.astuple(self._decoders[0](line)))
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            pass
        try:
            row = msgspec.structs.astuple(self._decoders[1](line))
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as exc:
            return reasons.of_row(line, self._features, number, str(exc))
        self._warn_of(row)
        return row

    async def _threaded(
        self, read: Callable[[io.BufferedReader], Iterator[list[Parsed]]], stream: Incoming
    ) -> AsyncIterator[list[Parsed]]:
        source: Any = io.BufferedReader(_Pulled(stream, asyncio.get_running_loop()), 262_144)
        async for rows in _in_thread(read(source)):
            yield rows

    async def _parquet(self, stream: Incoming) -> AsyncIterator[list[Parsed]]:
        """The footer comes last, so the file is kept on disk, nameless, while it is read."""
        with tempfile.TemporaryFile(prefix="mlcp-batch-") as file:
            size = 0
            while piece := await stream.read():
                size += len(piece)
                if size > _MOST_FILE:
                    raise Refused(413, "too-large", "The body is larger than allowed", f"At most {_MOST_FILE} bytes.")
                await asyncio.to_thread(file.write, piece)
            file.seek(0)
            async for rows in _in_thread(self._row_groups(cast("io.BufferedReader", file))):
                yield rows

    def _csv(self, source: io.BufferedReader) -> Iterator[list[Parsed]]:
        """A header of names; an empty cell is null. Columns that are no features are passed over."""
        table = csv.reader(io.TextIOWrapper(source, "utf-8-sig", newline=""), strict=True)
        number, rows = 0, list[Parsed]()
        try:
            header = next(table, list[str]())
            places = self._places(header)
            for cells in table:
                if not cells:
                    continue
                if len(cells) != len(header):
                    rows.append([f"rows[{number}]: has {len(cells)} cells, the header has {len(header)}"])
                else:
                    rows.append(self._values({name: _cell(cells[at]) for name, at in places}, number, strict=False))
                number += 1
                if len(rows) == self._size:
                    yield rows
                    rows = []
        except (csv.Error, UnicodeDecodeError) as exc:
            raise unreadable(f"row {number}: {exc}") from None
        if rows:
            yield rows

    def _arrow(self, source: io.BufferedReader) -> Iterator[list[Parsed]]:
        pa: Any = importlib.import_module("pyarrow")
        with _readable(pa), pa.ipc.open_stream(pa.PythonFile(source, mode="r")) as table:
            yield from self._record_batches(table.schema, table)

    def _row_groups(self, file: io.BufferedReader) -> Iterator[list[Parsed]]:
        pa: Any = importlib.import_module("pyarrow")
        pq: Any = importlib.import_module("pyarrow.parquet")
        with _readable(pa), pq.ParquetFile(file, pre_buffer=False) as table:
            wanted = [name for name in table.schema_arrow.names if name in self._features]
            batches = table.iter_batches(batch_size=self._size, columns=wanted, use_threads=False)
            yield from self._record_batches(table.schema_arrow, batches)

    def _record_batches(self, schema: Any, batches: Any) -> Iterator[list[Parsed]]:
        self._places(schema.names)
        number = 0
        for batch in batches:
            for at in range(0, batch.num_rows, self._size):
                part = batch.slice(at, self._size)
                columns = [_plain(part.column(name)) for name in self._features]
                rows = [
                    self._values(dict(zip(self._features, values, strict=True)), number + i, strict=True)
                    for i, values in enumerate(zip(*columns, strict=True))
                ]
                number += len(rows)
                yield rows

    def _places(self, header: Sequence[str]) -> list[tuple[str, int]]:
        """Where each feature's column is. Raises Refused naming every one that is missing or there twice."""
        found = [f"{name}: the column is missing" for name in self._features if name not in header]
        found += [f"{name}: two columns have this name" for name in self._features if header.count(name) > 1]
        if found:
            raise unreadable(*found)
        return [(name, header.index(name)) for name in self._features]

    def _values(self, values: dict[str, Any], number: int, *, strict: bool) -> Parsed:
        """`strict` False: text is read as the feature's type, as in CSV."""
        try:
            return cast("Row", msgspec.structs.astuple(msgspec.convert(values, self._types[0], strict=strict)))
        except msgspec.ValidationError:
            pass
        try:
            row: Row = msgspec.structs.astuple(msgspec.convert(values, self._types[1], strict=strict))
        except msgspec.ValidationError:
            return reasons.of_values(values, self._features, number)
        self._warn_of(row)
        return row

    def _warn_of(self, row: Row) -> None:
        for (name, feature), value in zip(self._features.items(), row, strict=True):
            if kind := outside(feature, value):
                self._warn(name, kind)


class _Pulled(io.RawIOBase):
    """A body as a blocking file, for a thread."""

    def __init__(self, stream: Incoming, loop: asyncio.AbstractEventLoop) -> None:
        self._stream, self._loop, self._rest = stream, loop, memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if not self._rest:
            self._rest = memoryview(asyncio.run_coroutine_threadsafe(self._stream.read(), self._loop).result())
        size = min(len(buffer), len(self._rest))
        buffer[:size] = self._rest[:size]
        self._rest = self._rest[size:]
        return size


async def _in_thread(slices: Iterator[list[Parsed]]) -> AsyncIterator[list[Parsed]]:
    def following() -> list[Parsed] | None:
        return next(slices, None)

    while (rows := await asyncio.to_thread(following)) is not None:
        yield rows


@contextmanager
def _readable(pa: Any) -> Generator[None]:
    """What pyarrow cannot read is the sender's, not ours."""
    try:
        yield
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as exc:
        raise unreadable(str(exc).splitlines()[0]) from None


def _cell(text: str) -> str | None:
    return text if text else None


def _plain(column: Any) -> list[Any]:
    """Python values; NaN is null."""
    return [None if value != value else value for value in column.to_pylist()]


def unreadable(*found: str) -> Refused:
    return Refused(400, "malformed-body", "The body cannot be read", found[0], [f"body: {reason}" for reason in found])
