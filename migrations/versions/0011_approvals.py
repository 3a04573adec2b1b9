"""Approvals, the votes on them, sessions of the pages, and principals that are programs."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision: str = "0011"
down_revision: str | None = "0010"
branch_labels: Sequence[str] | None = None
depends_on: Sequence[str] | None = None

_STATES = "'pending', 'approved', 'rejected', 'withdrawn', 'expired', 'stale'"


def _text(name: str, *, nullable: bool = False) -> sa.Column[str]:
    return sa.Column(name, sa.TEXT(), nullable=nullable)


def _time(name: str, *, nullable: bool = False) -> sa.Column[object]:
    return sa.Column(name, sa.DateTime(timezone=True), nullable=nullable)


def _document(name: str, *, nullable: bool = False) -> sa.Column[object]:
    return sa.Column(name, postgresql.JSONB(none_as_null=True, astext_type=sa.Text()), nullable=nullable)


def upgrade() -> None:
    op.add_column("principals", sa.Column("automated", sa.Boolean(), nullable=False, server_default=sa.false()))
    op.create_table(
        "approvals",
        sa.Column("id", sa.Uuid(), nullable=False),
        _text("operation"),
        _text("model", nullable=True),
        _document("request"),
        sa.Column("content", sa.LargeBinary(), nullable=False),
        sa.Column("content_sha256", sa.LargeBinary(), nullable=False),
        _text("author"),
        sa.Column("automated", sa.Boolean(), nullable=False),
        _text("author_role", nullable=True),
        _text("author_key", nullable=True),
        _text("trigger"),
        _text("reason"),
        sa.Column("quorum", sa.Integer(), nullable=False),
        _text("state"),
        _text("why"),
        _time("created_at"),
        _time("expires_at"),
        _time("closed_at", nullable=True),
        _document("result", nullable=True),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.CheckConstraint(f"state IN ({_STATES})", name=op.f("ck_approvals_state_known")),
        sa.CheckConstraint("quorum > 0", name=op.f("ck_approvals_quorum_positive")),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index(
        "one_pending_approval",
        "approvals",
        ["content_sha256"],
        unique=True,
        postgresql_where=sa.text("state = 'pending'"),
    )
    op.create_index("approvals_state", "approvals", ["state", "id"])
    op.create_table(
        "approval_votes",
        sa.Column("approval_id", sa.Uuid(), nullable=False),
        _text("person"),
        sa.Column("agrees", sa.Boolean(), nullable=False),
        _text("role", nullable=True),
        _text("key", nullable=True),
        _text("reason"),
        _time("at"),
        sa.ForeignKeyConstraint(["approval_id"], ["approvals.id"]),
        sa.PrimaryKeyConstraint("approval_id", "person"),
    )
    op.create_table(
        "page_sessions",
        sa.Column("token_sha256", sa.LargeBinary(), nullable=False),
        sa.Column("key_id", sa.Uuid(), nullable=False),
        _time("expires_at"),
        sa.PrimaryKeyConstraint("token_sha256"),
    )
    op.create_index("ix_page_sessions_expires_at", "page_sessions", ["expires_at"])


def downgrade() -> None:
    op.drop_table("page_sessions")
    op.drop_table("approval_votes")
    op.drop_table("approvals")
    op.drop_column("principals", "automated")
