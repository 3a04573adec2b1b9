"""The archive of the prediction log: Parquet files by model and hour, on a disk or in an S3 bucket. Personal data.

    predictions/<model>/<YYYY-MM-DD>/<HH>.json             the hour's manifest: which file it is, its rows, its SHA-256
    predictions/<model>/<YYYY-MM-DD>/<HH>-<random>.parquet

A file counts from the moment the manifest names it, and a manifest is replaced in one step: whatever dies in between,
readers see the hour as it was before or as it is after. Through pyarrow's file systems, so a disk and a bucket differ
in nothing but their URL; the credentials of a bucket come from the environment, as for every S3 client.
"""

# pyright: basic, reportMissingTypeStubs=false
# (pyarrow comes without types)

import hashlib
import json
import os
import secrets
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final, cast

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pyarrow import fs

from control_plane.adapters.objects import sync
from control_plane.errors import Unavailable

compute: Any = pc  # its functions are made when it is imported, which no type checker sees
_TIME: Final = pa.timestamp("us", tz="UTC")
_OUTCOME: Final = pa.struct(
    [
        ("outcome_id", pa.string()),
        ("name", pa.string()),
        ("value", pa.string()),  # JSON
        ("currency", pa.string()),
        ("observed_at", _TIME),
        ("received_at", _TIME),
        ("unit_id", pa.string()),  # it named the unit, not the prediction
    ]
)
SCHEMA: Final = pa.schema(
    [
        ("prediction_id", pa.string()),
        ("model", pa.string()),
        ("status", pa.string()),
        ("received_at", _TIME),
        ("latency_us", pa.int32()),
        ("epoch", pa.int64()),
        ("revision", pa.int64()),
        ("assigned_variant", pa.string()),
        ("assigned_version", pa.string()),
        ("served_variant", pa.string()),
        ("served_version", pa.string()),
        ("fallback_reason", pa.string()),
        ("pinned", pa.bool_()),
        ("shadow", pa.bool_()),
        ("rollout_id", pa.string()),
        ("step", pa.int32()),
        ("unit_id", pa.string()),
        ("request_id", pa.string()),
        ("features", pa.string()),  # JSON
        ("output", pa.string()),  # JSON
        ("threshold", pa.float64()),
        ("decision", pa.string()),
        ("outcomes", pa.list_(_OUTCOME)),  # known when the file was written, in order of observation
    ]
)
_GROUP_ROWS: Final = 50_000
_PIECE: Final = 1 << 20
_ROOT: Final = "predictions"
Row = dict[str, Any]


class Damaged(Exception):
    """A file of the archive is not what was written. Nothing may be dropped that it should hold."""


@dataclass(frozen=True, slots=True)
class Manifest:
    """One hour of one model. `file` lies beside it; `hour` is ISO 8601."""

    model: str
    hour: str
    file: str
    rows: int
    bytes: int
    sha256: str
    changed: int  # the hour's count of changes that the file holds
    format: int = 1


