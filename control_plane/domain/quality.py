"""How right a version's answers turned out: counts and sums that add, and the metrics read from them. Pure.

A `Tally` holds what an hour, a day or a year of labelled answers comes down to; tallies add, so any period is a sum of
hours. Probabilities are kept on a grid of log-odds, 64 steps to a factor of e: ROC AUC and average precision see scores
of one step (1.6 % of the odds) as ties; every other metric is exact.
"""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final

from control_plane.domain.model_config import Costs, Label, Problem

GRID: Final = 64  # steps of log-odds to a factor of e
_Z: Final = 1.959964  # two-sided 95 %
_MOST_PAIRS: Final = 2_000  # of (said, truth) kept apart; further ones only as right or wrong
_REST: Final = "\N{HORIZONTAL ELLIPSIS}"
_SHORTEST_WINDOW: Final = timedelta(days=1)
LONGEST_WINDOW: Final = timedelta(days=90)
_PUT_OFF: Final = timedelta(minutes=5)


@dataclass(frozen=True, slots=True)
class Estimate:
    """A metric of `n` answers with its 95 % interval; None where the sample does not say how sure it is."""

    value: float
    low: float | None
    high: float | None
    n: int


@dataclass(slots=True)
class Tally:
    """Sums over labelled answers. What a problem does not use stays empty."""

    bins: dict[int, list[int]] = field(default_factory=dict[int, list[int]])  # grid step -> [negatives, positives]
    decided: list[int] = field(default_factory=lambda: [0, 0, 0, 0])  # true neg., false pos., false neg., true pos.
    amounts: list[float] = field(default_factory=lambda: [0.0, 0.0])  # of false negatives: sum, sum of squares
    losses: list[float] = field(default_factory=lambda: [0.0, 0.0, 0.0])  # log loss: count, sum, sum of squares
    pairs: Counter[tuple[str, str]] = field(default_factory=Counter[tuple[str, str]])  # (said, truth)
    errors: list[float] = field(default_factory=lambda: [0.0] * 7)  # n, e, |e|, e^2, e^4, truth, truth^2

    @property
    def labelled(self) -> int:
        return sum(self.decided) or sum(self.pairs.values()) or int(self.errors[0]) or int(self.losses[0])

    def decide(self, said: bool, truth: bool, count: int = 1, amount: float = 0.0, amount_squares: float = 0.0) -> None:
        """Binary answers that said yes or no; `amount`: what those cost whose false no has a price of its own."""
        self.decided[2 * truth + said] += count
        if truth and not said:
            self.amounts = [self.amounts[0] + amount, self.amounts[1] + amount_squares]

    def score(self, step: int, truth: bool, count: int, loss: float, loss_squares: float) -> None:
        """Binary answers with a probability on this step of the grid."""
        self.bins.setdefault(step, [0, 0])[truth] += count
        self.losses = [a + b for a, b in zip(self.losses, (count, loss, loss_squares), strict=True)]

    def name(self, said: str, truth: str, count: int = 1) -> None:
        """Multiclass answers."""
        if len(self.pairs) >= _MOST_PAIRS and (said, truth) not in self.pairs:
            said, truth = (_REST, _REST) if said == truth else (_REST, f"not {_REST}")
        self.pairs[said, truth] += count

    def add(self, other: "Tally") -> "Tally":
        """Self, with the other's sums in it."""
        for step, found in other.bins.items():
            mine = self.bins.setdefault(step, [0, 0])
            mine[0] += found[0]
            mine[1] += found[1]
        self.decided = [a + b for a, b in zip(self.decided, other.decided, strict=True)]
        self.amounts = [a + b for a, b in zip(self.amounts, other.amounts, strict=True)]
        self.losses = [a + b for a, b in zip(self.losses, other.losses, strict=True)]
        self.errors = [a + b for a, b in zip(self.errors, other.errors, strict=True)]
        for (said, truth), count in other.pairs.items():
            self.name(said, truth, count)
        return self

    def document(self) -> dict[str, Any]:
        """JSON; `read` makes it a tally again."""
        return {
            "bins": [[step, *found] for step, found in sorted(self.bins.items())],
            "decided": self.decided,
            "amounts": self.amounts,
            "losses": self.losses,
            "pairs": [[said, truth, count] for (said, truth), count in self.pairs.items()],
            "errors": self.errors,
        }


