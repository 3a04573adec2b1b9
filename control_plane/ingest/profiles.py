"""Folds every answer into the profile of its model, version, variant and hour, as columns.

Each batch appends one small profile per window; they add up, so nothing is ever updated in place and no two ingesters
wait for each other. A version without a reference waits until the worker has given it one; what it answered before is
counted then.
"""

import time
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from hashlib import blake2b
from itertools import compress
from operator import itemgetter
from typing import Any, Final, cast

import msgspec
import numpy as np
import structlog
from numpy.typing import NDArray

from control_plane.adapters.store import ingest, windows
from control_plane.adapters.store.ingest import PREDICTION_COLUMNS, Connection, Row
from control_plane.adapters.store.windows import Block, Key, Part
from control_plane.domain.drift import compact, fold
from control_plane.domain.drift.profiles import Feature, Numeric, Profile
from control_plane.errors import InvalidInput

_FRESH_S: Final = 5.0  # how long a new reference may stay unknown here
_RECALLED: Final = 50_000  # answers from before a reference that are counted after all
_AT: Final = {name: PREDICTION_COLUMNS.index(name) for name in PREDICTION_COLUMNS}
_MODEL, _VERSION, _ID = _AT["model"], _AT["served_version"], _AT["prediction_id"]
_id = itemgetter(_ID)
_key = itemgetter(_MODEL, _VERSION)
_SHADOW, _PINNED = _AT["shadow"], _AT["pinned"]
_window = itemgetter(_MODEL, _VERSION, _SHADOW, _PINNED, _AT["assigned_variant"])
_RECEIVED, _STATUS, _UNIT = _AT["received_at"], _AT["status"], _AT["unit_id"]
_FEATURES, _OUTPUT = _AT["features"], _AT["output"]
_decode_rows = msgspec.json.Decoder(list[dict[str, Any]]).decode
_decode_any = msgspec.json.Decoder(list[Any]).decode
_log: structlog.stdlib.BoundLogger = structlog.get_logger()


class _Output(msgspec.Struct):
    """What our own servers answer; a stranger's answer may not fit and is read more slowly."""

    probability: float | None = None
    value: float | None = None
    label: str | None = None


_decode_outputs = msgspec.json.Decoder(list[_Output | None]).decode


@dataclass(slots=True)
class Profiler:
    """Of one ingester; called with the rows that are new, in the transaction that stores them."""

    references: dict[Key, Profile] = field(default_factory=dict[Key, Profile])
    looked_at: float = -_FRESH_S

    async def refresh(self, connection: Connection) -> None:
        """Learn of new references, now and then, and count what their versions answered before.

        Before a transaction, not inside it. StoreUnavailable when Postgres is gone.
        """
        if time.monotonic() - self.looked_at < _FRESH_S:
            return
        self.looked_at = time.monotonic()
        try:
            with ingest.translated():
                found = await windows.references(connection, list(self.references))
                self.references |= found
                for key in found:
                    async with connection.transaction():
                        await self(connection, await windows.recall(connection, key, limit=_RECALLED))
        except (ingest.Unstorable, InvalidInput) as exc:  # of a reference: records go on without it
            _log.error("profiles.reference_unusable", error=repr(exc))

    async def __call__(self, connection: Connection, rows: Sequence[Row]) -> None:
        mine = [row for row in rows if row[_STATUS] in {"ok", "invalid"} and _key(row) in self.references]
        if not mine:
            return
        first: dict[Block, object] = {}
        for row in mine:
            if row[_STATUS] == "ok" and row[_UNIT] is not None and not (row[_SHADOW] or row[_PINNED]):
                day = cast(datetime, row[_RECEIVED]).date()
                first.setdefault((*cast(Key, _key(row)), day, _hashed(str(row[_UNIT]), day)), row[_ID])
        claimed = await windows.claim(connection, first)
        await windows.add(connection, parts(mine, self.references, {first[block] for block in claimed}))


def _hashed(unit: str, day: date) -> int:
    """One row per customer and day is evidence. The hash is of that day alone: it leads from no day to another."""
    digest = blake2b(unit.encode(errors="surrogatepass"), digest_size=8, key=day.isoformat().encode()).digest()
    return int.from_bytes(digest, "big", signed=True)


