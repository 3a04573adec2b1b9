"""Where "yes" starts to pay: the threshold of least cost, and what answers without a model would cost. Pure."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from control_plane.domain.model_config import Costs

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class RowCosts:
    """Cost of saying yes and of saying no, per row."""

    yes: Floats
    no: Floats

    def of(self, said: NDArray[np.bool_]) -> float:
        return float(np.where(said, self.yes, self.no).sum())

    @property
    def trivial(self) -> float:
        """The cheaper of always yes and always no."""
        return float(min(self.yes.sum(), self.no.sum()))


def costs(label: Floats, declared: Costs, amounts: Floats | None) -> RowCosts:
    """The cost matrix laid over the rows. `amounts`: each row's own cost of a missed positive."""
    missed = np.full(len(label), declared.false_negative) if amounts is None else amounts
    positive = label == 1
    return RowCosts(
        np.where(positive, declared.true_positive, declared.false_positive),
        np.where(positive, missed, declared.true_negative),
    )


def choose(probability: Floats, rows: RowCosts) -> float:
    """The threshold in 0..1 at which "yes where probability >= threshold" costs least on these rows.

    It lies half way between the two neighbouring probabilities, so that it does not hang on one row. Of equal costs the
    highest threshold: the fewest interventions. Never saying yes is 1.0, which a calibrated score never reaches.
    """
    order = np.argsort(-probability, kind="stable")
    ranked = probability[order]
    saved = np.cumsum((rows.yes - rows.no)[order])  # cost of flagging the first i + 1, against flagging none
    last = np.flatnonzero(np.r_[ranked[1:] != ranked[:-1], True]) if len(ranked) else np.array([], dtype=np.int64)
    if not len(last) or saved[last].min() >= 0:
        return 1.0
    best = int(last[int(np.argmin(saved[last]))])
    below = ranked[best + 1] if best + 1 < len(ranked) else 0.0
    return float((ranked[best] + below) / 2)
