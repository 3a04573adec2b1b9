"""The reference profile of a version: its hold-out rows and what it answered on them, as drift will count live traffic.

The hold-out and not the training rows: it is the newest part where there is time, and predictions on rows a model was
fitted on look surer than those to come.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from control_plane.domain.drift import document, fold
from control_plane.domain.model_config import FeatureType, ModelConfig, Problem


def build(
    config: ModelConfig,
    arrays: list[NDArray[Any]],
    prediction: NDArray[np.float64],
    label: NDArray[np.float64],
    classes: tuple[str, ...],
) -> dict[str, Any]:
    """`prediction` and `label` as evaluation takes them, of the same rows as `arrays`."""
    columns: Mapping[str, fold.Column] = {
        name: _booleans(values) if feature.type is FeatureType.BOOLEAN else values
        for (name, feature), values in zip(config.features.items(), arrays, strict=True)
    }
    answers: tuple[FeatureType, fold.Column]
    truth: tuple[FeatureType, fold.Column]
    match config.problem:
        case Problem.BINARY:
            answers, truth = (FeatureType.NUMBER, prediction), (FeatureType.BOOLEAN, _booleans(label))
        case Problem.MULTICLASS:
            answers = (FeatureType.CATEGORY, [classes[i] for i in prediction.argmax(axis=1)])
            truth = (FeatureType.CATEGORY, [classes[int(i)] if i >= 0 else None for i in label])
        case Problem.REGRESSION | Problem.OPAQUE:
            answers, truth = (FeatureType.NUMBER, prediction), (FeatureType.NUMBER, label)
    made = fold.reference(
        columns,
        {name: feature.type for name, feature in config.features.items()},
        cells=fold.Cells(bins=config.drift.bins),
        ranges={name: feature.range for name, feature in config.features.items() if feature.range is not None},
        prediction=answers,
        label=truth,
    )
    return document.to_json(made)


def _booleans(values: NDArray[np.float64]) -> list[object]:
    return [None if value != value else value == 1 for value in values.tolist()]
