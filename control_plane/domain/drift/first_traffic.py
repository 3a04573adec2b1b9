"""A reference for a version that brought none: the first answers it gave. Pure."""

from collections.abc import Mapping, Sequence
from typing import Any, Final, cast

from control_plane.domain.business import number
from control_plane.domain.drift import fold
from control_plane.domain.drift.profiles import Profile
from control_plane.domain.model_config import FeatureType, ModelConfig

ROWS: Final = 2_000  # of the first traffic; fewer make an unsure reference


def reference(config: ModelConfig, rows: Sequence[Mapping[str, Any]], outputs: Sequence[object]) -> Profile:
    """From predict bodies and their answers. What an answer says decides how predictions are counted."""
    columns = {name: [row.get(name, fold.MISSING) for row in rows] for name in config.features}
    ranges = {name: feature.range for name, feature in config.features.items() if feature.range is not None}
    return fold.reference(
        columns,
        {name: feature.type for name, feature in config.features.items()},
        cells=fold.Cells(bins=config.drift.bins),
        ranges=ranges,
        prediction=prediction(outputs),
    )


def prediction(outputs: Sequence[object]) -> tuple[FeatureType, list[object]] | None:
    """Class where most answers name one, else the number they give; None where they do neither."""
    labels = [_member(output, "label") for output in outputs]
    if sum(isinstance(label, str) for label in labels) > len(labels) / 2:
        return FeatureType.CATEGORY, labels
    for numbers in ([_member(output, "probability") for output in outputs], [_value(output) for output in outputs]):
        if any(number(value) is not None for value in numbers):
            return FeatureType.NUMBER, numbers
    return None


def _value(output: object) -> object:
    """A foreign server may answer the bare number."""
    return output if not isinstance(output, dict) else _member(cast("object", output), "value")


def _member(output: object, name: str) -> object:
    return cast("dict[str, object]", output).get(name) if isinstance(output, dict) else None
