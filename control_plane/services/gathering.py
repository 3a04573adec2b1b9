"""Rows to learn from, out of the prediction log: what was asked, and what became of it once its label had its time."""

import gzip
import io
import json
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any, Final, cast
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from control_plane.adapters.archive import Archive
from control_plane.adapters.objects import Objects
from control_plane.adapters.store import jobs, log_archive
from control_plane.adapters.store.log_archive import Row
from control_plane.domain import quality, truth
from control_plane.domain.model_config import ModelConfig, Problem
from control_plane.domain.retraining import LOG_TIME, Gathered
from control_plane.domain.truth import Truth
from control_plane.errors import NotFound
from control_plane.services import archive as archive_service

_HOUR: Final = timedelta(hours=1)
_LATEST: Final = ("observed_at", "received_at")


class Collected:
    """Rows on their way out, newest hours first, as lines of JSON in gzip. At most `most` of them, each key once."""

    def __init__(self, config: ModelConfig, most: int) -> None:
        self.found = Gathered()
        self._config, self._most = config, most
        self._keys = set[tuple[str, ...]]()
        self._packed = io.BytesIO()
        self._out = gzip.GzipFile(fileobj=self._packed, mode="wb", compresslevel=3, mtime=0)

    @property
    def full(self) -> bool:
        return self.found.rows >= self._most

    def take(self, rows: dict[tuple[str, ...], tuple[Row, str]]) -> None:
        """The rows of an hour, oldest first, and the class of each ("" of a number)."""
        for key, (row, word) in reversed(rows.items()):
            if key in self._keys:
                self.found.repeated += 1
            elif not self.full:
                self._keys.add(key)
                self._out.write(json.dumps(row, ensure_ascii=False).encode() + b"\n")
                self.found.rows += 1
                if word:
                    self.found.classes[word] = self.found.classes.get(word, 0) + 1
            else:
                self.found.answers -= 1  # never looked at, like everything before it

    def packed(self) -> bytes:
        self._out.close()
        return self._packed.getvalue()


async def sweep(sessions: async_sessionmaker[AsyncSession], rows: Objects) -> None:
    """Remove what jobs left behind that are over: their worker died with them."""
    for name in rows.names():
        try:
            job_id = UUID(name.partition(".")[0])
        except ValueError:
            continue
        async with sessions() as session:
            try:
                over = (await jobs.load(session, job_id)).state not in jobs.OPEN
            except NotFound:
                over = True
        if over:
            rows.remove(name)


async def gather(
    sessions: async_sessionmaker[AsyncSession],
    archive: Archive,
    model: str,
    config: ModelConfig,
    *,
    since: datetime,
    now: datetime,
    most: int,
) -> Collected:
    """The newest answers since `since` whose label had its time, from Postgres and from days that only the archive has.

    Raises:
        Damaged, Unavailable: an hour of the archive cannot be read; a part of the log is never taken for all of it.
    """
    ripe_before = truth.matured(config.label, now)
    collected, window = Collected(config, most), quality.window(config.label)
    async with sessions() as session:
        hours = await log_archive.of_model(session, model, since=since - _HOUR, until=now + _HOUR)
    for hour in hours:
        if collected.full:
            break
        kept = dict[tuple[str, ...], tuple[Row, str]]()
        async with sessions() as session:
            async for batch in archive_service.rows_of(session, archive, hour, window):
                for row in batch:
                    _consider(row, config, collected.found, kept, since=since, ripe_before=ripe_before)
                    if len(kept) > most:  # the oldest of an hour that alone is more than enough
                        kept.pop(next(iter(kept)))
                        collected.found.answers -= 1
        collected.take(kept)
    return collected


def _consider(
    row: Row,
    config: ModelConfig,
    found: Gathered,
    kept: dict[tuple[str, ...], tuple[Row, str]],
    *,
    since: datetime,
    ripe_before: datetime,
) -> None:
    """Count an answer and, if it can be learnt from, keep its row under what tells it from others."""
    at = cast(datetime, row["received_at"])
    if at < since or row["shadow"]:
        return
    found.answers += 1
    features = _features(row)
    if (
        row["status"] != "ok"
        or features is None
        or (config.unit and config.unit not in features and not row["unit_id"])
    ):
        found.unusable += 1
        return
    if at > ripe_before:
        found.young += 1
        return
    real = _truth(row, config)
    if real is None:
        found.unlabelled += 1
        return
    made = _row(row, features, real, config)
    key = _key(made, config) or (str(row["prediction_id"]),)
    if kept.pop(key, None) is not None:
        found.repeated += 1
    kept[key] = (made, str(made[_target(config)]) if config.problem is not Problem.REGRESSION else "")


def _features(row: Row) -> Mapping[str, Any] | None:
    """None where they are no document, or one that Postgres could not hold."""
    try:
        found: object = json.loads(row["features"])
    except (TypeError, ValueError):
        return None
    return cast("dict[str, Any]", found) if isinstance(found, dict) and "$raw" not in found else None


def _truth(row: Row, config: ModelConfig) -> Truth | None:
    named = [outcome for outcome in row["outcomes"] or () if outcome["name"] == "label"]
    newest = max(named, key=lambda outcome: tuple(outcome[name] for name in _LATEST), default=None)
    if newest is None and row["pinned"]:
        return None  # somebody tried it out: that nothing was heard of it says nothing
    probability = _output(row).get("probability")
    above = None
    if isinstance(probability, int | float) and row["threshold"] is not None:
        above = float(probability) >= row["threshold"]
    said = truth.decided(config, row["decision"], above)
    return truth.known(config, None if newest is None else json.loads(newest["value"]), said=said)


def _output(row: Row) -> Mapping[str, Any]:
    try:
        found: object = json.loads(row["output"])
    except (TypeError, ValueError):
        return {}
    return cast("dict[str, Any]", found) if isinstance(found, dict) else {}


def _row(row: Row, features: Mapping[str, Any], real: Truth, config: ModelConfig) -> Row:
    """As training reads it: the features, the target in the words of model.yaml, and the columns that name the row."""
    made: Row = {name: features.get(name) for name in config.features}
    if config.id and config.id not in made:
        made[config.id] = row["unit_id"] if config.id == config.unit else str(row["prediction_id"])
    if config.unit and config.unit not in made:
        made[config.unit] = row["unit_id"]
    made[config.time or LOG_TIME] = row["received_at"].isoformat()
    made[_target(config)] = _word(real, config)
    return made


def _word(real: Truth, config: ModelConfig) -> object:
    if not isinstance(real, bool):
        return real
    positive = config.target.positive if config.target else True
    if isinstance(positive, str):
        return positive if real else f"not {positive}"
    if isinstance(positive, bool):
        return real == positive
    return positive if real else 1 - int(positive or 0)


def _key(made: Row, config: ModelConfig) -> tuple[str, ...] | None:
    """What model.yaml says tells rows apart; None: every answer is a row of its own."""
    columns = config.training.unique or ((config.id,) if config.id else ())
    values = [made.get(column) for column in columns]
    return tuple(map(str, values)) if columns and None not in values else None


def _target(config: ModelConfig) -> str:
    return config.target.column if config.target else "label"
