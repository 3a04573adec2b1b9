"""Erasure of a unit's personal data: what was asked for, under a keyed hash that outlives the unit's name."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision: str = "0009"
down_revision: str | None = "0008"
branch_labels: Sequence[str] | None = None
depends_on: Sequence[str] | None = None


def upgrade() -> None:
    op.create_table(
        "erasures",
        sa.Column("job_id", sa.Uuid(), nullable=False),
        sa.Column("unit_id", sa.TEXT(), nullable=True),
        sa.Column("unit_hash", sa.LargeBinary(), nullable=False),
        sa.Column("requested_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("done_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("report", postgresql.JSONB(none_as_null=True, astext_type=sa.Text()), nullable=True),
        sa.PrimaryKeyConstraint("job_id"),
    )
    op.create_index("erasures_requested", "erasures", ["requested_at"])
    op.create_table(
        "secrets",
        sa.Column("name", sa.TEXT(), nullable=False),
        sa.Column("value", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("name"),
    )
    # 244 random bits: nobody who sees the hash can try the names of customers against it.
    op.execute(
        "INSERT INTO secrets VALUES ('erasure', "
        "sha256(convert_to(gen_random_uuid()::text || gen_random_uuid()::text, 'UTF8')))"
    )


def downgrade() -> None:
    op.drop_table("secrets")
    op.drop_index("erasures_requested", "erasures")
    op.drop_table("erasures")
