"""What rollouts are decided on. No personal data."""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import BigInteger, Identity, Index
from sqlalchemy.orm import Mapped, mapped_column

from control_plane.adapters.store.tables.base import Base, one_of


class ArmStatisticRow(Base):
    """Sufficient statistics of closed units: by metric, step of first exposure and assigned variant.

    `metric` "units" only counts; "fallbacks" is the share of a unit's requests that others had to answer. `x_mean`,
    `x_m2`, `c`: the second number of a pair and the products of deviations; `cells`: units by score and class.
    """

    __tablename__ = "arm_statistics"

    rollout_id: Mapped[UUID] = mapped_column(primary_key=True)
    metric: Mapped[str] = mapped_column(primary_key=True)
    step: Mapped[int] = mapped_column(primary_key=True)
    variant: Mapped[str] = mapped_column(primary_key=True)
    count: Mapped[int] = mapped_column(BigInteger)
    mean: Mapped[float]
    m2: Mapped[float]
    nonzero: Mapped[int] = mapped_column(BigInteger)
    x_mean: Mapped[float | None]
    x_m2: Mapped[float | None]
    c: Mapped[float | None]
    cells: Mapped[dict[str, Any] | None]


class RolloutLookRow(Base):
    """Where the analysis of an open rollout is. `since`: of the state the counts in a row belong to."""

    __tablename__ = "rollout_looks"

    rollout_id: Mapped[UUID] = mapped_column(primary_key=True)
    looked_at: Mapped[datetime]
    since: Mapped[datetime]
    asked_at: Mapped[datetime | None]  # the newest request seen
    inconclusive: Mapped[int]
    errors: Mapped[int]


class AnalysisRunRow(Base):
    """One look that was worth keeping, with its evidence. `decided`: what followed from it; NULL: nothing."""

    __tablename__ = "analysis_runs"
    __table_args__ = (
        Index("analysis_runs_rollout", "rollout_id", "id"),
        one_of("verdict", "pass", "fail", "inconclusive"),
    )

    id: Mapped[int] = mapped_column(BigInteger, Identity(), primary_key=True)
    rollout_id: Mapped[UUID]
    at: Mapped[datetime]
    step: Mapped[int]
    verdict: Mapped[str]
    conclusion: Mapped[str | None]
    why: Mapped[str]
    decided: Mapped[str | None]  # step | cut_over | aborted | paused | failure | succeeded
    evidence: Mapped[dict[str, Any]]
