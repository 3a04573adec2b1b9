"""A key may carry a rate limit."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0002"
down_revision: str | None = "0001"
branch_labels: Sequence[str] | None = None
depends_on: Sequence[str] | None = None


def upgrade() -> None:
    op.add_column("api_keys", sa.Column("rate_limit_rps", sa.Float(), nullable=True))


def downgrade() -> None:
    op.drop_column("api_keys", "rate_limit_rps")
