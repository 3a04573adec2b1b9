"""The facts of a report. Aggregates and configuration alone: no features, no unit, no row of anybody.

Numbers are rounded here, once, so that the JSON, the PDF and the summary show the same ones. None: not known.
"""

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

FORMAT = 1


class Kind(StrEnum):
    DEPLOYMENT = "deployment"  # a promotion that ended in Production, or did not
    ROLLBACK = "rollback"
    RETRAINING = "retraining"
    DRIFT = "drift"
    INCIDENT = "incident"  # drift incidents, rollbacks and SLA misses of a period
    MONTHLY = "monthly"


@dataclass(frozen=True, slots=True)
class Inventory:
    """The model's line in the model inventory."""

    model: str
    problem: str | None
    owner: str | None
    purpose: str | None
    materiality: str | None
    production_version: str | None
    previous_version: str | None
    validated_at: datetime | None  # when the version in question was trained and judged
    next_review: datetime | None  # `domain.reviews`: the more material, the sooner
    review_overdue: bool
    undeclared: tuple[str, ...]  # what model.yaml leaves open


@dataclass(frozen=True, slots=True)
class Lineage:
    """Where the version comes from."""

    version: str
    semver: str | None
    created_at: datetime
    run_id: str | None
    digest: str | None
    digest_from: str | None
    algorithm: str | None
    seed: int | None
    data_source: str | None
    data_sha256: str | None
    data_rows: int | None
    data_from: str | None
    data_to: str | None


@dataclass(frozen=True, slots=True)
class Score:
    """A metric on the hold-out; `reference` is Production's on the same rows."""

    name: str
    value: float
    low: float | None = None
    high: float | None = None
    reference: float | None = None
    reference_version: str | None = None


@dataclass(frozen=True, slots=True)
class Gate:
    """What a promotion to Production would be answered at the time of the report."""

    allowed: bool
    reasons: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Measured:
    """Candidate - baseline with customers, with its always-valid interval."""

    metric: str
    role: str
    verdict: str
    why: str
    effect: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True, slots=True)
class Look:
    at: datetime
    step: int
    verdict: str
    decided: str | None
    why: str


@dataclass(frozen=True, slots=True)
class Release:
    """A rollout and the evidence it was decided by."""

    id: str
    kind: str
    strategy: str
    phase: str
    candidate: str
    stable: str | None
    created_by: str
    created_at: datetime
    closed_at: datetime | None
    conclusion: str | None
    reason: str
    looks: tuple[Look, ...] = ()
    measured: tuple[Measured, ...] = ()  # of the last look that measured


@dataclass(frozen=True, slots=True)
class Served:
    """One version with customers in the period. Shares are within 0..1."""

    version: str
    predictions: int
    failures: int
    latency_ms_p95: float | None
    labelled: int
    accuracy: float | None


@dataclass(frozen=True, slots=True)
class Service:
    since: datetime
    until: datetime
    predictions: int
    availability: float | None
    objective: float | None
    met: bool | None
    latency_objective_ms: float | None
    versions: tuple[Served, ...] = ()
    note: str | None = None


@dataclass(frozen=True, slots=True)
class DriftRead:
    kind: str
    verdict: str
    alarm: bool
    score: float | None
    why: str


@dataclass(frozen=True, slots=True)
class DriftFeatureRead:
    """`psi` above `limit`: this one look says the feature differs from the reference."""

    name: str
    verdict: str
    psi: float
    limit: float | None


@dataclass(frozen=True, slots=True)
class DriftPointRead:
    at: datetime
    score: float


@dataclass(frozen=True, slots=True)
class DriftIncidentRead:
    id: str
    version: str
    severity: str
    opened_at: datetime
    closed_at: datetime | None
    kinds: tuple[str, ...]
    features: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Drift:
    version: str | None
    looked_at: datetime | None
    alarm: bool
    readings: tuple[DriftRead, ...] = ()
    features: tuple[DriftFeatureRead, ...] = ()  # largest PSI first, at most 12
    history: tuple[DriftPointRead, ...] = ()  # largest PSI of a feature, at most 120 points
    incidents: tuple[DriftIncidentRead, ...] = ()
    note: str | None = None


@dataclass(frozen=True, slots=True)
class Happened:
    """A line of the audit chain, or of the stages: who did what, when and why."""

    at: datetime
    what: str
    who: str
    why: str
    seq: int | None = None  # link of the audit chain


@dataclass(frozen=True, slots=True)
class Approval:
    at: datetime
    action: str
    asked_by: str
    approved_by: str
    why: str
    seq: int


@dataclass(frozen=True, slots=True)
class Proof:
    """Where the record of this can be verified."""

    head_seq: int
    signed_to: int


@dataclass(frozen=True, slots=True)
class Facts:
    """Everything a report says."""

    kind: Kind
    id: str
    title: str
    at: datetime
    since: datetime
    until: datetime
    inventory: Inventory
    lineage: Lineage | None
    scores: tuple[Score, ...]
    gate: Gate | None
    importances: tuple[tuple[str, float], ...]  # mean absolute contributions, largest first
    release: Release | None
    service: Service | None
    drift: Drift | None
    timeline: tuple[Happened, ...]
    approvals: tuple[Approval, ...]
    limits: tuple[str, ...]
    proof: Proof
    format: int = FORMAT


@dataclass(frozen=True, slots=True)
class Report:
    """The facts and their summary. `summary_by`: template, or the name of the language model."""

    facts: Facts
    summary: tuple[str, ...]
    summary_by: str = "template"
    summary_note: str | None = None  # why another summary was not taken
    product: str = field(default="mlcp")


def rounded(value: float | None, digits: int = 4) -> float | None:
    """To `digits` significant digits."""
    return None if value is None else float(f"{value:.{digits}g}")
