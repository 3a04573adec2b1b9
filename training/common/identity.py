"""What tells one row from another, whatever the file, the order of its rows and the seed. Pure."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from control_plane.domain.model_config import ModelConfig
from training.common import data, labels


@dataclass(frozen=True, slots=True)
class Holdout:
    """Which rows judge. `sha256`: of their identities and labels; `by`: the columns that placed them there; `share`:
    as declared. Two versions with one `sha256` were judged on the same rows."""

    sha256: str
    by: tuple[str, ...]
    share: float


def of_rows(frame: pd.DataFrame, arrays: Sequence[NDArray[Any]], config: ModelConfig) -> list[str]:
    """One word per row: its id, else its `training.unique`, else everything training reads of it."""
    if config.id is not None:
        return words(frame[config.id])
    if config.training.unique:
        return _joined([words(frame[name]) for name in config.training.unique])
    listed = [list(map(str, values.tolist())) for values in arrays]
    listed.append(words(frame[labels.target_of(config).column]))
    if config.unit is not None:
        listed.append(words(frame[config.unit]))
    if (times := data.times(frame, config)) is not None:
        listed.append(list(map(str, times.tolist())))
    return _joined(listed)


def placing(config: ModelConfig) -> tuple[str, ...]:
    """The columns that decide on which side of the split a row is."""
    if config.time is not None:
        return (config.time,)
    if key := config.unit or config.id:
        return (key,)
    return config.training.unique or tuple(sorted([*config.features, labels.target_of(config).column]))


def holdout(rows: Sequence[str], label: NDArray[Any], judging: NDArray[np.int64], config: ModelConfig) -> Holdout:
    """`rows`, `label`: of all rows; `judging`: numbers of those in the hold-out."""
    said = sorted(json.dumps([rows[i], labels.word(label[i])]) for i in judging.tolist())
    return Holdout(hashlib.sha256("\n".join(said).encode()).hexdigest(), placing(config), config.training.test_share)


def words(column: "pd.Series[Any]") -> list[str]:
    """1 and 1.0 are one, so that a column that once had a null is still read alike; so are all nulls."""
    null = column.isna().tolist()
    return ["" if missing else labels.word(value) for value, missing in zip(column.tolist(), null, strict=True)]


def _joined(columns: Sequence[Sequence[str]]) -> list[str]:
    return [json.dumps(row) for row in zip(*columns, strict=True)]