def read(document: Mapping[str, Any]) -> Tally:
    return Tally(
        {step: [negatives, positives] for step, negatives, positives in document["bins"]},
        list(document["decided"]),
        list(document["amounts"]),
        list(document["losses"]),
        Counter({(said, truth): count for said, truth, count in document["pairs"]}),
        list(document["errors"]),
    )


def step_of(probability: float) -> int:
    """The step of the grid a probability is on; 0 and 1 are as far out as one in a billion."""
    inside = min(max(probability, 1e-9), 1 - 1e-9)
    return round(GRID * math.log(inside / (1 - inside)))


def metrics(tally: Tally, problem: Problem, costs: Costs | None) -> dict[str, Estimate]:
    """Every metric the tally defines, by the names of model.yaml; one that nothing defines is left out."""
    match problem:
        case Problem.BINARY:
            found = _decisions(tally.decided) | _scores(tally)
            if costs is not None and (cost := _cost(tally, costs)) is not None:
                found["cost"] = cost
            return found
        case Problem.MULTICLASS:
            return _classes(tally.pairs)
        case Problem.REGRESSION | Problem.OPAQUE:
            return _errors(tally.errors)


def window(label: Label) -> timedelta:
    """How long after a prediction an outcome of its unit still speaks of it: the label's delay, at least a day."""
    return min(max(timedelta(seconds=label.delay_s), _SHORTEST_WINDOW), LONGEST_WINDOW)


def due_again(hour: datetime, delay: timedelta, *, now: datetime, took_s: float) -> datetime | None:
    """When an hour folded just now must be folded again though nothing changes; None: its labels all had their time.

    While labels ripen it is folded so rarely that it takes 5 % of the time at most.
    """
    if now < hour + delay:
        return hour + delay
    if now < hour + timedelta(hours=1) + delay:
        return now + timedelta(seconds=max(5.0, 20 * took_s))
    return None


def put_off(now: datetime) -> datetime:
    """When an hour that could not be folded is tried again: not so soon that a few of them are all that is tried."""
    return now + _PUT_OFF


def _decisions(decided: Sequence[int]) -> dict[str, Estimate]:
    right, wrong_yes, wrong_no, hits = decided
    shares = {
        "accuracy": (right + hits, sum(decided)),
        "precision": (hits, hits + wrong_yes),
        "recall": (hits, hits + wrong_no),
        "positive_rate": (hits + wrong_no, sum(decided)),
    }
    return {name: _share(part, whole) for name, (part, whole) in shares.items() if whole}


def _scores(tally: Tally) -> dict[str, Estimate]:
    steps = sorted(tally.bins.items())
    negatives, positives = (sum(found[kind] for _, found in steps) for kind in (0, 1))
    made: dict[str, Estimate] = {}
    if tally.losses[0]:
        made["log_loss"] = _mean(*tally.losses)
    if not negatives or not positives:
        return made
    below, area, above_squares, below_squares = 0, 0.0, 0.0, 0.0
    for _, (n, p) in steps:  # placements of DeLong, DeLong & Clarke-Pearson (1988), ties by half
        of_positive = (below + n / 2) / negatives
        area += p * of_positive
        above_squares += p * of_positive**2
        below += n
    area /= positives
    seen = positives
    for _, (n, p) in steps:
        seen -= p
        below_squares += n * ((seen + p / 2) / positives) ** 2
    variance = max(0.0, above_squares / positives - area**2) / max(1, positives - 1)
    variance += max(0.0, below_squares / negatives - area**2) / max(1, negatives - 1)
    half = _Z * math.sqrt(variance)
    n_all = positives + negatives
    made["roc_auc"] = Estimate(area, max(0.0, area - half), min(1.0, area + half), n_all)
    hits = flagged = 0
    precision = 0.0
    for _, (n, p) in reversed(steps):
        hits, flagged = hits + p, flagged + n + p
        precision += p / positives * hits / flagged
    made["average_precision"] = Estimate(precision, *_logit_interval(precision, positives), n_all)
    return made


