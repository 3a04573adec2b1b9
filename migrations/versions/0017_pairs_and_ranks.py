"""Pairs of numbers per customer (ratios, CUPED) and counts by score and class (AUC, average precision)."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision: str = "0017"
down_revision: str | None = "0016"
branch_labels: Sequence[str] | None = None
depends_on: Sequence[str] | None = None


def upgrade() -> None:
    for name in ("x_mean", "x_m2", "c"):
        op.add_column("arm_statistics", sa.Column(name, sa.Double(), nullable=True))
    cells = postgresql.JSONB(none_as_null=True, astext_type=sa.Text())
    op.add_column("arm_statistics", sa.Column("cells", cells, nullable=True))


def downgrade() -> None:
    for name in ("cells", "c", "x_m2", "x_mean"):
        op.drop_column("arm_statistics", name)
