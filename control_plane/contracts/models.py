"""Wire models of /models: registered models, their versions, traffic, timeline and performance."""

from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import AwareDatetime, Field, model_validator

from control_plane.contracts.base import Percent, Reason, Request, Version, View
from control_plane.domain.retraining import Source
from control_plane.domain.stages import Stage


class DeploymentView(View):
    """The model servers of one version, as last observed."""

    id: UUID
    state: Literal["pending", "starting", "ready", "failed", "draining", "stopped"]
    desired: Literal["running", "stopped"]
    error: str | None
    changed_at: datetime
    warm_until: datetime | None


class GateReport(View):
    """What a promotion would answer now. `reasons` is empty exactly when `allowed`."""

    stage: Stage
    allowed: bool
    reasons: list[str]


class VersionView(View):
    model: str
    version: str
    stage: Stage
    stage_since: datetime
    semver: str | None
    runtime: Literal["native", "pyfunc"]
    inferred: bool  # no model.yaml came with it: ours was read off its signature
    digest: str | None  # "sha256:..."
    digest_from: str | None  # registration | discovery
    run_id: str | None
    source: str
    created_at: datetime
    discovered_at: datetime
    deleted_at: datetime | None
    metric: str | None  # the declared metric's name and this version's value on its hold-out
    metric_value: float | None
    deployment: DeploymentView | None


class VersionDetail(VersionView):
    config: dict[str, Any]  # its model.yaml
    evidence: dict[str, Any]
    gates: list[GateReport]


class ModelView(View):
    name: str
    problem: str | None
    owner: str | None
    purpose: str | None
    created_at: datetime
    production_version: str | None
    previous_version: str | None  # what a rollback restores
    staging_version: str | None
    newest_version: str | None
    versions: int
    open_rollout: UUID | None


class ArmView(View):
    variant: str  # stable | candidate | baseline | fixed
    version: str
    percent: Percent


class TrafficView(View):
    """What customers should be answered by. `revision` is the ETag a PUT has to show in If-Match."""

    model: str
    revision: int
    fixed: bool  # a split set by hand, which a promotion or a rollback ends
    rollout_id: UUID | None
    arms: list[ArmView]


class ArmSpec(Request):
    version: Version
    percent: Percent


class TrafficSpec(Request):
    """A split by hand. An empty list of arms gives all traffic back to Production."""

    arms: Annotated[list[ArmSpec], Field(max_length=2)]
    reason: Reason


class TimelineEntry(View):
    at: datetime
    version: str
    from_stage: Stage
    to_stage: Stage
    actor: str
    reason: str
    rollout_id: UUID | None


class TimelineView(View):
    """Who was what at `as_of`; `events` are the stage changes up to then, newest first."""

    model: str
    as_of: datetime
    production_version: str | None
    staging_version: str | None
    events: list[TimelineEntry]


class MetricView(View):
    """A metric of `n` labelled predictions with its 95 % interval; null where the sample does not give one."""

    value: float
    low: float | None
    high: float | None
    n: int


class VersionPerformance(View):
    """One version's answers within the period. Shares and scores are within 0..1; None: nothing to compute it from.

    Of `versions` it is all that customers got from the version; of `variants` one variant of it, shadow copies and
    pinned answers included.
    """

    version: str
    variant: str | None = None  # stable, candidate, baseline, fixed, shadow, pinned; "": no unit. None: all customers'
    predictions: int  # requests it answered
    failures: int  # assigned to it and not answered by it
    latency_ms_mean: float | None
    latency_ms_p95: float | None  # to 9 %
    labelled: int  # of `predictions`, those whose truth is known and had its time
    accuracy: float | None  # share of labelled predictions whose decision or label was right
    precision: float | None  # binary only
    recall: float | None
    mean_absolute_error: float | None  # regression only
    metrics: dict[str, MetricView] = {}  # all there are, under the names of model.yaml; `cost` is per prediction


