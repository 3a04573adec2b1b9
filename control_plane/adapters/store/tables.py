"""SQLAlchemy tables. Columns and constraints only; decisions live in domain/.

Desired state is written by services, observed state by the reconciler; a column says which it is where it is not
obvious. `predictions` and `outcomes` hold personal data; no other table does, but for `erasures` until each is done.
"""

from datetime import date, datetime
from typing import Any
from uuid import UUID

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    DateTime,
    ForeignKeyConstraint,
    Identity,
    Index,
    LargeBinary,
    MetaData,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB, TEXT
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column


def one_of(column: str, *values: str) -> CheckConstraint:
    listed = ", ".join(f"'{value}'" for value in values)
    return CheckConstraint(f"{column} IN ({listed})", name=f"{column}_known")


class Base(DeclarativeBase):
    metadata = MetaData(
        naming_convention={"ck": "ck_%(table_name)s_%(constraint_name)s", "ix": "ix_%(table_name)s_%(column_0_N_name)s"}
    )
    type_annotation_map = {
        datetime: DateTime(timezone=True),
        dict[str, Any]: JSONB(none_as_null=True),
        list[Any]: JSONB(none_as_null=True),
        list[str]: ARRAY(TEXT),
        str: TEXT,
    }


class ModelRow(Base):
    """One registered model. `production_version` and `previous_version` are what *should* answer customers."""

    __tablename__ = "models"

    name: Mapped[str] = mapped_column(primary_key=True)
    created_at: Mapped[datetime]
    production_version: Mapped[str | None]
    previous_version: Mapped[str | None]  # Production before that; what a rollback restores
    salt: Mapped[str]  # of the assignment while no rollout is open
    traffic: Mapped[list[Any] | None]  # PUT traffic: a fixed split by hand, [{version, weight}]
    revision: Mapped[int] = mapped_column(default=1)  # ETag of PUT traffic


class ModelVersionRow(Base):
    """One version as it was found in MLflow. `config`: its model.yaml, or the inferred one."""

    __tablename__ = "model_versions"
    __table_args__ = (
        Index("one_production", "model", unique=True, postgresql_where=text("stage = 'Production'")),
        Index("model_versions_stage", "model", "stage"),
        one_of("stage", "Development", "Staging", "Production", "Archived"),
        one_of("runtime", "native", "pyfunc"),
    )

    model: Mapped[str] = mapped_column(primary_key=True)
    version: Mapped[str] = mapped_column(primary_key=True)  # MLflow's integer as a string
    stage: Mapped[str] = mapped_column(default="Development")
    stage_since: Mapped[datetime]
    run_id: Mapped[str | None]
    source: Mapped[str]  # MLflow's artifact URI
    digest: Mapped[str | None]  # "sha256:..." of the artifact tree when it was registered or first seen
    digest_from: Mapped[str | None]  # "registration" | "discovery"
    runtime: Mapped[str] = mapped_column(default="pyfunc")  # native | pyfunc
    config: Mapped[dict[str, Any]]
    inferred: Mapped[bool] = mapped_column(default=False)
    evidence: Mapped[dict[str, Any]] = mapped_column(default=dict)
    semver: Mapped[str | None]
    created_at: Mapped[datetime]  # in MLflow
    discovered_at: Mapped[datetime]
    deleted_at: Mapped[datetime | None]  # gone from MLflow; history stays
    reported: Mapped[str | None]  # hash of the gate report last written to MLflow as tags and description


class StageEventRow(Base):
    """Append-only: what `timeline?as_of=` reads."""

    __tablename__ = "stage_events"
    __table_args__ = (Index("stage_events_model_at", "model", "at"),)

    id: Mapped[int] = mapped_column(BigInteger, Identity(), primary_key=True)
    model: Mapped[str]
    version: Mapped[str]
    from_stage: Mapped[str]
    to_stage: Mapped[str]
    at: Mapped[datetime]
    actor: Mapped[str]
    reason: Mapped[str]
    rollout_id: Mapped[UUID | None]


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
    conclusion: Mapped[str | None]  # what its comparison ended with
    crossed_at: Mapped[datetime | None]  # when the candidate first got more than half


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


class AliasRow(Base):
    """The alias mirror: desired here, `last_applied` what we last wrote to MLflow, `observed` what we last read.

    `writing` is saved before a write to MLflow and cleared after it ("" writes "no alias"): a crash between the two
    must not make our own write look like a hand's.
    """

    __tablename__ = "aliases"

    model: Mapped[str] = mapped_column(primary_key=True)
    alias: Mapped[str] = mapped_column(primary_key=True)
    last_applied: Mapped[str | None]
    observed: Mapped[str | None]
    writing: Mapped[str | None]
    changed_at: Mapped[datetime]


