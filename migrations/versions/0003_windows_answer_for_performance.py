"""Hourly windows that performance is read from: who answered, who was to and did not, and how fast."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision: str = "0003"
down_revision: str | None = "0002"
branch_labels: Sequence[str] | None = None
depends_on: Sequence[str] | None = None


def upgrade() -> None:
    op.add_column("windows", sa.Column("answered", sa.BigInteger(), server_default="0", nullable=False))
    op.add_column("windows", sa.Column("missed", sa.BigInteger(), server_default="0", nullable=False))
    op.add_column(
        "windows",
        sa.Column("latency", postgresql.ARRAY(sa.BigInteger()), server_default="{}", nullable=False),
    )
    # A unit that comes again changes its row in place; room on the page keeps the index out of it.
    op.execute("ALTER TABLE exposures SET (fillfactor = 70)")


def downgrade() -> None:
    op.execute("ALTER TABLE exposures RESET (fillfactor)")
    op.drop_column("windows", "latency")
    op.drop_column("windows", "missed")
    op.drop_column("windows", "answered")
