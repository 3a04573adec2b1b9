"""The prediction log: predictions and outcomes, and the hourly sums read from them."""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import BigInteger, CheckConstraint, Index, LargeBinary, text
from sqlalchemy.dialects.postgresql import ARRAY, JSONB
from sqlalchemy.orm import Mapped, mapped_column

from control_plane.adapters.store.tables.base import Base, one_of


class IngestWatermarkRow(Base):
    """How far each spool has been folded into Postgres; moves in the transaction of the rows it covers."""

    __tablename__ = "ingest_watermark"

    spool: Mapped[str] = mapped_column(primary_key=True)
    segment: Mapped[int] = mapped_column(BigInteger)
    offset: Mapped[int] = mapped_column(BigInteger)
    stream_epoch: Mapped[str]
    at: Mapped[datetime]


class PredictionRow(Base):
    """Prediction record v1, partitioned by day on the UUIDv7's own time. Personal data: features, unit_id, output."""

    __tablename__ = "predictions"
    __table_args__ = (
        Index("predictions_model_received", "model", "received_at"),
        Index("predictions_rollout_unit", "rollout_id", "unit_hash", postgresql_where=text("rollout_id IS NOT NULL")),
        Index("predictions_unit", "unit_id", postgresql_where=text("unit_id IS NOT NULL")),
        one_of("status", "ok", "invalid", "error", "timeout", "shed"),
        {"postgresql_partition_by": "RANGE (day)"},
    )

    day: Mapped[datetime] = mapped_column(primary_key=True)  # midnight UTC of the id's time
    prediction_id: Mapped[UUID] = mapped_column(primary_key=True)
    model: Mapped[str]
    status: Mapped[str]
    received_at: Mapped[datetime]
    latency_us: Mapped[int]
    epoch: Mapped[int] = mapped_column(BigInteger)
    revision: Mapped[int] = mapped_column(BigInteger)
    assigned_variant: Mapped[str | None]
    assigned_version: Mapped[str | None]
    served_variant: Mapped[str | None]
    served_version: Mapped[str | None]
    fallback_reason: Mapped[str | None]
    pinned: Mapped[bool]
    shadow: Mapped[bool]
    rollout_id: Mapped[UUID | None]
    step: Mapped[int | None]
    unit_id: Mapped[str | None]
    unit_hash: Mapped[bytes | None] = mapped_column(LargeBinary)  # as in exposures; NULL outside of rollouts
    request_id: Mapped[str | None]
    features: Mapped[dict[str, Any] | None]
    output: Mapped[dict[str, Any] | None]
    threshold: Mapped[float | None]
    decision: Mapped[str | None]


class OutcomeRow(Base):
    """Append-only; of one prediction or unit and name the latest observed_at wins."""

    __tablename__ = "outcomes"
    __table_args__ = (
        CheckConstraint("(prediction_id IS NULL) <> (unit_id IS NULL)", name="one_subject"),
        Index("outcomes_prediction", "prediction_id", "name"),
        Index("outcomes_unit", "model", "unit_id", "name"),
    )

    outcome_id: Mapped[UUID] = mapped_column(primary_key=True)
    model: Mapped[str]
    name: Mapped[str]
    value: Mapped[Any] = mapped_column(JSONB)
    currency: Mapped[str | None]
    observed_at: Mapped[datetime]
    received_at: Mapped[datetime]
    prediction_id: Mapped[UUID | None]
    unit_id: Mapped[str | None]


class WindowRow(Base):
    """Hourly counts per model, version and variant.

    `requests`, `failures`, `fallbacks` and `latency_us_sum` are of the version that answered, or of "". `missed` is of
    the version that was to answer and did not, by failure or fallback.
    """

    __tablename__ = "windows"

    model: Mapped[str] = mapped_column(primary_key=True)
    version: Mapped[str] = mapped_column(primary_key=True)  # "" where nobody answered
    variant: Mapped[str] = mapped_column(primary_key=True)  # "" where unassigned
    hour: Mapped[datetime] = mapped_column(primary_key=True)
    requests: Mapped[int] = mapped_column(BigInteger)
    failures: Mapped[int] = mapped_column(BigInteger)
    fallbacks: Mapped[int] = mapped_column(BigInteger)
    latency_us_sum: Mapped[int] = mapped_column(BigInteger)
    answered: Mapped[int] = mapped_column(BigInteger, server_default="0")
    missed: Mapped[int] = mapped_column(BigInteger, server_default="0")
    latency: Mapped[list[int]] = mapped_column(ARRAY(BigInteger), server_default="{}")  # answers by domain.latency


class BusinessRow(Base):
    """Hourly figures declared under `business` in model.yaml, of answered predictions."""

    __tablename__ = "business_windows"

    model: Mapped[str] = mapped_column(primary_key=True)
    version: Mapped[str] = mapped_column(primary_key=True)
    variant: Mapped[str] = mapped_column(primary_key=True)  # "" where unassigned
    name: Mapped[str] = mapped_column(primary_key=True)
    hour: Mapped[datetime] = mapped_column(primary_key=True)
    predictions: Mapped[int] = mapped_column(BigInteger)  # that contributed
    total: Mapped[float]  # in the metric's unit


class LogHourRow(Base):
    """One hour of a model's log. `changed` counts up with every prediction and outcome that belongs to it."""

    __tablename__ = "log_hours"
    __table_args__ = (Index("log_hours_quality_due", "quality_due_at"),)

    model: Mapped[str] = mapped_column(primary_key=True)
    hour: Mapped[datetime] = mapped_column(primary_key=True)
    changed: Mapped[int] = mapped_column(BigInteger)
    quality_due_at: Mapped[datetime | None]  # None: its quality is folded and nothing has changed since
    archived: Mapped[int] = mapped_column(BigInteger, server_default="0")  # `changed` as its file has it; 0: none
    archived_at: Mapped[datetime | None]
    archived_rows: Mapped[int] = mapped_column(BigInteger, server_default="0")
    dropped_at: Mapped[datetime | None]  # of its day partition: from then on the archive alone has it


class QualityRow(Base):
    """What an hour of labelled answers comes down to: sums of domain.quality, which add."""

    __tablename__ = "quality"

    model: Mapped[str] = mapped_column(primary_key=True)
    hour: Mapped[datetime] = mapped_column(primary_key=True)
    version: Mapped[str] = mapped_column(primary_key=True)
    variant: Mapped[str] = mapped_column(primary_key=True)
    tally: Mapped[dict[str, Any]]
    folded_at: Mapped[datetime]


class ErasureRow(Base):
    """A unit to be forgotten. The name goes when it is done; under the hash, what comes late is still erased."""

    __tablename__ = "erasures"
    __table_args__ = (Index("erasures_requested", "requested_at"),)

    job_id: Mapped[UUID] = mapped_column(primary_key=True)
    unit_id: Mapped[str | None]
    unit_hash: Mapped[bytes]
    requested_at: Mapped[datetime]
    done_at: Mapped[datetime | None]
    report: Mapped[dict[str, Any] | None]
