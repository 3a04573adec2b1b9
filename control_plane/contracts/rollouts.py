"""Wire models of promotion, rollback and /rollouts. Percent and seconds outside, buckets and timedelta inside."""

from datetime import datetime
from typing import Annotated, Literal
from uuid import UUID

from pydantic import Field

from control_plane.contracts.base import Percent, Reason, Request, Version, View
from control_plane.domain.rollouts import Phase, Strategy
from control_plane.domain.stages import Stage

_MONTH_S = 30 * 86_400


class StepSpec(Request):
    weight: Percent
    hold_s: Annotated[float, Field(ge=0, le=_MONTH_S)]


class PromoteSpec(Request):
    """What is left out comes from the version's model.yaml; no version: the newest that may be promoted."""

    version: Version | None = None
    strategy: Strategy | None = None
    steps: Annotated[list[StepSpec], Field(min_length=1, max_length=50)] | None = None
    bake_s: Annotated[float, Field(ge=0, le=_MONTH_S)] | None = None
    reason: Reason | None = None  # audited as "no reason given" when left out


class ReasonSpec(Request):
    """The body of rollback, pause, resume, abort, promote, revoke and cancel."""

    reason: Reason


class StepView(View):
    weight: float  # percent
    hold_s: float


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


class StageChangeView(View):
    """The answer to a promotion that moves no traffic: to Staging, to Archived, back to Development."""

    model: str
    version: str
    from_stage: Stage
    to_stage: Stage
    at: datetime
    reason: str