class AvailabilityView(View):
    """Over whole hours. `answered`: with a prediction, or a refusal of the body. `objective`: of model.yaml."""

    asked: int
    answered: int
    share: float | None  # None: nothing was asked
    objective: float | None
    met: bool | None


class BusinessFigure(View):
    """A metric of `business` in model.yaml, of one version, over whole hours. `total` in `unit`."""

    name: str
    kind: str
    unit: str
    version: str
    predictions: int  # that contributed
    total: float


class PerformanceView(View):
    """Of whole hours: from `since`, the start of the hour the period begins in."""

    model: str
    period: str
    since: datetime
    until: datetime
    predictions: int
    labelled: int
    accuracy: float | None
    versions: list[VersionPerformance]
    availability: AvailabilityView | None = None
    business: list[BusinessFigure] = []
    variants: list[VersionPerformance] = []
    label_delay_s: int = 0  # younger predictions are not judged yet
    note: str | None  # why something could not be computed


class ImportancesView(View):
    """What moves a version's answers on the whole: the mean absolute contribution of each feature, largest first.

    `space` "margin": log-odds before calibration (binary), the score of the predicted class before softmax
    (multiclass), or the value itself (regression). One answer's own contributions are the data plane's /explain.
    """

    model: str
    version: str
    statistic: str
    space: str
    rows: int  # of the hold-out, averaged over
    features: dict[str, float]


class PredictionView(View):
    """One logged prediction. Personal data: features, output, unit_id."""

    prediction_id: UUID
    model: str
    status: str
    received_at: datetime
    latency_ms: float
    assigned_variant: str | None
    assigned_version: str | None
    served_variant: str | None
    served_version: str | None
    fallback_reason: str | None
    pinned: bool
    shadow: bool
    rollout_id: UUID | None
    step: int | None
    epoch: int
    revision: int
    unit_id: str | None
    request_id: str | None
    features: Any
    output: Any
    threshold: float | None
    decision: str | None
    outcomes: list["OutcomeView"]
    archived: bool = False  # it is no longer in Postgres: this is what the archive holds
    story: list[str] = []  # why it was answered as it was, in sentences


class OutcomeView(View):
    outcome_id: UUID
    name: str
    value: float | bool | str
    currency: str | None
    observed_at: datetime
    received_at: datetime


class RetrainSpec(Request):
    """Train a new version in the background, compare it with Production, and put a better one into Staging.

    `source`: the prediction log with its outcomes (archive), a file of raw rows (file, needs `data`), or the model's
    own simulation (simulated). None: file where `data` is given, else archive. `since`, `rows`: the oldest answer, and
    how many of the newest, that are taken from the log. `data`: a path on the worker's host.
    """

    reason: Reason
    seed: Annotated[int, Field(ge=0, le=2**31 - 1)] | None = None
    source: Source | None = None
    since: AwareDatetime | None = None
    rows: Annotated[int, Field(ge=100, le=5_000_000)] | None = None
    data: Annotated[str, Field(min_length=1, max_length=1_000)] | None = None

    @model_validator(mode="after")
    def _of_one_source(self) -> "RetrainSpec":
        if self.data is not None and not self.data.isprintable():
            raise ValueError("data: control characters are no part of a path")
        if self.data is not None and self.taken_from is not Source.FILE:
            raise ValueError(f"data: only a retraining from a file has one, not one from {self.taken_from}")
        if self.data is None and self.taken_from is Source.FILE:
            raise ValueError("data: a retraining from a file needs its path")
        if self.taken_from is not Source.ARCHIVE and (self.since is not None or self.rows is not None):
            raise ValueError(
                f"since, rows: only a retraining from the archive has them, not one from {self.taken_from}"
            )
        return self

    @property
    def taken_from(self) -> Source:
        return self.source or (Source.FILE if self.data is not None else Source.ARCHIVE)

    def arguments(self) -> dict[str, Any]:
        """Everything but the reason, as the job keeps it."""
        given = self.model_dump(mode="json", exclude={"reason", "source"}, exclude_none=True)
        return {"source": self.taken_from.value, **given}


PredictionView.model_rebuild()
