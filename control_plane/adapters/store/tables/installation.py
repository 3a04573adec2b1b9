"""The installation itself: who may act, what was done, what is to be done, who leads."""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import BigInteger, CheckConstraint, Index, false, text
from sqlalchemy.orm import Mapped, mapped_column

from control_plane.adapters.store.tables.base import Base, one_of


class InstallationRow(Base):
    """One row: what identifies this database. A restore raises `epoch`, so routers never go back silently."""

    __tablename__ = "installation"

    only: Mapped[bool] = mapped_column(CheckConstraint("only", name="one_row"), primary_key=True, default=True)
    id: Mapped[UUID]
    epoch: Mapped[int] = mapped_column(BigInteger, default=1)
    created_at: Mapped[datetime]


class LeaseRow(Base):
    """Leadership on the database clock. Every takeover increments the epoch."""

    __tablename__ = "leases"

    name: Mapped[str] = mapped_column(primary_key=True)
    holder: Mapped[str]
    epoch: Mapped[int] = mapped_column(BigInteger)
    expires_at: Mapped[datetime]


class SecretRow(Base):
    """Keys this installation made for itself; they are shown nowhere."""

    __tablename__ = "secrets"

    name: Mapped[str] = mapped_column(primary_key=True)
    value: Mapped[bytes]


class PrincipalRow(Base):
    """Who may act: a *person* and a role on the models a pattern matches. One person may have several principals."""

    __tablename__ = "principals"
    __table_args__ = (one_of("role", "viewer", "operator", "approver", "admin", "auditor", "predictor"),)

    id: Mapped[UUID] = mapped_column(primary_key=True)
    person: Mapped[str]
    role: Mapped[str]  # viewer | operator | approver | admin | auditor | predictor
    models: Mapped[list[str]]  # fnmatch patterns
    automated: Mapped[bool] = mapped_column(default=False, server_default=false())  # a program, no person
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


class CheckpointRow(Base):
    """A signed checkpoint of the audit chain; the signed bytes are the record. Exported as soon as it is here."""

    __tablename__ = "audit_checkpoints"

    seq: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)  # the last link it covers
    body: Mapped[bytes]
    signature: Mapped[bytes]
    at: Mapped[datetime]


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
    not_before: Mapped[datetime | None]  # a wanted job waits for it: of a notification that is tried again
    log_path: Mapped[str | None]
