"""Drift of a model as the API says it. Aggregates only: counts, shares and distances, never a row."""

from datetime import datetime
from typing import Literal
from uuid import UUID

from pydantic import Field

from control_plane.contracts.base import View
from control_plane.domain.rollouts import Verdict

DriftType = Literal["data", "prediction", "target", "performance", "quality"]
SeverityName = Literal["low", "medium", "high"]


class DriftReading(View):
    """One kind of drift now. `score`: largest PSI (data, prediction, target), how much worse the metric is
    (performance), share of bad rows above the usual (quality); None: it could not be computed, and `why` not."""

    kind: DriftType
    verdict: Verdict
    alarm: bool
    score: float | None
    why: str
    features: list[str] = []


class DriftFinding(View):
    """What is wrong with the data itself, by name."""

    issue: str
    why: str


class Histogram(View):
    """Shares per cell of the reference and of the window; both sum to 1."""

    cells: list[str]
    reference: list[float]
    current: list[float]


class FeatureDrift(View):
    """One feature, or column of a file, against its reference. `psi` (population stability index) above `limit` is a
    FAIL for this one look; None where nothing could be computed."""

    name: str
    verdict: Verdict
    why: str
    rows: int
    psi: float | None
    limit: float | None
    js: float | None = Field(None, description="Jensen-Shannon distance, 0..1.")
    ks: float | None = Field(None, description="Kolmogorov-Smirnov distance on the cells; numbers only.")
    wasserstein: float | None = Field(None, description="In the feature's unit; numbers only.")
    cramers_v: float | None = Field(None, description="Effect size of chi-square, 0..1; categories only.")
    findings: list[DriftFinding] = []
    histogram: Histogram | None = None


class DriftFeature(FeatureDrift):
    """One feature of live traffic over the window, with what many looks say of it."""

    log_evidence: float | None = Field(None, description="Logarithm of its evidence of drift; an alarm adds them up.")
    share: float | None = Field(None, description="How much of the predictions' shift it explains.")


class DriftInterval(View):
    """A value with its 95 % interval (a narrower one where `drift.alpha` of model.yaml is above 0.05)."""

    value: float
    low: float
    high: float
    rows: int


class DriftCost(View):
    """Expected cost of one prediction, from calibrated probabilities."""

    value: float
    low: float
    high: float
    rows: int
    currency: str


class DriftPerformance(View):
    """`realised`: labels that have arrived. `estimated`: without labels (CBPE), valid as `validity` says."""

    metric: str | None = None
    reference: float | None = Field(None, description="On the version's own hold-out.")
    realised: DriftInterval | None = None
    estimated: DriftInterval | None = None
    expected_cost: DriftCost | None = None
    validity: str | None = None
    why: str | None = None


class DriftEvent(View):
    at: datetime
    what: Literal["open", "change", "close"]
    version: str
    severity: SeverityName
    kinds: list[DriftType]
    features: list[str]
    why: str


class DriftIncident(View):
    """One episode of drift. `history`: every change, oldest first."""

    id: UUID
    version: str
    opened_at: datetime
    closed_at: datetime | None
    severity: SeverityName
    kinds: list[DriftType]
    features: list[str]
    history: list[DriftEvent]


class DriftPoint(View):
    """The last look of an hour."""

    at: datetime
    version: str
    rows: int
    scores: dict[str, float | None]
    psi: dict[str, float | None]
    estimated: float | None = None
    realised: float | None = None


class DriftReference(View):
    source: Literal["training", "first_traffic"]
    rows: int
    created_at: datetime


class DriftWindow(View):
    """`blocks`: customers per day in it, the unit of evidence."""

    since: datetime
    until: datetime
    rows: int
    blocks: int


class DriftView(View):
    """Drift of a model's Production version. `looked_at` None: nobody has looked yet, and `note` says why."""

    model: str
    version: str | None
    looked_at: datetime | None
    alarm: bool
    reference: DriftReference | None = None
    window: DriftWindow | None = None
    basis: str | None = Field(None, description="What was taken for usual: the reference, or so many usual days.")
    readings: list[DriftReading] = []
    features: list[DriftFeature] = []
    prediction: DriftFeature | None = None
    performance: DriftPerformance | None = None
    incidents: list[DriftIncident] = []
    history: list[DriftPoint] = []
    note: str | None = None
