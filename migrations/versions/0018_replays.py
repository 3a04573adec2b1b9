"""Replays of logged traffic with what came of them."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision: str = "0018"
down_revision: str | None = "0017"
branch_labels: Sequence[str] | None = None
depends_on: Sequence[str] | None = None


def upgrade() -> None:
    op.create_table(
        "replays",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("model", sa.TEXT(), nullable=False),
        sa.Column("candidate_version", sa.TEXT(), nullable=False),
        sa.Column("candidate_digest", sa.TEXT(), nullable=False),
        sa.Column("baseline_version", sa.TEXT(), nullable=False),
        sa.Column("baseline_digest", sa.TEXT(), nullable=False),
        sa.Column("since", sa.DateTime(timezone=True), nullable=False),
        sa.Column("until", sa.DateTime(timezone=True), nullable=False),
        sa.Column("sample", sa.Float(), nullable=False),
        sa.Column("segment", sa.TEXT(), nullable=True),
        sa.Column("done_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("report", postgresql.JSONB(none_as_null=True, astext_type=sa.Text()), nullable=True),
        sa.ForeignKeyConstraint(["id"], ["jobs_wanted.id"]),
        sa.ForeignKeyConstraint(["model", "candidate_version"], ["model_versions.model", "model_versions.version"]),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("replays_model", "replays", ["model", "id"])


def downgrade() -> None:
    op.drop_table("replays")
