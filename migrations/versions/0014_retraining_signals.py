"""Signals of retrainings that ended."""

from collections.abc import Sequence

from alembic import op

revision: str = "0014"
down_revision: str | None = "0013"
branch_labels: Sequence[str] | None = None
depends_on: Sequence[str] | None = None

_NAME = "ck_signals_source_known"
_BEFORE = "'alert', 'drift', 'performance', 'slo', 'rollout', 'schedule', 'human'"


def upgrade() -> None:
    op.drop_constraint(op.f(_NAME), "signals")
    op.create_check_constraint(op.f(_NAME), "signals", f"source IN ({_BEFORE}, 'retraining')")


def downgrade() -> None:
    op.execute("DELETE FROM policy_acts WHERE signal_id IN (SELECT id FROM signals WHERE source = 'retraining')")
    op.execute("DELETE FROM signals WHERE source = 'retraining'")
    op.drop_constraint(op.f(_NAME), "signals")
    op.create_check_constraint(op.f(_NAME), "signals", f"source IN ({_BEFORE})")