def parts(rows: Sequence[Row], references: Mapping[Key, Profile], first: Collection[object]) -> list[Part]:
    """The windows of these rows. `first`: ids of the first answers of their customer and day.

    A row without a customer is a block of its own. What cannot be folded is logged and left out: it stops no record.
    """
    grouped: defaultdict[tuple[Any, ...], list[Row]] = defaultdict(list)
    for row in rows:
        hour = cast(datetime, row[_RECEIVED]).replace(minute=0, second=0, microsecond=0)
        grouped[(*_window(row), hour)].append(row)
    found: list[Part] = []
    for (model, version, shadow, pinned, variant, starts), members in grouped.items():
        named = "shadow" if shadow else "pinned" if pinned else variant or ""
        counted = not (shadow or pinned)
        blocks = [r for r in members if r[_STATUS] == "ok" and (r[_ID] in first or r[_UNIT] is None)] if counted else []
        try:
            grid = references[model, version]
            columns, answers = _columns_of(grid, members)
            found.append(
                (model, version, named, "rows", starts, len(members), _packed(grid, columns, answers, members))
            )
            if len(blocks) == len(members):
                found.append((model, version, named, "blocks", starts, len(blocks), found[-1][-1]))
            elif blocks:
                mine = np.fromiter(map(set(map(_id, blocks)).__contains__, map(_id, members)), bool, len(members))
                chosen = {name: _chosen(column, mine) for name, column in columns.items()}
                said = None if answers is None else _chosen(answers, mine)
                found.append(
                    (model, version, named, "blocks", starts, len(blocks), _packed(grid, chosen, said, blocks))
                )
        except (ValueError, TypeError, ArithmeticError) as exc:
            _log.error("profiles.not_folded", model=model, version=version, rows=len(members), error=repr(exc))
    return found


def profile(grid: Profile, rows: Sequence[Row]) -> Profile:
    """These answers on the cells of `grid`."""
    return _profile(grid, *_columns_of(grid, rows), rows)


def _columns_of(grid: Profile, rows: Sequence[Row]) -> tuple[dict[str, fold.Column], fold.Column | None]:
    """Features and answers of these rows, read once however often they are folded; numbers as arrays."""
    features = _features([cast("str | None", row[_FEATURES]) for row in rows])
    columns = {n: _array(grid.features[n], c) for n, c in _columns(features, tuple(grid.features)).items()}
    if grid.prediction is None:
        return columns, None
    return columns, _array(
        grid.prediction, _answers([cast("str | None", row[_OUTPUT]) for row in rows], grid.prediction)
    )


def _profile(
    grid: Profile, columns: Mapping[str, fold.Column], answers: fold.Column | None, rows: Sequence[Row]
) -> Profile:
    made = fold.fold(grid, columns, prediction=answers)
    return made if columns else Profile(len(rows), made.features, made.prediction, made.label)


def _packed(
    grid: Profile, columns: Mapping[str, fold.Column], answers: fold.Column | None, rows: Sequence[Row]
) -> bytes:
    return compact.pack(_profile(grid, columns, answers, rows))


def _array(feature: Feature, column: fold.Column) -> fold.Column:
    """Of a number's column without anything odd in it an array, NaN for null; any other one as it is."""
    if not isinstance(feature, Numeric):
        return column
    values, absent = fold.numbers(column)
    return values if not absent.total else column


def _chosen(column: fold.Column, mine: NDArray[np.bool_]) -> fold.Column:
    return column[mine] if isinstance(column, np.ndarray) else list(compress(column, mine))


def _features(texts: list[str | None]) -> list[dict[str, Any]]:
    joined = f"[{','.join([text or '{}' for text in texts])}]"
    try:
        return _decode_rows(joined)
    except msgspec.ValidationError:  # somebody sent a list or a number for features
        return [cast("dict[str, Any]", row) if isinstance(row, dict) else {} for row in _decode_any(joined)]


def _columns(rows: list[dict[str, Any]], names: tuple[str, ...]) -> dict[str, fold.Column]:
    """Whole rows are turned at C speed; one with a key missing makes the batch take the slower way."""
    if not names:
        return {}
    try:
        if len(names) == 1:
            return {names[0]: [row[names[0]] for row in rows]}
        whole = cast("Callable[[dict[str, Any]], tuple[Any, ...]]", itemgetter(*names))
        return dict(zip(names, zip(*map(whole, rows), strict=True), strict=True))
    except KeyError:
        return {name: [row.get(name, fold.MISSING) for row in rows] for name in names}


def _answers(texts: list[str | None], prediction: Feature) -> list[object]:
    """The score, value or class of each answer; None where there is none."""
    joined = f"[{','.join([text or 'null' for text in texts])}]"
    members = ("probability", "value") if isinstance(prediction, Numeric) else ("label",)
    try:
        outputs = _decode_outputs(joined)
    except msgspec.ValidationError:
        return [_of_stranger(output, members) for output in _decode_any(joined)]
    if isinstance(prediction, Numeric):
        return [None if o is None else o.value if o.probability is None else o.probability for o in outputs]
    return [None if o is None else o.label for o in outputs]


def _of_stranger(output: object, members: tuple[str, ...]) -> object:
    if not isinstance(output, dict):
        return output
    known = cast("dict[str, object]", output)
    return next((known[name] for name in members if known.get(name) is not None), None)
