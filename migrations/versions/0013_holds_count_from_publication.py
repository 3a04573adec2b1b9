"""When routers were told of a rollout's phase and step: holds and bakes count from then."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0013"
down_revision: str | None = "0012"
branch_labels: Sequence[str] | None = None
depends_on: Sequence[str] | None = None


def upgrade() -> None:
    op.add_column("rollouts", sa.Column("told_at", sa.DateTime(timezone=True), nullable=True))
    op.execute("UPDATE rollouts SET told_at = since WHERE published_revision IS NOT NULL")


def downgrade() -> None:
    op.drop_column("rollouts", "told_at")
