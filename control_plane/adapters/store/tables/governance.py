"""What waits for a second person, and who said what about it."""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import CheckConstraint, ForeignKey, Index, text
from sqlalchemy.orm import Mapped, mapped_column

from control_plane.adapters.store.tables.base import Base, one_of


class ApprovalRow(Base):
    """`content`: the exact bytes that were shown (RFC 8785), to which a yes is bound by their SHA-256."""

    __tablename__ = "approvals"
    __table_args__ = (
        Index("one_pending_approval", "content_sha256", unique=True, postgresql_where=text("state = 'pending'")),
        Index("approvals_state", "state", "id"),
        one_of("state", "pending", "approved", "rejected", "withdrawn", "expired", "stale"),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True)
    operation: Mapped[str]
    model: Mapped[str | None]
    request: Mapped[dict[str, Any]]  # what is carried out, as its route takes it
    content: Mapped[bytes]
    content_sha256: Mapped[bytes]
    author: Mapped[str]  # a person, or the name of a program
    automated: Mapped[bool]  # the author is a program
    author_role: Mapped[str | None]
    author_key: Mapped[str | None]
    trigger: Mapped[str]
    reason: Mapped[str]
    quorum: Mapped[int] = mapped_column(CheckConstraint("quorum > 0", name="quorum_positive"))
    state: Mapped[str]
    why: Mapped[str] = mapped_column(default="")  # it ended
    created_at: Mapped[datetime]
    expires_at: Mapped[datetime]
    closed_at: Mapped[datetime | None]
    result: Mapped[dict[str, Any] | None]  # of what was carried out: {"rollout": id}, {"job": id}, ...
    revision: Mapped[int] = mapped_column(default=1)


class ApprovalVoteRow(Base):
    __tablename__ = "approval_votes"

    approval_id: Mapped[UUID] = mapped_column(ForeignKey("approvals.id"), primary_key=True)
    person: Mapped[str] = mapped_column(primary_key=True)
    agrees: Mapped[bool]
    role: Mapped[str | None]
    key: Mapped[str | None]
    reason: Mapped[str]
    at: Mapped[datetime]


class PageSessionRow(Base):
    """Somebody signed in to the pages with a key. Of the cookie's token only its SHA-256 is here."""

    __tablename__ = "page_sessions"

    token_sha256: Mapped[bytes] = mapped_column(primary_key=True)
    key_id: Mapped[UUID]
    expires_at: Mapped[datetime] = mapped_column(index=True)
