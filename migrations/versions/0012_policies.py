"""Policies, the kill switch, signals, what was done about them, and deliveries of signed webhooks."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision: str = "0012"
down_revision: str | None = "0011"
branch_labels: Sequence[str] | None = None
depends_on: Sequence[str] | None = None


def _text(name: str, *, nullable: bool = False) -> sa.Column[str]:
    return sa.Column(name, sa.TEXT(), nullable=nullable)


def _time(name: str, *, nullable: bool = False) -> sa.Column[object]:
    return sa.Column(name, sa.DateTime(timezone=True), nullable=nullable)


def _document(name: str, *, nullable: bool = False) -> sa.Column[object]:
    return sa.Column(name, postgresql.JSONB(none_as_null=True, astext_type=sa.Text()), nullable=nullable)


def _one_of(table: str, column: str, *values: str) -> sa.CheckConstraint:
    listed = ", ".join(f"'{value}'" for value in values)
    return sa.CheckConstraint(f"{column} IN ({listed})", name=op.f(f"ck_{table}_{column}_known"))


def upgrade() -> None:
    op.create_table(
        "policies",
        sa.Column("version", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        _document("document"),
        _time("applied_at"),
        _text("applied_by"),
        _text("reason"),
        sa.PrimaryKeyConstraint("version"),
    )
    op.create_table(
        "policy_halts",
        sa.Column("id", sa.Uuid(), nullable=False),
        _time("at"),
        _text("by"),
        _text("reason"),
        _time("resumed_at", nullable=True),
        _text("resumed_by", nullable=True),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index(
        "one_halt", "policy_halts", [sa.text("(true)")], unique=True, postgresql_where=sa.text("resumed_at IS NULL")
    )
    op.create_table(
        "signals",
        sa.Column("id", sa.Uuid(), nullable=False),
        _text("key"),
        _text("source"),
        _text("name"),
        _text("model", nullable=True),
        _text("severity"),
        _text("status"),
        _document("facts"),
        _time("at"),
        _time("received_at"),
        _time("decided_at", nullable=True),
        _document("decision", nullable=True),
        _one_of("signals", "source", "alert", "drift", "performance", "slo", "rollout", "schedule", "human"),
        _one_of("signals", "status", "firing", "resolved"),
        _one_of("signals", "severity", "info", "warning", "critical"),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("key"),
    )
    op.create_index("signals_undecided", "signals", ["id"], postgresql_where=sa.text("decided_at IS NULL"))
    op.create_index("signals_model", "signals", ["model", "id"])
    op.create_table(
        "policy_acts",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("signal_id", sa.Uuid(), nullable=False),
        _text("operation"),
        _text("model", nullable=True),
        _text("outcome"),
        _text("state"),
        _text("why"),
        _time("created_at"),
        _time("done_at", nullable=True),
        _document("result", nullable=True),
        _document("before", nullable=True),
        _time("check_at", nullable=True),
        _time("checked_at", nullable=True),
        _document("after", nullable=True),
        _text("effect", nullable=True),
        _one_of("policy_acts", "state", "wanted", "done", "failed", "held", "left"),
        sa.ForeignKeyConstraint(["signal_id"], ["signals.id"]),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("policy_acts_wanted", "policy_acts", ["id"], postgresql_where=sa.text("state = 'wanted'"))
    op.create_index(
        "policy_acts_check",
        "policy_acts",
        ["check_at"],
        postgresql_where=sa.text("checked_at IS NULL AND check_at IS NOT NULL"),
    )
    op.create_index("policy_acts_created", "policy_acts", ["created_at"])
    op.create_index("ix_policy_acts_signal_id", "policy_acts", ["signal_id"])
    op.create_table(
        "webhook_deliveries",
        sa.Column("signature_sha256", sa.LargeBinary(), nullable=False),
        _time("at"),
        sa.PrimaryKeyConstraint("signature_sha256"),
    )
    op.create_index("ix_webhook_deliveries_at", "webhook_deliveries", ["at"])


def downgrade() -> None:
    for table in ("webhook_deliveries", "policy_acts", "signals", "policy_halts", "policies"):
        op.drop_table(table)
