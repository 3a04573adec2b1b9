"""Hashes of a day's customers by the batch that claimed them: one row instead of thousands."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0016"
down_revision: str | None = "0015"
branch_labels: Sequence[str] | None = None
depends_on: Sequence[str] | None = None


def _key() -> list[sa.Column[object]]:
    text: list[sa.Column[object]] = [sa.Column(name, sa.TEXT(), nullable=False) for name in ("model", "version")]
    return [*text, sa.Column("day", sa.Date(), nullable=False)]


def upgrade() -> None:
    op.execute(
        "CREATE TEMPORARY TABLE claimed_before ON COMMIT DROP AS "
        "SELECT model, version, day, string_agg(int8send(unit), ''::bytea) AS units FROM drift_blocks "
        "GROUP BY model, version, day"
    )
    op.drop_table("drift_blocks")
    op.create_table(
        "drift_blocks",
        *_key(),
        sa.Column("id", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column("units", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("model", "version", "day", "id"),
    )
    op.execute("ALTER TABLE drift_blocks ALTER COLUMN units SET STORAGE EXTERNAL")  # hashes cannot be compressed
    op.execute(
        "INSERT INTO drift_blocks (model, version, day, units) SELECT model, version, day, units FROM claimed_before"
    )


def downgrade() -> None:
    op.drop_table("drift_blocks")
    op.create_table(
        "drift_blocks",
        *_key(),
        sa.Column("unit", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.PrimaryKeyConstraint("model", "version", "day", "unit"),
    )
