"""Answers of /batch_predict, slice by slice: NDJSON, CSV, Arrow or Parquet. A row that was refused has `error`."""

import csv
import importlib
import io
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Protocol, cast

import msgspec

from model_servers.runtime.batch_in import ARROW, CSV, NDJSON, PARQUET

Answered = bytes | list[str]  # the answer's JSON, or the reasons why there is none

_COLUMNS: Final[Mapping[str, Mapping[str, str]]] = {  # column -> type, by problem
    "binary": {"probability": "double", "decision": "string", "threshold": "double"},
    "multiclass": {"label": "string", "probability": "double"},
    "regression": {"value": "double"},
    "opaque": {"value": "string"},  # as JSON
}
_GROUP: Final = 65_536  # rows of a Parquet row group: what is held in memory until it is written


class Writer(Protocol):
    """`rows` and `end` return the bytes that are due."""

    def rows(self, answers: Sequence[Answered]) -> bytes: ...

    def end(self) -> bytes: ...


def writers(problem: str) -> Mapping[bytes, Callable[[], Writer]]:
    """By content type."""
    columns = _COLUMNS[problem]
    return {
        NDJSON: _Lines,
        CSV: lambda: _Csv(columns),
        ARROW: lambda: _Arrow(columns),
        PARQUET: lambda: _Parquet(columns),
    }


class _Lines:
    def rows(self, answers: Sequence[Answered]) -> bytes:
        lines = [
            a if isinstance(a, bytes) else msgspec.json.encode({"error": "; ".join(a), "reasons": a}) for a in answers
        ]
        return b"\n".join(lines) + b"\n" if lines else b""

    def end(self) -> bytes:
        return b""


class _Csv:
    def __init__(self, columns: Mapping[str, str]) -> None:
        self._columns = columns
        self._text = io.StringIO()
        self._writer = csv.writer(self._text, lineterminator="\n")
        self._writer.writerow([*columns, "error"])

    def rows(self, answers: Sequence[Answered]) -> bytes:
        for answer in answers:
            values = _flat(answer, self._columns)
            self._writer.writerow(["" if value is None else value for value in values])
        return self._taken()

    def end(self) -> bytes:
        return self._taken()

    def _taken(self) -> bytes:
        made = self._text.getvalue().encode()
        self._text.seek(0)
        self._text.truncate()
        return made


class _Sink(io.RawIOBase):
    """Where Arrow writes to; `taken` is what it wrote since the last time."""

    def __init__(self) -> None:
        self._pieces: list[bytes] = []

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self._pieces.append(bytes(data))
        return len(self._pieces[-1])

    def taken(self) -> bytes:
        made, self._pieces = b"".join(self._pieces), []
        return made


class _Arrow:
    def __init__(self, columns: Mapping[str, str]) -> None:
        pa = _module("pyarrow")
        self._columns, self._schema = columns, _schema(columns)
        self._sink = _Sink()
        self._writer: Any = pa.ipc.new_stream(pa.PythonFile(self._sink, mode="w"), self._schema)

    def rows(self, answers: Sequence[Answered]) -> bytes:
        if answers:
            self._writer.write_batch(_batch(self._schema, answers, self._columns))
        return self._sink.taken()

    def end(self) -> bytes:
        self._writer.close()
        return self._sink.taken()


class _Parquet:
    def __init__(self, columns: Mapping[str, str]) -> None:
        pa, pq = _module("pyarrow"), _module("pyarrow.parquet")
        self._columns, self._schema = columns, _schema(columns)
        self._sink = _Sink()
        self._writer: Any = pq.ParquetWriter(pa.PythonFile(self._sink, mode="w"), self._schema)
        self._held: list[Any] = []
        self._rows = 0

    def rows(self, answers: Sequence[Answered]) -> bytes:
        if answers:
            self._held.append(_batch(self._schema, answers, self._columns))
            self._rows += len(answers)
        if self._rows >= _GROUP:
            self._flush()
        return self._sink.taken()

    def end(self) -> bytes:
        self._flush()
        self._writer.close()
        return self._sink.taken()

    def _flush(self) -> None:
        pa = _module("pyarrow")
        if self._held:
            self._writer.write_table(pa.Table.from_batches(self._held), row_group_size=_GROUP)
        self._held, self._rows = [], 0


def _module(name: str) -> Any:
    """Arrow is loaded by the first body that is a table of it; its types are known to nobody here."""
    return importlib.import_module(name)


def _schema(columns: Mapping[str, str]) -> Any:
    pa = _module("pyarrow")
    types: dict[str, Any] = {"double": pa.float64(), "string": pa.string()}
    return pa.schema([(name, types[kind]) for name, kind in columns.items()] + [("error", pa.string())])


def _batch(schema: Any, answers: Sequence[Answered], columns: Mapping[str, str]) -> Any:
    pa = _module("pyarrow")
    flat = zip(*(_flat(answer, columns) for answer in answers), strict=True)
    arrays = [pa.array(list(values), field.type) for values, field in zip(flat, schema, strict=True)]
    return pa.record_batch(arrays, schema=schema)


def _flat(answer: Answered, columns: Mapping[str, str]) -> list[Any]:
    """One value per column, and the error."""
    if isinstance(answer, list):
        return [*([None] * len(columns)), "; ".join(answer)]
    whole: dict[str, Any] = msgspec.json.decode(answer)
    output = whole.get("output")
    members: dict[str, Any] = {**whole, **cast("dict[str, Any]", output)} if isinstance(output, dict) else whole
    found = [members.get(name) for name in columns]
    if columns is _COLUMNS["opaque"]:
        found = [json.dumps(value) for value in found]
    return [*found, None]