def _cost(tally: Tally, costs: Costs) -> Estimate | None:
    """Mean cost of one answer, in `costs.currency`."""
    n = sum(tally.decided)
    if not n:
        return None
    prices = (costs.true_negative, costs.false_positive, costs.false_negative, costs.true_positive)
    own = costs.false_negative_column is not None
    parts = [
        (count, price)
        for index, (count, price) in enumerate(zip(tally.decided, prices, strict=True))
        if index != 2 or not own
    ]
    total = sum(count * price for count, price in parts) + (tally.amounts[0] if own else 0.0)
    squares = sum(count * price**2 for count, price in parts) + (tally.amounts[1] if own else 0.0)
    return _mean(n, total, squares)


def _classes(pairs: Mapping[tuple[str, str], int]) -> dict[str, Estimate]:
    total = sum(pairs.values())
    if not total:
        return {}
    said, truth, right = Counter[str](), Counter[str](), Counter[str]()
    for (name, real), count in pairs.items():
        said[name] += count
        truth[real] += count
        if name == real:
            right[name] += count
    names = {*said, *truth}
    f1 = sum(2 * right[name] / (said[name] + truth[name]) for name in names) / len(names)
    return {"accuracy": _share(sum(right.values()), total), "macro_f1": Estimate(f1, None, None, total)}


def _errors(sums: Sequence[float]) -> dict[str, Estimate]:
    n, bias, absolute, squares, fourth, truth, truth_squares = sums
    if not n:
        return {}
    square = _mean(n, squares, fourth)
    rmse = math.sqrt(square.value)
    low = None if square.low is None else math.sqrt(max(0.0, square.low))
    high = None if square.high is None else math.sqrt(square.high)
    made = {
        "mae": _mean(n, absolute, squares),
        "rmse": Estimate(rmse, low, high, int(n)),
        "bias": _mean(n, bias, squares),
    }
    spread = truth_squares - truth**2 / n
    if spread > 0 and n > 1:
        made["r2"] = Estimate(1 - squares / spread, None, None, int(n))
    return made


def _mean(n: float, total: float, squares: float) -> Estimate:
    """With the interval of the central limit theorem."""
    mean = total / n
    if n < 2:
        return Estimate(mean, None, None, int(n))
    half = _Z * math.sqrt(max(0.0, squares / n - mean**2) / (n - 1))
    return Estimate(mean, mean - half, mean + half, int(n))


def _share(part: int, whole: int) -> Estimate:
    """With the interval of Wilson (1927)."""
    p, z2 = part / whole, _Z**2
    middle = (p + z2 / (2 * whole)) / (1 + z2 / whole)
    half = _Z / (1 + z2 / whole) * math.sqrt(p * (1 - p) / whole + z2 / (4 * whole**2))
    return Estimate(p, max(0.0, middle - half), min(1.0, middle + half), whole)


def _logit_interval(value: float, positives: int) -> tuple[float | None, float | None]:
    """Boyd, Eng & Page (2013), section 3.2: on the log-odds of the average precision."""
    if not 0 < value < 1:
        return None, None
    at, half = math.log(value / (1 - value)), _Z / math.sqrt(positives * value * (1 - value))
    return _logistic(at - half), _logistic(at + half)


def _logistic(x: float) -> float:
    return (1 + math.tanh(x / 2)) / 2  # the usual form overflows where the interval is as wide as it can be


def merged(tallies: Iterable[Tally]) -> Tally:
    made = Tally()
    for tally in tallies:
        made.add(tally)
    return made