class Archive:
    """`url`: file:///folder, or s3://bucket/prefix?endpoint_override=host:port&scheme=http as pyarrow reads it."""

    def __init__(self, url: str) -> None:
        try:
            found, root = fs.FileSystem.from_uri(url)
        except (OSError, ValueError) as exc:
            raise Unavailable(f"The archive {url.partition('?')[0]} cannot be used: {exc}") from exc
        self._fs, self._root = found, f"{root.rstrip('/')}/{_ROOT}"
        self._local = isinstance(found, fs.LocalFileSystem)

    # --- writing ---

    def write(self, model: str, hour: datetime, batches: Iterable[Sequence[Row]], *, changed: int) -> Manifest:
        """Write and verify a file of the hour; it counts once `publish` has named it. Blocking, in bounded memory.

        Raises:
            Damaged: what was read back is not what was written.
            Unavailable: the disk is full, the bucket does not answer. Nothing is left behind.
        """
        folder, name = self._folder(model, hour), f"{hour.astimezone(UTC):%H}-{secrets.token_hex(8)}.parquet"
        path = f"{folder}/{name}"
        try:
            with self._translated("written"):
                self._make(folder)
                rows = self._write(path, batches)
                self._sync(path)
                size, digest = self._digest(path)
            made = Manifest(model, hour.astimezone(UTC).isoformat(), name, rows, size, digest, changed)
            self.verify(made)
        except BaseException:
            with suppress(OSError):  # a full disk needs the room
                self._fs.delete_file(path)
            raise
        return made

    def _write(self, path: str, batches: Iterable[Sequence[Row]]) -> int:
        rows = 0
        with (
            self._private(),
            self._fs.open_output_stream(path) as out,
            pq.ParquetWriter(out, SCHEMA, compression="zstd") as writer,
        ):
            waiting = list[Any]()
            for batch in batches:
                if batch:
                    waiting.append(pa.RecordBatch.from_pylist(list(batch), schema=SCHEMA))
                    rows += len(batch)
                if sum(len(one) for one in waiting) >= _GROUP_ROWS:
                    writer.write_table(pa.Table.from_batches(waiting))
                    waiting.clear()
            writer.write_table(pa.Table.from_batches(waiting, schema=SCHEMA))
        return rows

    def publish(self, manifest: Manifest) -> None:
        """Make the file the hour's one, then remove those it replaces and what a crash has left behind."""
        hour = datetime.fromisoformat(manifest.hour)
        folder = self._folder(manifest.model, hour)
        with self._translated("written"):
            self._put(f"{folder}/{hour:%H}.json", json.dumps(asdict(manifest), indent=1).encode())
            for info in self._list(folder):
                others = info.base_name.startswith((f"{hour:%H}-", f"{hour:%H}.json."))
                if others and info.base_name != manifest.file:
                    with suppress(FileNotFoundError):
                        self._fs.delete_file(info.path)

    def verify(self, manifest: Manifest) -> None:
        """Read the whole file again. Raises Damaged where it is not what the manifest says."""
        path = f"{self._folder(manifest.model, datetime.fromisoformat(manifest.hour))}/{manifest.file}"
        try:
            size, digest = self._digest(path)
            with self._fs.open_input_file(path) as source:
                rows = pq.ParquetFile(source).metadata.num_rows
        except (OSError, pa.ArrowInvalid) as exc:
            raise Damaged(f"{path} cannot be read: {exc}") from exc
        if (size, digest, rows) != (manifest.bytes, manifest.sha256, manifest.rows):
            raise Damaged(f"{path} is not what its manifest says: {rows} rows of {manifest.rows}, {size} bytes")

    # --- reading ---

    def manifest(self, model: str, hour: datetime) -> Manifest | None:
        """What the hour's manifest says; None: the archive does not have the hour."""
        path = f"{self._folder(model, hour)}/{hour.astimezone(UTC):%H}.json"
        with self._translated("read"):
            try:
                with self._fs.open_input_file(path) as source:
                    return Manifest(**json.loads(source.read()))
            except FileNotFoundError:
                return None
            except (ValueError, TypeError) as exc:
                raise Damaged(f"{path} is no manifest: {exc}") from exc

    def models(self) -> list[str]:
        """Every model that has an hour in the archive."""
        return sorted(info.base_name for info in self._list(self._root))

    def hours(self, model: str, since: datetime | None = None, until: datetime | None = None) -> Iterator[Manifest]:
        """Manifests of the hours that overlap with [since, until), in order of time."""
        begin = None if since is None else since.astimezone(UTC).replace(minute=0, second=0, microsecond=0)
        for day in sorted(info.base_name for info in self._list(f"{self._root}/{model}")):
            if (begin is not None and day < f"{begin:%Y-%m-%d}") or (
                until is not None and day > f"{until.astimezone(UTC):%Y-%m-%d}"
            ):
                continue
            names = [info.base_name for info in self._list(f"{self._root}/{model}/{day}")]
            for name in sorted(name for name in names if name.endswith(".json")):
                hour = datetime.fromisoformat(f"{day}T{name[:2]}:00:00+00:00")
                if (begin is None or hour >= begin) and (until is None or hour < until):
                    found = self.manifest(model, hour)
                    if found is not None:
                        yield found

    def batches(
        self,
        model: str,
        since: datetime | None = None,
        until: datetime | None = None,
        *,
        columns: Sequence[str] | None = None,
        rows: int = 8_192,
    ) -> Iterator[Any]:
        """pyarrow record batches of the predictions received in [since, until), by hour and then by id.

        `rows` at most in each; memory does not grow with the range. `columns`: those of SCHEMA; None: all.
        """
        for manifest in self.hours(model, None if since is None else since - timedelta(seconds=1), until):
            for batch in self.file_batches(manifest, columns=columns, rows=rows):
                yield _within(batch, since, until, columns)

    def file_batches(
        self, manifest: Manifest, *, columns: Sequence[str] | None = None, rows: int = 8_192
    ) -> Iterator[Any]:
        """Record batches of one hour's file; `received_at` is always among the columns."""
        hour = datetime.fromisoformat(manifest.hour)
        path, wanted = f"{self._folder(manifest.model, hour)}/{manifest.file}", None
        try:
            source = self._fs.open_input_file(path)
        except FileNotFoundError as exc:  # replaced since the manifest was read
            newer = self.manifest(manifest.model, hour)
            if newer is None or newer.file == manifest.file:
                raise Damaged(f"{path} is missing") from exc
            yield from self.file_batches(newer, columns=columns, rows=rows)
            return
        if columns is not None:
            wanted = sorted({*columns, "received_at"})
        with source:
            try:
                yield from pq.ParquetFile(source).iter_batches(batch_size=rows, columns=wanted)
            except (OSError, pa.ArrowInvalid) as exc:
                raise Damaged(f"{path} cannot be read: {exc}") from exc

    def lists(
        self, manifest: Manifest, since: datetime, until: datetime, columns: Sequence[str], *, rows: int
    ) -> Iterator[dict[str, list[Any]]]:
        """Columns of the hour's predictions received in [since, until), as lists of plain values; times in
        microseconds. `rows` at most in each."""
        for batch in self.file_batches(manifest, columns=columns, rows=rows):
            mine = _within(batch, since, until, columns)
            yield {name: _plain(mine.column(name)) for name in columns}

    def find(self, hour: datetime, prediction_id: str) -> Row | None:
        """One prediction by its id and the hour of it, whatever its model. Unavailable: it cannot be read now."""
        try:
            for model in self.models():
                manifest = self.manifest(model, hour)
                for batch in self.file_batches(manifest) if manifest is not None else ():
                    mine = batch.filter(compute.equal(batch.column("prediction_id"), prediction_id))
                    if mine.num_rows:
                        return cast(Row, mine.to_pylist()[0])
        except Damaged as exc:
            raise Unavailable(f"The archive of this hour cannot be read: {exc}") from exc
        return None

    def names(self, manifest: Manifest, unit_id: str) -> int:
        """How many predictions of the hour are of this unit, or have an outcome that names it."""
        total = 0
        for batch in self.file_batches(manifest, columns=("unit_id", "outcomes"), rows=_GROUP_ROWS):
            found = compute.fill_null(compute.equal(batch.column("unit_id"), unit_id), False)
            outcomes = batch.column("outcomes")
            named = compute.equal(compute.struct_field(compute.list_flatten(outcomes), "unit_id"), unit_id)
            if compute.any(named).as_py():
                parents = compute.filter(compute.list_parent_indices(outcomes), compute.fill_null(named, False))
                found = compute.or_(found, compute.is_in(pa.array(range(len(found)), pa.int64()), parents))
            total += compute.sum(found).as_py() or 0
        return total

    # --- files ---

    def _folder(self, model: str, hour: datetime) -> str:
        return f"{self._root}/{model}/{hour.astimezone(UTC):%Y-%m-%d}"

    def _make(self, folder: str) -> None:
        if self._local:
            made = [path for path in (Path(folder), *Path(folder).parents) if not path.exists()]
            with self._private():  # `mode` would hold for the last folder alone
                Path(folder).mkdir(parents=True, exist_ok=True)
            for path in made:
                self._sync(str(path.parent))

    def _private(self) -> "_Umask":
        return _Umask()

    def _list(self, folder: str) -> list[Any]:
        with self._translated("read"):
            return list(self._fs.get_file_info(fs.FileSelector(folder, allow_not_found=True)))

    @contextmanager
    def _translated(self, what: str) -> Generator[None]:
        try:
            yield
        except OSError as exc:
            raise Unavailable(f"The archive cannot be {what}: {exc}") from exc

    def _digest(self, path: str) -> tuple[int, str]:
        size, digest = 0, hashlib.sha256()
        with self._fs.open_input_stream(path) as source:
            while piece := source.read(_PIECE):
                size += len(piece)
                digest.update(piece)
        return size, digest.hexdigest()

    def _put(self, path: str, data: bytes) -> None:
        """In one step: a bucket's PUT is one, a disk's rename is."""
        target = f"{path}.{secrets.token_hex(4)}.new" if self._local else path
        with self._private(), self._fs.open_output_stream(target) as out:
            out.write(data)
        if self._local:
            self._sync(target)
            os.replace(target, path)
            self._sync(str(Path(path).parent))

    def _sync(self, path: str) -> None:
        if self._local:
            sync(Path(path))


