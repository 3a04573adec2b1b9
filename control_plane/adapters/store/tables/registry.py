"""Models and versions as they are registered, their stages, and the mirror of their aliases."""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import BigInteger, Identity, Index, text
from sqlalchemy.orm import Mapped, mapped_column

from control_plane.adapters.store.tables.base import Base, one_of


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
    asked_at: Mapped[datetime | None]  # when a request last named it by number or alias, give or take a minute
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
