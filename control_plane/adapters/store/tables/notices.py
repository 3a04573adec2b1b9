"""What people are told. Whether and when a receiver got it is in the job of the delivery."""

from datetime import datetime
from uuid import UUID

from sqlalchemy import ForeignKey, Index
from sqlalchemy.orm import Mapped, mapped_column

from control_plane.adapters.store.tables.base import Base, one_of


class NoticeRow(Base):
    """`key` names what happened: the same, told again, is one notice."""

    __tablename__ = "notices"
    __table_args__ = (one_of("severity", "info", "warning", "critical"),)

    id: Mapped[UUID] = mapped_column(primary_key=True)
    key: Mapped[str] = mapped_column(unique=True)
    event: Mapped[str]
    severity: Mapped[str]
    model: Mapped[str | None]
    title: Mapped[str]
    lines: Mapped[list[str]]
    path: Mapped[str | None]
    at: Mapped[datetime]


class DeliveryRow(Base):
    """One notice to one receiver, by the id of its job: one of each, however often it is routed."""

    __tablename__ = "notice_deliveries"
    __table_args__ = (Index("one_delivery_per_receiver", "notice_id", "receiver", unique=True),)

    id: Mapped[UUID] = mapped_column(primary_key=True)
    notice_id: Mapped[UUID] = mapped_column(ForeignKey("notices.id"))
    receiver: Mapped[str]