class _Umask:
    """Files made meanwhile are for this user alone."""

    def __enter__(self) -> None:
        self._was = os.umask(0o077)

    def __exit__(self, *_: object) -> None:
        os.umask(self._was)


def _within(batch: Any, since: datetime | None, until: datetime | None, columns: Sequence[str] | None) -> Any:
    at = batch.column("received_at")
    if since is not None:
        batch = batch.filter(compute.greater_equal(at, pa.scalar(since, _TIME)))
        at = batch.column("received_at")
    if until is not None:
        batch = batch.filter(compute.less(at, pa.scalar(until, _TIME)))
    return batch if columns is None else batch.select(list(columns))


def _plain(column: Any) -> list[Any]:
    if pa.types.is_timestamp(column.type):
        return cast("list[Any]", column.cast(pa.int64()).to_pylist())
    if not pa.types.is_list(column.type):
        return cast("list[Any]", column.to_pylist())
    filled = compute.greater(compute.fill_null(compute.list_value_length(column), 0), 0)  # most have none
    made: list[Any] = [()] * len(column)
    for at, value in zip(compute.indices_nonzero(filled).to_pylist(), column.filter(filled).to_pylist(), strict=True):
        made[at] = value
    return made


def documents(row: Mapping[str, Any]) -> Row:
    """A row of the archive with its JSON read."""
    parsed = dict(row)
    for name in ("features", "output"):
        parsed[name] = None if row.get(name) is None else json.loads(row[name])
    parsed["outcomes"] = [{**outcome, "value": json.loads(outcome["value"])} for outcome in (row.get("outcomes") or ())]
    return parsed
