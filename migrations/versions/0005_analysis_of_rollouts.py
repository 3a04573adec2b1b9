"""Rollouts decided by evidence: closed units, statistics per arm, looks and decisions."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision: str = "0005"
down_revision: str | None = "0004"
branch_labels: Sequence[str] | None = None
depends_on: Sequence[str] | None = None

_OF_ROLLOUT = sa.text("rollout_id IS NOT NULL")


def upgrade() -> None:
    op.add_column("rollouts", sa.Column("conclusion", sa.TEXT(), nullable=True))
    op.add_column("rollouts", sa.Column("crossed_at", sa.DateTime(timezone=True), nullable=True))
    op.add_column("predictions", sa.Column("unit_hash", sa.LargeBinary(), nullable=True))
    op.create_index(
        "predictions_rollout_unit", "predictions", ["rollout_id", "unit_hash"], postgresql_where=_OF_ROLLOUT
    )
    op.add_column("exposures", sa.Column("folded", sa.Integer(), nullable=False, server_default="0"))
    op.create_index("exposures_to_close", "exposures", ["rollout_id", "folded", "first_at"])
    op.create_table(
        "arm_statistics",
        sa.Column("rollout_id", sa.Uuid(), nullable=False),
        sa.Column("metric", sa.TEXT(), nullable=False),
        sa.Column("step", sa.Integer(), nullable=False),
        sa.Column("variant", sa.TEXT(), nullable=False),
        sa.Column("count", sa.BigInteger(), nullable=False),
        sa.Column("mean", sa.Double(), nullable=False),
        sa.Column("m2", sa.Double(), nullable=False),
        sa.Column("nonzero", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("rollout_id", "metric", "step", "variant"),
    )
    op.create_table(
        "rollout_looks",
        sa.Column("rollout_id", sa.Uuid(), nullable=False),
        sa.Column("looked_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("since", sa.DateTime(timezone=True), nullable=False),
        sa.Column("asked_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("inconclusive", sa.Integer(), nullable=False),
        sa.Column("errors", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("rollout_id"),
    )
    op.create_table(
        "analysis_runs",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column("rollout_id", sa.Uuid(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("step", sa.Integer(), nullable=False),
        sa.Column("verdict", sa.TEXT(), nullable=False),
        sa.Column("conclusion", sa.TEXT(), nullable=True),
        sa.Column("why", sa.TEXT(), nullable=False),
        sa.Column("decided", sa.TEXT(), nullable=True),
        sa.Column("evidence", postgresql.JSONB(none_as_null=True, astext_type=sa.Text()), nullable=False),
        sa.CheckConstraint("verdict IN ('pass', 'fail', 'inconclusive')", name=op.f("ck_analysis_runs_verdict_known")),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("analysis_runs_rollout", "analysis_runs", ["rollout_id", "id"])


def downgrade() -> None:
    op.drop_table("analysis_runs")
    op.drop_table("rollout_looks")
    op.drop_table("arm_statistics")
    op.drop_index("exposures_to_close", table_name="exposures")
    op.drop_column("exposures", "folded")
    op.drop_index("predictions_rollout_unit", table_name="predictions", postgresql_where=_OF_ROLLOUT)
    op.drop_column("predictions", "unit_hash")
    op.drop_column("rollouts", "crossed_at")
    op.drop_column("rollouts", "conclusion")
