"""Replays: what was asked for and what came of it."""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import ForeignKeyConstraint, Index
from sqlalchemy.orm import Mapped, mapped_column

from control_plane.adapters.store.tables.base import Base


class ReplayRow(Base):
    """One replay; its id is its job's. It is about artifacts: the digests say which, whatever the versions become."""

    __tablename__ = "replays"
    __table_args__ = (
        Index("replays_model", "model", "id"),
        ForeignKeyConstraint(["id"], ["jobs_wanted.id"]),
        ForeignKeyConstraint(["model", "candidate_version"], ["model_versions.model", "model_versions.version"]),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True)
    model: Mapped[str]
    candidate_version: Mapped[str]
    candidate_digest: Mapped[str]
    baseline_version: Mapped[str]
    baseline_digest: Mapped[str]
    since: Mapped[datetime]
    until: Mapped[datetime]
    sample: Mapped[float]
    segment: Mapped[str | None]
    done_at: Mapped[datetime | None]
    report: Mapped[dict[str, Any] | None]  # domain.replay.report.Report as JSON; aggregates and masked examples