class LeaseRow(Base):
    """Leadership on the database clock. Every takeover increments the epoch."""

    __tablename__ = "leases"

    name: Mapped[str] = mapped_column(primary_key=True)
    holder: Mapped[str]
    epoch: Mapped[int] = mapped_column(BigInteger)
    expires_at: Mapped[datetime]


class InstallationRow(Base):
    """One row: what identifies this database. A restore raises `epoch`, so routers never go back silently."""

    __tablename__ = "installation"

    only: Mapped[bool] = mapped_column(CheckConstraint("only", name="one_row"), primary_key=True, default=True)
    id: Mapped[UUID]
    epoch: Mapped[int] = mapped_column(BigInteger, default=1)
    created_at: Mapped[datetime]


class PrincipalRow(Base):
    """Who may act: a *person* and a role on the models a pattern matches. One person may have several principals."""

    __tablename__ = "principals"
    __table_args__ = (one_of("role", "viewer", "operator", "approver", "admin", "auditor", "predictor"),)

    id: Mapped[UUID] = mapped_column(primary_key=True)
    person: Mapped[str]
    role: Mapped[str]  # viewer | operator | approver | admin | auditor | predictor
    models: Mapped[list[str]]  # fnmatch patterns
    created_at: Mapped[datetime]
    disabled_at: Mapped[datetime | None]


class KeyRow(Base):
    """An API key: 256 random bits, of which only the SHA-256 is kept."""

    __tablename__ = "api_keys"

    id: Mapped[UUID] = mapped_column(primary_key=True)
    principal_id: Mapped[UUID] = mapped_column(index=True)
    prefix: Mapped[str]  # its first characters, to recognise it by
    hash: Mapped[bytes] = mapped_column(unique=True)
    scopes: Mapped[list[str]]  # e.g. predict, predict:pin; empty: what the role allows
    created_at: Mapped[datetime]
    expires_at: Mapped[datetime | None]
    revoked_at: Mapped[datetime | None]
    last_used_at: Mapped[datetime | None]
    rate_limit_rps: Mapped[float | None]  # predictions a second; None: unlimited


class IdempotencyRow(Base):
    """The answer once given under an Idempotency-Key, given again for a day."""

    __tablename__ = "idempotency_keys"

    principal_id: Mapped[UUID] = mapped_column(primary_key=True)
    key: Mapped[str] = mapped_column(primary_key=True)
    request_hash: Mapped[bytes]
    status: Mapped[int]
    body: Mapped[bytes]
    at: Mapped[datetime] = mapped_column(index=True)


class AuditRow(Base):
    """One link of the chain. The bytes are the record: a column may copy from them, never replace them."""

    __tablename__ = "audit"

    seq: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    payload: Mapped[bytes]
    hash: Mapped[bytes]
    at: Mapped[datetime] = mapped_column(index=True)  # copies, to search by
    action: Mapped[str] = mapped_column(index=True)
    object: Mapped[str] = mapped_column(index=True)
    actor: Mapped[str]


class JobRow(Base):
    """A job wanted, written in the transaction that wants it; the worker's queue carries it out once."""

    __tablename__ = "jobs_wanted"
    __table_args__ = (
        Index(
            "one_training_per_model",
            "model",
            unique=True,
            postgresql_where=text("kind = 'train' AND state IN ('wanted', 'queued', 'running')"),
        ),
        Index(
            "one_archiving",
            "kind",
            unique=True,
            postgresql_where=text("kind = 'archive' AND state IN ('wanted', 'queued', 'running')"),
        ),
        one_of("kind", "train", "replay", "report", "notify", "archive", "erase"),
        one_of("state", "wanted", "queued", "running", "succeeded", "failed", "cancelled"),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True)
    kind: Mapped[str]  # train | replay | report | notify | archive | erase
    model: Mapped[str | None]
    args: Mapped[dict[str, Any]]
    state: Mapped[str]  # wanted | queued | running | succeeded | failed | cancelled
    progress: Mapped[dict[str, Any]] = mapped_column(default=dict)
    result: Mapped[dict[str, Any] | None]
    error: Mapped[str | None]
    created_at: Mapped[datetime]
    created_by: Mapped[str]
    started_at: Mapped[datetime | None]
    ended_at: Mapped[datetime | None]
    cancel_requested_at: Mapped[datetime | None]
    log_path: Mapped[str | None]


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


