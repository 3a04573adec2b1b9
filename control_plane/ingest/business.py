"""Business metrics of new prediction rows, added to their hours in the transaction that stores the rows."""

import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Final

import msgspec
import structlog
from pydantic import TypeAdapter, ValidationError

from control_plane.adapters.store import figures as store
from control_plane.adapters.store import ingest
from control_plane.adapters.store.ingest import Connection
from control_plane.domain import business
from control_plane.domain.model_config import ModelConfig

_LOOK_S: Final = 10.0  # between two looks for a version that is not registered
_CONFIG: Final = TypeAdapter(ModelConfig)
_COLUMN: Final = {name: at for at, name in enumerate(ingest.PREDICTION_COLUMNS)}
_decode = msgspec.json.Decoder(dict[str, object]).decode
_log: structlog.stdlib.BoundLogger = structlog.get_logger()


class Business:
    """What each version declares, and the fold. A version's config never changes, so it is read once."""

    def __init__(self) -> None:
        self._declared: dict[tuple[str, str], ModelConfig] = {}
        self._known: set[tuple[str, str]] = set()
        self._looked: dict[tuple[str, str], float] = {}  # when, of versions that were not there

    async def fold(self, connection: Connection, rows: Sequence[tuple[object, ...]]) -> None:
        """`rows`: new ones, in the order of ingest.PREDICTION_COLUMNS."""
        await self._look(connection, rows)
        if not self._declared:
            return
        totals: defaultdict[store.Key, list[float]] = defaultdict(lambda: [0, 0.0])
        for row in rows:
            self._add(row, totals)
        if totals:
            added = [(key, int(count), total) for key, (count, total) in sorted(totals.items())]
            await store.add(connection, added)

    def _add(self, row: Sequence[object], totals: "defaultdict[store.Key, list[float]]") -> None:
        model, version = str(row[_COLUMN["model"]]), str(row[_COLUMN["served_version"]])
        config = self._declared.get((model, version))
        if config is None or row[_COLUMN["status"]] != "ok" or row[_COLUMN["shadow"]] or row[_COLUMN["pinned"]]:
            return
        features, output = _object(row[_COLUMN["features"]]), _object(row[_COLUMN["output"]])
        decision = row[_COLUMN["decision"]]
        for name, metric in config.business.items():
            value = business.contribution(
                metric,
                config,
                decision=None if decision is None else str(decision),
                features=features,
                probability=business.number(output.get("probability")),
            )
            if value is not None:
                total = totals[model, version, str(row[_COLUMN["assigned_variant"]] or ""), name, _hour(row)]
                total[0] += 1
                total[1] += value

    async def _look(self, connection: Connection, rows: Sequence[tuple[object, ...]]) -> None:
        model, version = _COLUMN["model"], _COLUMN["served_version"]
        met = {(str(row[model]), str(row[version])) for row in rows if row[version] is not None}
        now = time.monotonic()
        wanted = {key for key in met - self._known if now - self._looked.get(key, float("-inf")) >= _LOOK_S}
        if not wanted:
            return
        self._looked |= dict.fromkeys(wanted, now)
        for key, config in await store.configs(connection, wanted):
            self._known.add(key)
            try:
                parsed = _CONFIG.validate_json(config)
            except ValidationError as exc:  # its gates say so; it can be served all the same
                _log.info("business.not_read", model=key[0], version=key[1], error=str(exc.errors()[0]["msg"]))
                continue
            if parsed.business:
                self._declared[key] = parsed


def _hour(row: Sequence[object]) -> datetime:
    received = row[_COLUMN["received_at"]]
    assert isinstance(received, datetime)
    return received.replace(minute=0, second=0, microsecond=0)


def _object(text: object) -> Mapping[str, object]:
    """The row's JSON object; empty for anything else."""
    try:
        return _decode(str(text))
    except (msgspec.DecodeError, RecursionError):
        return {}
