"""How a version does on parts of the hold-out: by region, by age, by product. Reported, never a gate.

After "Quantitative analyses: unitary results" of Mitchell et al. 2019, "Model Cards for Model Reporting",
arXiv:1810.03993. A group column need not be a feature.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from control_plane.domain.model_config import ModelConfig, Problem
from training.common import evaluation
from training.common.evaluation import Interval
from training.common.pipeline import Prepared, Trained

_MOST = 12  # values of one column; the rarer ones are one group
_FEWEST = 50  # hold-out rows a group needs for a metric
_BANDS = (0.25, 0.5, 0.75)
OTHERS = "(others)"
NOTHING = "(none)"


@dataclass(frozen=True, slots=True)
class Group:
    """Hold-out rows with one value. `interval`: the declared metric, None with too few rows or one class.

    `flagged`, `positive`: shares of the rows, None where the problem is not binary.
    """

    column: str
    value: str
    rows: int
    interval: Interval | None
    flagged: float | None
    positive: float | None


def judged(config: ModelConfig, trained: Trained, prepared: Prepared, *, seed: int) -> tuple[Group, ...]:
    """Every group of every column of `training.groups` these rows have, the largest first within its column.

    Intervals are 95 % bootstrap intervals of single rows, or of units where a unit has several.
    """
    holdout = prepared.parts.holdout
    return tuple(
        _judge(config, trained, prepared, column, value, rows, seed=seed)
        for column in config.training.groups
        if column in prepared.frame
        for value, rows in _divided(prepared.frame[column].iloc[holdout])
    )


def _judge(
    config: ModelConfig,
    trained: Trained,
    prepared: Prepared,
    column: str,
    value: str,
    rows: NDArray[np.int64],
    *,
    seed: int,
) -> Group:
    assert config.metric is not None
    label, prediction = trained.label[rows], trained.prediction[rows]
    interval = None
    if len(rows) >= _FEWEST:
        units = None
        if prepared.units is not None:
            units = np.unique(prepared.units[prepared.parts.holdout][rows], return_inverse=True)[1].astype(np.int64)
        measured = evaluation.bootstrap(
            evaluation.measure(config.problem, config.metric.name, label, prediction),
            len(rows),
            rng=np.random.default_rng(seed),
            units=units,
        )
        interval = measured if np.isfinite(measured.low) else None
    if config.problem is not Problem.BINARY or trained.manifest.threshold is None:
        return Group(column, value, len(rows), interval, None, None)
    flagged = float((prediction >= trained.manifest.threshold).mean())
    return Group(column, value, len(rows), interval, flagged, float(label.mean()))


def _divided(values: "pd.Series[Any]") -> Iterator[tuple[str, NDArray[np.int64]]]:
    """(name of the group, positions of its rows): numbers with many values in quarters, everything else by value."""
    number = pd.api.types.is_numeric_dtype(values) and not pd.api.types.is_bool_dtype(values)
    words = _bands(values) if number and values.nunique() > _MOST else values.map(str).where(values.notna(), NOTHING)
    counts = words.value_counts()
    kept = set(counts.index[:_MOST])
    named = words.where(words.isin(kept), OTHERS).to_numpy(dtype=object)
    for name in [*counts.index[:_MOST], *([OTHERS] if len(counts) > _MOST else [])]:
        yield str(name), np.flatnonzero(named == name)


def _bands(values: "pd.Series[Any]") -> "pd.Series[Any]":
    numbers = values.astype(float)
    edges = np.unique(numbers.quantile(_BANDS).to_numpy())
    names = [f"up to {edges[0]:g}", *(f"over {low:g} to {high:g}" for low, high in pairwise(edges))]
    names.append(f"over {edges[-1]:g}")
    found = np.array(names, dtype=object)[np.searchsorted(edges, numbers.fillna(0.0).to_numpy())]
    return pd.Series(np.where(numbers.isna(), NOTHING, found), index=values.index)
