"""Reports that were made; jobs that wait for a time."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision: str = "0015"
down_revision: str | None = "0014"
branch_labels: Sequence[str] | None = None
depends_on: Sequence[str] | None = None


def upgrade() -> None:
    op.create_table(
        "reports",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("model", sa.TEXT(), nullable=False),
        sa.Column("kind", sa.TEXT(), nullable=False),
        sa.Column("title", sa.TEXT(), nullable=False),
        sa.Column("summary", postgresql.JSONB(none_as_null=True, astext_type=sa.Text()), nullable=False),
        sa.Column("made_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("sha256", sa.TEXT(), nullable=False),
        sa.Column("pdf_sha256", sa.TEXT(), nullable=False),
        sa.CheckConstraint(
            "kind IN ('deployment', 'rollback', 'retraining', 'drift', 'incident', 'monthly')",
            name=op.f("ck_reports_kind_known"),
        ),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index(op.f("ix_reports_model"), "reports", ["model"], unique=False)
    op.add_column("jobs_wanted", sa.Column("not_before", sa.DateTime(timezone=True), nullable=True))


def downgrade() -> None:
    op.drop_column("jobs_wanted", "not_before")
    op.drop_table("reports")
