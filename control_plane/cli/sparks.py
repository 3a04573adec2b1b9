"""Small pictures made of characters: a history in a row of blocks, two histograms side by side."""

from collections.abc import Sequence

_BLOCKS = "▁▂▃▄▅▆▇█"


def line(values: Sequence[float | None], *, width: int, top: float | None = None) -> str:
    """`values`, oldest first, in at most `width` characters: of neighbours that share one, the largest counts.

    `top`: the value of a full block, else the largest. Unknown values are blank.
    """
    if not values:
        return ""
    step = max(1, -(-len(values) // width))
    parts = [values[at : at + step] for at in range(0, len(values), step)]
    merged = [max((v for v in part if v is not None), default=None) for part in parts]
    highest = max((v for v in merged if v is not None), default=0.0)
    full = max(highest, top or 0.0)
    return "".join(" " if v is None else _BLOCKS[_level(v, full)] for v in merged)


def pair(reference: Sequence[float], current: Sequence[float], *, width: int) -> tuple[str, str]:
    """Two histograms of the same cells to one scale, each `width` characters or fewer."""
    if not reference or not current:
        return "", ""
    step = max(1, -(-len(reference) // width))
    sums = [[sum(side[at : at + step]) for at in range(0, len(side), step)] for side in (reference, current)]
    full = max(max(side) for side in sums)
    before, after = ("".join(_BLOCKS[_level(v, full)] for v in side) for side in sums)
    return before, after


def _level(value: float, full: float) -> int:
    return 0 if full <= 0 else min(len(_BLOCKS) - 1, max(0, round(value / full * (len(_BLOCKS) - 1))))
