"""The values a replay comes down to. Plain dataclasses: every client reads them."""

from dataclasses import dataclass, field
from datetime import datetime


@dataclass(frozen=True, slots=True)
class Interval:
    """An estimate with its 95 % interval; None where the sample does not say how sure it is."""

    value: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True, slots=True)
class Spread:
    """A distribution in short, in the score's unit; quantiles to 1.6 % (of the odds, for probabilities)."""

    mean: float
    p05: float
    p25: float
    p50: float
    p75: float
    p95: float


@dataclass(frozen=True, slots=True)
class Cell:
    """One cell of the shift: scores in [low, high) and each side's share of them."""

    low: float
    high: float
    baseline: float
    candidate: float


@dataclass(frozen=True, slots=True)
class Shift:
    """How the scores moved. `difference`: mean of candidate - baseline on the same rows, customers kept together."""

    rows: int
    baseline: Spread
    candidate: Spread
    difference: Interval
    psi: float
    cells: tuple[Cell, ...]


@dataclass(frozen=True, slots=True)
class Direction:
    before: str
    after: str
    count: int
    rate: Interval


@dataclass(frozen=True, slots=True)
class Example:
    """A row decided otherwise. Personal features, text and the customer are masked."""

    prediction_id: str
    before: str
    after: str
    baseline_score: float | None
    candidate_score: float | None
    features: dict[str, float | bool | str | None]


@dataclass(frozen=True, slots=True)
class Flips:
    """Decisions that differ, of `rows` that both versions decided."""

    rows: int
    count: int
    rate: Interval
    directions: tuple[Direction, ...] = ()  # the most frequent first, 20 at most
    examples: tuple[Example, ...] = ()


@dataclass(frozen=True, slots=True)
class Change:
    """One metric on labelled rows. `difference`: candidate - baseline.

    With `bounds` there is no estimate: labels that a decision prevented may be anything, the truth of these rows is
    somewhere between the two, and the interval of `difference` holds both ends.
    """

    name: str
    higher_is_better: bool
    baseline: float | None
    candidate: float | None
    difference: Interval | None
    bounds: tuple[float, float] | None = None
    why: str = ""  # there is no difference to tell, because ...


@dataclass(frozen=True, slots=True)
class Labels:
    """`labelled`: rows with a truth, `hidden`: rows whose outcome the decision prevented; `waiting`: too young."""

    labelled: int = 0
    hidden: int = 0
    unknown: int = 0
    waiting: int = 0


@dataclass(frozen=True, slots=True)
class Quantiles:
    """Microseconds."""

    p50: float
    p95: float
    p99: float


@dataclass(frozen=True, slots=True)
class Latency:
    """Inside the process, per row: decoding and the model, no network. `single`: one row a call, of a sample."""

    batch: Quantiles | None = None
    single: Quantiles | None = None


@dataclass(frozen=True, slots=True)
class Refusal:
    """Rows a version refused to answer, by what was wrong. `feature` "": the row as a whole."""

    feature: str
    reason: str
    rows: int


@dataclass(frozen=True, slots=True)
class FeatureChange:
    name: str
    change: str


@dataclass(frozen=True, slots=True)
class Consistency:
    """The serving version over its own log: does it say again what it said then? `differ` rows do not: skew."""

    rows: int = 0
    differ: int = 0
    decisions: int = 0  # decided otherwise
    largest: float = 0.0  # difference of scores
    why: str = ""

    @property
    def share(self) -> float:
        return self.differ / self.rows if self.rows else 0.0


@dataclass(frozen=True, slots=True)
class Segment:
    name: str
    rows: int
    difference: Interval | None
    flip_rate: Interval | None


@dataclass(frozen=True, slots=True)
class Report:
    """What would have changed had the candidate answered. `units`: customers, about (1 %)."""

    model: str
    candidate: str
    baseline: str
    since: datetime
    until: datetime
    rows: int
    units: int
    left_out: dict[str, int]  # why -> rows
    versions: dict[str, int]  # who answered then -> rows
    consistency: Consistency
    shift: Shift | None
    flips: Flips | None
    labels: Labels
    metrics: tuple[Change, ...]
    currency: str | None
    latency: dict[str, Latency]  # baseline, candidate
    refused: dict[str, int]  # baseline, candidate -> rows
    refusals: tuple[Refusal, ...]  # of the candidate, the most frequent first
    features: tuple[FeatureChange, ...]
    segments: tuple[Segment, ...] = ()
    segment: str | None = None
    sample: float = 1.0
    took_s: float = 0.0
    rows_per_s: float = 0.0
    notes: tuple[str, ...] = field(default=())
