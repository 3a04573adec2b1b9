"""Quality by the hour: which hours of the log have changed, and the sums their labelled answers come down to."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision: str = "0007"
down_revision: str | None = "0006"
branch_labels: Sequence[str] | None = None
depends_on: Sequence[str] | None = None


def upgrade() -> None:
    op.create_table(
        "log_hours",
        sa.Column("model", sa.TEXT(), nullable=False),
        sa.Column("hour", sa.DateTime(timezone=True), nullable=False),
        sa.Column("changed", sa.BigInteger(), nullable=False),
        sa.Column("quality_due_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("model", "hour"),
    )
    op.create_index("log_hours_quality_due", "log_hours", ["quality_due_at"])
    op.create_table(
        "quality",
        sa.Column("model", sa.TEXT(), nullable=False),
        sa.Column("version", sa.TEXT(), nullable=False),
        sa.Column("variant", sa.TEXT(), nullable=False),
        sa.Column("hour", sa.DateTime(timezone=True), nullable=False),
        sa.Column("tally", postgresql.JSONB(none_as_null=True, astext_type=sa.Text()), nullable=False),
        sa.Column("folded_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("model", "hour", "version", "variant"),
    )
    op.create_index("predictions_unit", "predictions", ["unit_id"], postgresql_where=sa.text("unit_id IS NOT NULL"))
    # What was logged before hours were kept is folded once.
    op.execute(
        "INSERT INTO log_hours (model, hour, changed, quality_due_at) "
        "SELECT model, date_trunc('hour', to_timestamp("  # of the UUIDv7, its first 48 bits: milliseconds
        "('x' || substr(replace(prediction_id::text, '-', ''), 1, 12))::bit(48)::bigint / 1000.0), 'UTC'), 1, now() "
        "FROM predictions GROUP BY 1, 2"
    )


def downgrade() -> None:
    op.drop_index("predictions_unit", "predictions")
    op.drop_table("quality")
    op.drop_index("log_hours_quality_due", "log_hours")
    op.drop_table("log_hours")