class DriftReferenceRow(Base):
    """What a version's traffic is compared with; never changes, since every window is counted on its cells."""

    __tablename__ = "drift_references"
    __table_args__ = (one_of("source", "training", "first_traffic"),)

    model: Mapped[str] = mapped_column(primary_key=True)
    version: Mapped[str] = mapped_column(primary_key=True)
    source: Mapped[str]  # training | first_traffic
    document: Mapped[bytes]  # a profile.json, deflated
    created_at: Mapped[datetime]
    filled_at: Mapped[datetime | None]  # when the ingest counted what the version had answered before


class DriftProfileRow(Base):
    """A window of traffic, counted on its version's reference. Several rows of one window add up to it.

    `rows` profiles count every answer, `blocks` the first of each customer and day. The ingest appends parts; the
    worker adds them up to hours, days and months.
    """

    __tablename__ = "drift_profiles"
    __table_args__ = (
        Index("drift_profiles_window", "model", "version", "kind", "starts"),
        Index("drift_profiles_parts", "id", postgresql_where=text("grain = 'part'")),
        one_of("kind", "rows", "blocks"),
        one_of("grain", "part", "hour", "day", "month"),
    )

    id: Mapped[int] = mapped_column(BigInteger, Identity(), primary_key=True)
    model: Mapped[str]
    version: Mapped[str]
    variant: Mapped[str]  # "" where unassigned
    kind: Mapped[str]  # rows | blocks
    grain: Mapped[str]  # part | hour | day | month
    starts: Mapped[datetime]  # the hour of a part
    rows: Mapped[int] = mapped_column(BigInteger)
    data: Mapped[bytes]  # see domain.drift.compact


class DriftBlockRow(Base):
    """Which customers had their first answer of the day, by a hash of that day's own; kept two days."""

    __tablename__ = "drift_blocks"

    model: Mapped[str] = mapped_column(primary_key=True)
    version: Mapped[str] = mapped_column(primary_key=True)
    day: Mapped[date] = mapped_column(primary_key=True)
    unit: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)


class DriftDayRow(Base):
    """What a day's blocks measured up to the end of one of its hours: what evidence is computed from."""

    __tablename__ = "drift_days"

    model: Mapped[str] = mapped_column(primary_key=True)
    version: Mapped[str] = mapped_column(primary_key=True)
    day: Mapped[date] = mapped_column(primary_key=True)
    hour: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    measured: Mapped[dict[str, Any]]


class DriftLookRow(Base):
    """The last look of every hour at a model: its history."""

    __tablename__ = "drift_looks"

    model: Mapped[str] = mapped_column(primary_key=True)
    hour: Mapped[datetime] = mapped_column(primary_key=True)
    version: Mapped[str]
    at: Mapped[datetime]
    look: Mapped[dict[str, Any]]


class DriftIncidentRow(Base):
    """One episode of drift, from its alarm to the day it is over. `history`: every change, oldest first."""

    __tablename__ = "drift_incidents"
    __table_args__ = (
        Index("one_open_incident", "model", unique=True, postgresql_where=text("closed_at IS NULL")),
        Index("drift_incidents_model_opened", "model", "opened_at"),
        one_of("severity", "low", "medium", "high"),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True)
    model: Mapped[str]
    version: Mapped[str]
    opened_at: Mapped[datetime]
    closed_at: Mapped[datetime | None]
    severity: Mapped[str]  # low | medium | high
    kinds: Mapped[list[str]]  # data, prediction, target, performance, quality
    features: Mapped[list[str]]
    history: Mapped[list[Any]]


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


class SecretRow(Base):
    """Keys this installation made for itself; they are shown nowhere."""

    __tablename__ = "secrets"

    name: Mapped[str] = mapped_column(primary_key=True)
    value: Mapped[bytes]


class QualityRow(Base):
    """What an hour of labelled answers comes down to: sums of domain.quality, which add."""

    __tablename__ = "quality"

    model: Mapped[str] = mapped_column(primary_key=True)
    hour: Mapped[datetime] = mapped_column(primary_key=True)
    version: Mapped[str] = mapped_column(primary_key=True)
    variant: Mapped[str] = mapped_column(primary_key=True)
    tally: Mapped[dict[str, Any]]
    folded_at: Mapped[datetime]
