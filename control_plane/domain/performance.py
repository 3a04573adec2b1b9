"""How right a version's answers turned out: counts of (said, truth) in, shares out. Pure."""

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Answered:
    """`count` answers that said `said` and turned out as `truth`; for a binary problem both are yes or no."""

    said: str | bool
    truth: str | bool
    count: int


@dataclass(frozen=True, slots=True)
class Scores:
    """Shares within 0..1; None where nothing defines them (no labelled answers; no positives for recall)."""

    labelled: int
    accuracy: float | None
    precision: float | None = None  # binary only, like recall
    recall: float | None = None


def scores(answers: Iterable[Answered]) -> Scores:
    cells = list(answers)
    total = sum(cell.count for cell in cells)
    right = sum(cell.count for cell in cells if cell.said == cell.truth)
    hits = sum(cell.count for cell in cells if cell.said is True and cell.truth is True)
    flagged = sum(cell.count for cell in cells if cell.said is True)
    positives = sum(cell.count for cell in cells if cell.truth is True)
    return Scores(total, _share(right, total), _share(hits, flagged), _share(hits, positives))


def means_yes(truth: float | bool | str, positive: str | int | bool | None) -> bool | None:
    """Whether a reported truth of a binary problem is the positive class; None when it cannot be told.

    True and 1 are yes, False and 0 are no. Text is compared with the class named `positive` in model.yaml; other
    text is the other class, unless the positive class has no name of its own.
    """
    if isinstance(truth, bool):
        return truth
    if isinstance(truth, int | float):
        named = isinstance(positive, int | float) and not isinstance(positive, bool) and positive not in {0, 1}
        if named:
            return truth == positive
        return {1.0: True, 0.0: False}.get(float(truth))
    if isinstance(positive, str):
        return truth == positive
    return {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}.get(truth.lower())


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None
