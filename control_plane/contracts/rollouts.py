"""Wire models of promotion, rollback and /rollouts. Percent and seconds outside, buckets and timedelta inside."""

from datetime import datetime
from typing import Annotated, Literal, Self
from uuid import UUID

from pydantic import Field, StringConstraints, model_validator

from control_plane.contracts.base import Percent, Reason, Request, Version, View
from control_plane.domain.analysis.plan import AnalysisPlan, Role
from control_plane.domain.replay.gate import ReplayGate
from control_plane.domain.rollouts import Conclusion, Phase, Strategy, Verdict
from control_plane.domain.stages import Stage

_MONTH_S = 30 * 86_400


class StepSpec(Request):
    weight: Percent
    hold_s: Annotated[float, Field(ge=0, le=_MONTH_S)]


_Unit = Annotated[str, StringConstraints(min_length=1, max_length=128)]
_Digest = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{32}$")]
_Units = Annotated[list[_Unit], Field(max_length=10_000)]
_Digests = Annotated[list[_Digest], Field(max_length=10_000)]


class LayerSpec(Request):
    """The slice of a layer, in percent of all units: tests of one layer whose slices do not meet share no unit."""

    name: Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_-]{0,39}$")]
    first: Percent = 0.0
    last: Percent = 100.0

    @model_validator(mode="after")
    def _is_a_slice(self) -> Self:
        if not self.first < self.last:
            raise ValueError("first must be below last")
        return self


class TargetingSpec(Request):
    """Units named are hashed before anything else happens; the digests are what is kept, shown and approved."""

    allow: _Units = []  # get the candidate from the beginning, before anyone
    exclude: _Units = []  # never get it
    layer: LayerSpec | None = None
    allow_digests: _Digests = []
    exclude_digests: _Digests = []


class PromoteSpec(Request):
    """What is left out comes from the version's model.yaml; no version: the newest that may be promoted."""

    version: Version | None = None
    strategy: Strategy | None = None
    steps: Annotated[list[StepSpec], Field(min_length=1, max_length=50)] | None = None
    bake_s: Annotated[float, Field(ge=0, le=_MONTH_S)] | None = None
    analysis: AnalysisPlan | None = None  # what decides the steps of a canary or ab_test
    replay: ReplayGate | None = None  # what a replay has to show before it starts, instead of model.yaml's gate
    by_hand: bool = False  # each step waits for POST skip or promote; blue_green: the candidate is previewed until then
    targeting: TargetingSpec | None = None  # who gets the candidate first, never, or in another test
    failure_limit: Annotated[int, Field(ge=0, le=1_000)] | None = None  # failed looks that are tolerated
    reason: Reason | None = None  # audited as "no reason given" when left out


class ReasonSpec(Request):
    """The body of rollback, pause, resume, abort, promote, skip, revoke and cancel."""

    reason: Reason


class StepView(View):
    weight: float  # percent
    hold_s: float


class TargetingView(View):
    """How many units are listed, and the slice of a layer in percent."""

    allowed: int
    excluded: int
    layer: str | None
    first: float | None
    last: float | None


class NeedView(View):
    metric: str
    units_per_arm: int | None  # closed customers; null: nothing is known of how the metric varies


class ForecastView(View):
    """An estimate from the traffic of the last day. `seconds` null: it cannot be told."""

    seconds: float | None
    units_per_day: float
    needs: list[NeedView]
    why: str


class Change(View):
    """One line of a plan beside the open rollout's. null: it is not there."""

    field: str
    before: str | None
    after: str | None


class PlanView(View):
    """What a promotion would do. `reasons`: everything in its way; empty: it would begin."""

    model: str
    candidate_version: str
    stable_version: str | None
    strategy: Strategy
    steps: list[StepView]
    bake_s: float
    failure_limit: int
    analysis: AnalysisPlan | None
    reasons: list[str]
    forecast: ForecastView | None
    targeting: TargetingView | None = None
    open: bool  # a rollout of the model is open; `changes` compares with it
    changes: list[Change]


class SampleView(View):
    units: int
    mean: float | None


