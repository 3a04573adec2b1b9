"""Whether what was done because of a signal helped: figures before and after, compared. Pure."""

from collections.abc import Mapping
from enum import StrEnum

_WORSE_UP = ("error_rate", "p95_ms", "drift_score")
_WORSE_DOWN = ("accuracy",)
_MATTERS = 0.05  # of the figure before: less is no difference


class Effect(StrEnum):
    BETTER = "better"
    SAME = "same"
    WORSE = "worse"
    UNKNOWN = "unknown"  # nothing was measured on one of the sides: no good news


def compare(before: Mapping[str, float | None], after: Mapping[str, float | None]) -> tuple[Effect, str]:
    """The effect on the whole and the figures that say so. One that got worse decides, then one that got better."""
    said: list[str] = []
    found: set[Effect] = set()
    for name in (*_WORSE_UP, *_WORSE_DOWN):
        was, now = before.get(name), after.get(name)
        if was is None or now is None:
            continue
        change = (now - was) * (1 if name in _WORSE_UP else -1)
        effect = Effect.SAME if abs(change) <= _MATTERS * abs(was) else Effect.WORSE if change > 0 else Effect.BETTER
        found.add(effect)
        said.append(f"{name} {was:.4g} -> {now:.4g}")
    worst = next((e for e in (Effect.WORSE, Effect.BETTER, Effect.SAME) if e in found), Effect.UNKNOWN)
    return worst, ", ".join(said) or "Nothing was measured on both sides."
