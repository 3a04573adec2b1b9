"""Rollouts, model servers, and what routers are told."""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import BigInteger, CheckConstraint, ForeignKeyConstraint, Index, LargeBinary, text
from sqlalchemy.orm import Mapped, mapped_column

from control_plane.adapters.store.tables.base import Base, one_of


class RolloutRow(Base):
    __tablename__ = "rollouts"
    __table_args__ = (
        Index(
            "one_open_rollout",
            "model",
            unique=True,
            postgresql_where=text("phase NOT IN ('succeeded', 'aborted')"),
        ),
        Index("rollouts_model_created", "model", "created_at"),
        ForeignKeyConstraint(["model", "candidate_version"], ["model_versions.model", "model_versions.version"]),
        one_of("kind", "promotion", "rollback"),
        one_of("phase", "pending", "progressing", "paused", "baking", "succeeded", "aborted"),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True)
    model: Mapped[str]
    kind: Mapped[str]  # promotion | rollback
    candidate_version: Mapped[str]
    stable_version: Mapped[str | None]
    plan: Mapped[dict[str, Any]]
    phase: Mapped[str]
    step: Mapped[int] = mapped_column(default=0)
    since: Mapped[datetime]
    failures: Mapped[int] = mapped_column(CheckConstraint("failures >= 0", name="failures_not_negative"), default=0)
    paused_from: Mapped[str | None]
    reason: Mapped[str]
    created_at: Mapped[datetime]
    created_by: Mapped[str]
    closed_at: Mapped[datetime | None]
    revision: Mapped[int] = mapped_column(default=1)
    published_revision: Mapped[int | None] = mapped_column(BigInteger)  # first snapshot that carries this state
    told_at: Mapped[datetime | None]  # when routers were handed one that carries this phase and step
    conclusion: Mapped[str | None]  # what its comparison ended with
    crossed_at: Mapped[datetime | None]  # when the candidate first got more than half


class ExposureRow(Base):
    """First exposure of a unit in a rollout: what intention-to-treat analysis and SRM read."""

    __tablename__ = "exposures"
    __table_args__ = (Index("exposures_to_close", "rollout_id", "folded", "first_at"),)

    rollout_id: Mapped[UUID] = mapped_column(primary_key=True)
    unit_hash: Mapped[bytes] = mapped_column(LargeBinary, primary_key=True)  # keyed hash: no personal data here
    variant: Mapped[str]
    step: Mapped[int]
    first_at: Mapped[datetime]
    requests: Mapped[int]
    fallbacks: Mapped[int]
    folded: Mapped[int] = mapped_column(default=0, server_default="0")  # groups of metrics it has been counted in


class DeploymentRow(Base):
    """Model servers of one version. `desired` by services and rollouts, the rest observed by the reconciler."""

    __tablename__ = "deployments"
    __table_args__ = (
        Index("one_live_deployment", "model", "version", unique=True, postgresql_where=text("state <> 'stopped'")),
        one_of("desired", "running", "stopped"),
        one_of("state", "pending", "starting", "ready", "failed", "draining", "stopped"),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True)
    model: Mapped[str]
    version: Mapped[str]
    digest: Mapped[str]
    desired: Mapped[str]  # running | stopped
    state: Mapped[str]  # pending | starting | ready | failed | draining | stopped
    address: Mapped[str | None]
    aux_address: Mapped[str | None]
    description: Mapped[dict[str, Any] | None]  # the server's own /schema: features, example, JSON schema
    error: Mapped[str | None]
    created_at: Mapped[datetime]
    changed_at: Mapped[datetime]
    warm_until: Mapped[datetime | None]  # kept running until then though nothing routes to it
    retired_revision: Mapped[int | None] = mapped_column(BigInteger)  # first snapshot without it


class SnapshotRow(Base):
    """Every snapshot published, newest last; old ones are pruned, the newest never."""

    __tablename__ = "snapshots"

    revision: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    epoch: Mapped[int] = mapped_column(BigInteger)
    document: Mapped[bytes]
    content_hash: Mapped[bytes]  # of what it says, without revision and time: unchanged content is not republished
    published_at: Mapped[datetime]


class RouterRow(Base):
    """What each live router worker reports: the snapshot it has applied and its pins."""

    __tablename__ = "routers"

    router_id: Mapped[str] = mapped_column(primary_key=True)
    epoch: Mapped[int] = mapped_column(BigInteger)
    revision: Mapped[int] = mapped_column(BigInteger)
    pins: Mapped[dict[str, Any]]
    rejected: Mapped[str | None]  # why it refused the newest snapshot
    seen_at: Mapped[datetime]
