"""Drift: references, counted traffic, looks and incidents."""

from datetime import date, datetime
from typing import Any
from uuid import UUID

from sqlalchemy import BigInteger, Identity, Index, text
from sqlalchemy.orm import Mapped, mapped_column

from control_plane.adapters.store.tables.base import Base, one_of


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
    """Which customers had their first answer of the day, by hashes of that day's own; kept two days.

    A row is what one batch claimed. Rows of one (model, version, day) get ascending ids in the order they commit.
    """

    __tablename__ = "drift_blocks"

    model: Mapped[str] = mapped_column(primary_key=True)
    version: Mapped[str] = mapped_column(primary_key=True)
    day: Mapped[date] = mapped_column(primary_key=True)
    id: Mapped[int] = mapped_column(BigInteger, Identity(), primary_key=True)
    units: Mapped[bytes]  # 8 bytes each, the highest first


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