class MeasurementView(View):
    """One metric at one look: candidate - baseline with its always-valid interval, in the metric's unit."""

    metric: str
    role: Role
    verdict: Verdict
    comparison: str
    why: str
    effect: float | None = None
    low: float | None = None
    high: float | None = None
    method: str | None = None
    candidate: SampleView
    baseline: SampleView
    failed: bool = False


class RatioView(View):
    p: float
    mismatch: bool
    why: str


class LiveView(View):
    requests: int
    bad: int


class AnalysisView(View):
    """One look. `decided`: what followed: step, cut_over, aborted, paused, failure or succeeded; null: nothing."""

    at: datetime
    step: int
    verdict: Verdict
    conclusion: Conclusion | None
    why: str
    decided: str | None
    measurements: list[MeasurementView]
    srm: RatioView | None
    live: LiveView | None  # the candidate's newest requests, at most a minute old
    exposed: int | None = None  # customers first assigned to the candidate whose observation is over


class ReachView(View):
    """How many customers the candidate reached by this rollout's slices, and for how long: what a mistake cost."""

    customers: int  # first assigned to the candidate while it was compared
    first_at: datetime  # the first of them
    seconds: float | None  # from then until routers were told of the end; null: it has not ended


class RolloutView(View):
    id: UUID
    model: str
    kind: Literal["promotion", "rollback"]
    candidate_version: str
    stable_version: str | None
    strategy: Strategy
    steps: list[StepView]
    bake_s: float
    phase: Phase
    step: int
    weight: float  # percent the candidate should receive now
    cut_over: bool  # the candidate is, by this rollout, the Production version
    applied: bool  # every live router answers as this state says
    waiting_for: str | None  # what is still to happen before `applied`, in a sentence
    failures: int
    reason: str  # why it is where it is
    since: datetime
    created_at: datetime
    created_by: str
    closed_at: datetime | None
    revision: int
    told_at: datetime | None = None  # when routers were told of its phase and step: hold and bake count from then
    conclusion: Conclusion | None = None  # what the comparison ended with
    plan: AnalysisPlan | None = None  # what decides its steps; null: a hand
    reach: ReachView | None = None  # GET /rollouts/{id} only; null: nobody was assigned to the candidate by a slice
    targeting: TargetingView | None = None  # who is not divided by buckets
    analyses: list[AnalysisView] = []  # GET /rollouts/{id} only, oldest first: decisions, changes, and now and then


class ExperimentView(View):
    """A rollout that compares two versions on customers' traffic: the classic /experiments."""

    id: UUID
    model: str
    strategy: Strategy
    status: Literal["running", "paused", "completed", "aborted"]
    candidate_version: str
    baseline_version: str | None
    weight: float  # percent the candidate receives now
    started_at: datetime
    ended_at: datetime | None


class OneLookView(View):
    """A test for a size planned before the start: wrong when it is looked at again and again."""

    test: str
    p: float
    adjusted: float  # by Holm's method over the metrics of the test
    low: float | None  # of candidate - baseline
    high: float | None


class PosteriorView(View):
    better: float  # probability that the candidate is the better one
    loss: float  # expected loss of choosing the candidate, in the metric's unit
    low: float  # credible interval of candidate - baseline
    high: float


class BesideView(View):
    """One metric of a test: what decides, and beside it what decides nothing."""

    decides: MeasurementView
    higher_is_better: bool
    lift: float | None  # (candidate - baseline) / baseline
    one_look: OneLookView | None = None
    posterior: PosteriorView | None = None


class AbTestView(ExperimentView):
    """A test with everything its closed customers say now."""

    phase: Phase
    conclusion: Conclusion | None
    reason: str  # why it is where it is
    alpha: float | None  # of all metrics together, at all looks; null: no analysis was planned
    metrics: list[BesideView]
    srm: RatioView | None


class StageChangeView(View):
    """The answer to a promotion that moves no traffic: to Staging, to Archived, back to Development."""

    model: str
    version: str
    from_stage: Stage
    to_stage: Stage
    at: datetime
    reason: str
