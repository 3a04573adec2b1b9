"""A few rows decided otherwise, to look at: those whose score moved most, with nothing personal in them."""

import heapq
from collections.abc import Mapping
from typing import Any, Final

from control_plane.domain.model_config import FeatureType, ModelConfig
from control_plane.domain.replay.report import Example

MASK: Final = "***"
_EACH: Final = 5  # of one direction
_DIRECTIONS: Final = 8


class Examples:
    """The `_EACH` largest movements of each direction, whatever the order they come in."""

    def __init__(self) -> None:
        self._kept: dict[tuple[str, str], list[tuple[float, str, Example]]] = {}

    def wants(self, before: str, after: str, moved: float) -> bool:
        heap = self._kept.get((before, after))
        if heap is None:
            return len(self._kept) < _DIRECTIONS
        return len(heap) < _EACH or moved > heap[0][0]

    def offer(self, example: Example, moved: float) -> None:
        heap = self._kept.setdefault((example.before, example.after), [])
        entry = moved, example.prediction_id, example
        (heapq.heappush if len(heap) < _EACH else heapq.heappushpop)(heap, entry)

    def shown(self) -> tuple[Example, ...]:
        """The largest movement of each direction first."""
        return tuple(entry[2] for heap in self._kept.values() for entry in sorted(heap, reverse=True))


def masked(features: Mapping[str, Any], config: ModelConfig | None) -> dict[str, float | bool | str | None]:
    """Features without what may say who it is: what is declared personal, free text, the unit, and what no model.yaml
    declares."""
    declared = config.features if config else {}
    hidden = {config.unit, config.id} if config else set[str | None]()
    shown: dict[str, float | bool | str | None] = {}
    for name, value in features.items():
        feature = declared.get(name)
        open_ = feature is not None and not feature.pii and feature.type is not FeatureType.TEXT and name not in hidden
        known = isinstance(value, int | float | str) or value is None
        shown[name] = value if open_ and known else MASK
    return shown
