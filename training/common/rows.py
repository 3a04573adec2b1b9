"""Rows for others: final features of a file, simulated raw rows, and predict bodies with their outcomes."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from control_plane.domain.model_config import FeatureType, Problem
from control_plane.errors import InvalidData
from training.common import data, labels, validation
from training.common.models import Source


def final(source: Source, file: Path) -> pd.DataFrame:
    """id, unit and time where declared, then the final features, one row per row of the file, in its order.

    The very code a training runs. Raises InvalidData if features.py lacks what it reads.
    """
    config = source.config
    made = _made(source, data.read(file, config))
    keys = [column for column in (config.id, config.unit, config.time) if column and column in made]
    if missing := [name for name in config.features if name not in made]:
        raise InvalidData(f"{file}: no column for {', '.join(missing)}.")
    return made[list(dict.fromkeys([*keys, *config.features]))]


def simulated(source: Source, rows: int, *, seed: int, scenario: str) -> pd.DataFrame:
    """Raw rows, as a file for `train --data` has them."""
    return source.simulate()(rows, np.random.default_rng(seed), scenario=scenario)


def bodies(
    source: Source, rows: int, *, seed: int, scenario: str, file: Path | None = None
) -> Iterator[dict[str, Any]]:
    """{"unit_id", "event_time", "features", "label"} each: a predict body, and what will turn out to be true.

    Histories are warm: as many rows as a training has are simulated, the newest `rows` of them returned. With `file`
    they are its raw rows in its order, from its start again where it has fewer.
    """
    config = source.config
    if file is None:
        raw = simulated(source, max(rows, config.training.rows), seed=seed, scenario=scenario)
        frame = _made(source, raw).iloc[-rows:]
    else:
        made = _made(source, data.read(file, config))
        lacking = [
            name for name in (config.unit, labels.target_of(config).column, *config.features) if name not in made
        ]
        if missing := [name for name in lacking if name]:
            raise InvalidData(f"{file}: no column for {', '.join(missing)}.")
        if made.empty:
            raise InvalidData(f"{file} has no rows.")
        frame = made.iloc[np.arange(rows) % len(made)]
    arrays = data.columns(frame, config.features)
    lists = [_plain(values, feature.type) for values, feature in zip(arrays, config.features.values(), strict=True)]
    target = labels.target_of(config)
    column = frame[target.column]
    truth: list[Any]
    if config.problem is Problem.BINARY:
        truth = labels.is_positive(column, target.positive).tolist()
    else:
        truth = column.tolist()
    units = frame[config.unit].astype(str).tolist() if config.unit else [None] * len(frame)
    times = data.parse_times(frame[config.time]).dt.strftime("%Y-%m-%dT%H:%M:%S.%fZ").tolist() if config.time else None
    for i, values in enumerate(zip(*lists, strict=True)):
        body: dict[str, Any] = {"features": dict(zip(config.features, values, strict=True)), "label": truth[i]}
        yield {"unit_id": units[i], "event_time": times[i] if times else None, **body}


def _made(source: Source, raw: pd.DataFrame) -> pd.DataFrame:
    function, declared = source.features()
    raw, found = validation.raw(raw, declared, source.config)
    if found:
        listed = "; ".join(f"{finding.column}: {finding.message}" for finding in found)
        raise InvalidData(f"Rows refused: {listed}.", findings=[finding.to_json() for finding in found])
    return raw if function is None else function(raw, label_delay_s=source.config.label.delay_s)


def _plain(values: Any, kind: FeatureType) -> list[Any]:
    """JSON values: null for NaN, true/false for booleans, whole numbers for integers."""
    convert = {FeatureType.BOOLEAN: bool, FeatureType.INTEGER: int}.get(kind)
    return [
        None if value is None or value != value else (convert(value) if convert else value) for value in values.tolist()
    ]
