"""Which candidate wins. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass

from model_servers.native.manifest import Kind

SPEED: dict[Kind, int] = {"linear": 0, "tfidf_linear": 0, "xgboost": 1, "lightgbm": 1, "forest": 2}  # 0 answers fastest


@dataclass(frozen=True, slots=True)
class Score:
    name: str
    kind: Kind
    value: float  # of the declared metric, on the validation part


def winner(scores: Sequence[Score], *, higher_is_better: bool, margin: float) -> Score:
    """The best of the fastest kinds, unless a slower one is better by at least `margin`, in the metric's unit.

    Raises ValueError without a candidate that has a value (NaN is none).
    """
    sign = 1.0 if higher_is_better else -1.0
    usable = [score for score in scores if score.value == score.value]
    if not usable:
        raise ValueError("no candidate has a value")
    chosen: Score | None = None
    for speed in sorted({SPEED[score.kind] for score in usable}):
        best = max((score for score in usable if SPEED[score.kind] == speed), key=lambda score: sign * score.value)
        if chosen is None or sign * (best.value - chosen.value) >= margin:
            chosen = best
    assert chosen is not None
    return chosen
