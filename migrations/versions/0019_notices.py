"""What people are told, and to whom it goes."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision: str = "0019"
down_revision: str | None = "0018"
branch_labels: Sequence[str] | None = None
depends_on: Sequence[str] | None = None


def upgrade() -> None:
    op.create_table(
        "notices",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("key", sa.TEXT(), nullable=False),
        sa.Column("event", sa.TEXT(), nullable=False),
        sa.Column("severity", sa.TEXT(), nullable=False),
        sa.Column("model", sa.TEXT(), nullable=True),
        sa.Column("title", sa.TEXT(), nullable=False),
        sa.Column("lines", postgresql.ARRAY(sa.TEXT()), nullable=False),
        sa.Column("path", sa.TEXT(), nullable=True),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint("severity IN ('info', 'warning', 'critical')", name=op.f("ck_notices_severity_known")),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("key"),
    )
    op.create_table(
        "notice_deliveries",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("notice_id", sa.Uuid(), nullable=False),
        sa.Column("receiver", sa.TEXT(), nullable=False),
        sa.ForeignKeyConstraint(["notice_id"], ["notices.id"]),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("one_delivery_per_receiver", "notice_deliveries", ["notice_id", "receiver"], unique=True)


def downgrade() -> None:
    op.drop_table("notice_deliveries")
    op.drop_table("notices")
