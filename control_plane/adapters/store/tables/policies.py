"""Policies in force over time, what was noticed, and what was decided and done about it."""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import BigInteger, ForeignKey, Identity, Index, text
from sqlalchemy.orm import Mapped, mapped_column

from control_plane.adapters.store.tables.base import Base, one_of


class PolicyRow(Base):
    """Every policy that was ever applied; the newest is in force."""

    __tablename__ = "policies"

    version: Mapped[int] = mapped_column(BigInteger, Identity(), primary_key=True)
    document: Mapped[dict[str, Any]]
    applied_at: Mapped[datetime]
    applied_by: Mapped[str]
    reason: Mapped[str]


class HaltRow(Base):
    """The kill switch, pulled. One that nobody has undone holds everything that would happen by itself."""

    __tablename__ = "policy_halts"
    __table_args__ = (Index("one_halt", text("(true)"), unique=True, postgresql_where=text("resumed_at IS NULL")),)

    id: Mapped[UUID] = mapped_column(primary_key=True)
    at: Mapped[datetime]
    by: Mapped[str]
    reason: Mapped[str]
    resumed_at: Mapped[datetime | None]
    resumed_by: Mapped[str | None]


class SignalRow(Base):
    """`key` names what happened: the same comes twice and is one signal. `decision`: with all its inputs."""

    __tablename__ = "signals"
    __table_args__ = (
        Index("signals_undecided", "id", postgresql_where=text("decided_at IS NULL")),
        Index("signals_model", "model", "id"),
        one_of("source", "alert", "drift", "performance", "slo", "rollout", "schedule", "human", "retraining"),
        one_of("status", "firing", "resolved"),
        one_of("severity", "info", "warning", "critical"),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True)
    key: Mapped[str] = mapped_column(unique=True)
    source: Mapped[str]
    name: Mapped[str]
    model: Mapped[str | None]
    severity: Mapped[str]
    status: Mapped[str]
    facts: Mapped[dict[str, Any]]
    at: Mapped[datetime]
    received_at: Mapped[datetime]
    decided_at: Mapped[datetime | None]
    decision: Mapped[dict[str, Any] | None]


class PolicyActRow(Base):
    """One operation a decision named. `wanted` is carried out once: its end is written in the transaction of its
    effect."""

    __tablename__ = "policy_acts"
    __table_args__ = (
        Index("policy_acts_wanted", "id", postgresql_where=text("state = 'wanted'")),
        Index("policy_acts_check", "check_at", postgresql_where=text("checked_at IS NULL AND check_at IS NOT NULL")),
        Index("policy_acts_created", "created_at"),
        one_of("state", "wanted", "done", "failed", "held", "left"),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True)
    signal_id: Mapped[UUID] = mapped_column(ForeignKey("signals.id"), index=True)
    operation: Mapped[str]
    model: Mapped[str | None]
    outcome: Mapped[str]  # do | ask | leave | hold
    state: Mapped[str]
    why: Mapped[str]
    created_at: Mapped[datetime]
    done_at: Mapped[datetime | None]
    result: Mapped[dict[str, Any] | None]
    before: Mapped[dict[str, Any] | None]  # figures of the model
    check_at: Mapped[datetime | None]
    checked_at: Mapped[datetime | None]
    after: Mapped[dict[str, Any] | None]
    effect: Mapped[str | None]  # better | same | worse | unknown


class WebhookDeliveryRow(Base):
    """Signed deliveries of the last minutes, so that none is taken twice."""

    __tablename__ = "webhook_deliveries"

    signature_sha256: Mapped[bytes] = mapped_column(primary_key=True)
    at: Mapped[datetime] = mapped_column(index=True)
