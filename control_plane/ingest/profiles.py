"""Folds every answer into the profile of its model, version, variant and hour, as columns.

Each batch appends one small profile per window; they add up, so nothing is ever updated in place. A version without a
reference waits until the worker has given it one; what it answered before is counted then.
"""

import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from operator import itemgetter
from typing import Any, Final, cast

import numpy as np
import structlog
from numpy.typing import NDArray

from control_plane.adapters.store import ingest, windows
from control_plane.adapters.store.ingest import PREDICTION_COLUMNS, Connection, Row
from control_plane.adapters.store.windows import Key, Part
from control_plane.domain.drift import compact, fold, profiles
from control_plane.domain.drift.profiles import Profile
from control_plane.errors import InvalidInput
from control_plane.ingest import blocks, columns
from control_plane.ingest.blocks import FirstAnswers
from control_plane.ingest.columns import Reader

_FRESH_S: Final = 5.0  # how long a new reference may stay unknown here
_RECALLED: Final = 50_000  # answers from before a reference that are counted after all
_AT: Final = {name: PREDICTION_COLUMNS.index(name) for name in PREDICTION_COLUMNS}
_STATUS, _FEATURES, _OUTPUT = _AT["status"], _AT["features"], _AT["output"]
_window = itemgetter(_AT["model"], _AT["served_version"], _AT["shadow"], _AT["pinned"], _AT["assigned_variant"])
_received, _status, _unit = itemgetter(_AT["received_at"]), itemgetter(_STATUS), itemgetter(_AT["unit_id"])
_COUNTED: Final = frozenset({"ok", "invalid"})
_log: structlog.stdlib.BoundLogger = structlog.get_logger()

Mask = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class _Window:
    """Answers of one version, variant and hour. `evidence`: they may be the first of their customer and day."""

    key: Key
    variant: str
    evidence: bool
    starts: datetime
    rows: list[Row]


@dataclass(slots=True)
class Profiler:
    """Of one ingester; called with the rows that are new, in the transaction that stores them."""

    references: dict[Key, Reader] = field(default_factory=dict[Key, Reader])
    first: FirstAnswers = field(default_factory=FirstAnswers)
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
                for key, grid in found.items():
                    await self._learn(connection, key, grid)
        except (ingest.Unstorable, InvalidInput) as exc:  # of a reference: records go on without it
            _log.error("profiles.reference_unusable", error=repr(exc))

    async def _learn(self, connection: Connection, key: Key, grid: Profile) -> None:
        """A reference whose past could not be counted stays unknown, so that it is counted the next time."""
        self.references[key] = Reader(grid)
        try:
            async with connection.transaction():
                await self(connection, await windows.recall(connection, key, limit=_RECALLED))
        except BaseException:
            del self.references[key]
            raise

    async def __call__(self, connection: Connection, rows: Sequence[Row]) -> None:
        found = [window for window in _windows(rows) if window.key in self.references]
        if not found:
            return
        first = await self._first(connection, found)
        parts = [part for window, mine in zip(found, first, strict=True) for part in self._parts(window, mine)]
        await windows.add(connection, parts)

    async def _first(self, connection: Connection, found: Sequence[_Window]) -> list[Mask]:
        """Per window, which rows are evidence: the first of each customer and day, and all without a customer."""
        masks = [np.zeros(len(window.rows), dtype=np.bool_) for window in found]
        days: defaultdict[tuple[str, str, date], list[tuple[Mask, list[int], blocks.Hashes]]] = defaultdict(list)
        for window, mask in zip(found, masks, strict=True):
            if not window.evidence:
                continue
            units = list(map(_unit, window.rows))
            said = [status == "ok" for status in map(_status, window.rows)]
            mask[:] = [ok and unit is None for ok, unit in zip(said, units, strict=True)]
            at = [i for i, (ok, unit) in enumerate(zip(said, units, strict=True)) if ok and unit is not None]
            if at:
                day = window.starts.date()
                days[*window.key, day].append((mask, at, blocks.hashed([str(units[i]) for i in at], day)))
        for key in sorted(days):
            mine = await self.first.claim(connection, key, np.concatenate([hashes for *_, hashes in days[key]]))
            begin = 0
            for mask, at, hashes in days[key]:
                mask[at] = mine[begin : begin + len(hashes)]
                begin += len(hashes)
        return masks

    def _parts(self, window: _Window, first: Mask) -> Iterator[Part]:
        """What cannot be folded is logged and left out: it stops no record."""
        model, version = window.key
        try:
            whole, evidence = _folded(self.references[window.key], window.rows, first)
            yield (model, version, window.variant, "rows", window.starts, whole.rows, data := compact.pack(whole))
            if evidence is not None:
                packed = data if evidence is whole else compact.pack(evidence)
                yield (model, version, window.variant, "blocks", window.starts, evidence.rows, packed)
        except (ValueError, TypeError, ArithmeticError) as exc:
            _log.error("profiles.not_folded", model=model, version=version, rows=len(window.rows), error=repr(exc))


def _windows(rows: Sequence[Row]) -> Iterator[_Window]:
    grouped: defaultdict[tuple[Any, ...], list[Row]] = defaultdict(list)
    for row in rows:
        if row[_STATUS] in _COUNTED:
            grouped[_window(row)].append(row)
    for (model, version, shadow, pinned, variant), members in grouped.items():
        named = "shadow" if shadow else "pinned" if pinned else variant or ""
        for starts, mine in _by_hour(members):
            yield _Window((model, version), named, not (shadow or pinned), starts, mine)


def _by_hour(rows: list[Row]) -> list[tuple[datetime, list[Row]]]:
    times = cast("list[datetime]", list(map(_received, rows)))
    begin, end = _hour(min(times)), _hour(max(times))
    if begin == end:
        return [(begin, rows)]
    found: defaultdict[datetime, list[Row]] = defaultdict(list)
    for row, at in zip(rows, times, strict=True):
        found[_hour(at)].append(row)
    return list(found.items())


def _hour(at: datetime) -> datetime:
    return at.replace(minute=0, second=0, microsecond=0)


def _folded(reader: Reader, rows: Sequence[Row], first: Mask) -> tuple[Profile, Profile | None]:
    """The profile of all rows and that of the first ones, None if there are none; each row is counted once."""
    made = reader.columns([cast("str | None", row[_FEATURES]) for row in rows])
    answers = reader.answers([cast("str | None", row[_OUTPUT]) for row in rows])
    if first.all() or not first.any():
        whole = _profile(reader.grid, made, answers, len(rows))
        return whole, whole if first.any() else None
    evidence, others = (
        _profile(
            reader.grid,
            {name: columns.chosen(column, mine) for name, column in made.items()},
            None if answers is None else columns.chosen(answers, mine),
            int(np.count_nonzero(mine)),
        )
        for mine in (first, ~first)
    )
    return profiles.merge(evidence, others), evidence


def _profile(grid: Profile, made: Mapping[str, fold.Column], answers: fold.Column | None, rows: int) -> Profile:
    found = fold.fold(grid, made, prediction=answers)
    return found if made else Profile(rows, found.features, found.prediction, found.label)
