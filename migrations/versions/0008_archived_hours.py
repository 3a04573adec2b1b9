"""Which hours of the log the archive holds; kinds of jobs that keep the log."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0008"
down_revision: str | None = "0007"
branch_labels: Sequence[str] | None = None
depends_on: Sequence[str] | None = None

_KINDS = "kind IN ('train', 'replay', 'report', 'notify'{more})"


def upgrade() -> None:
    op.add_column("log_hours", sa.Column("archived", sa.BigInteger(), server_default="0", nullable=False))
    op.add_column("log_hours", sa.Column("archived_at", sa.DateTime(timezone=True), nullable=True))
    op.add_column("log_hours", sa.Column("archived_rows", sa.BigInteger(), server_default="0", nullable=False))
    op.add_column("log_hours", sa.Column("dropped_at", sa.DateTime(timezone=True), nullable=True))
    op.drop_constraint(op.f("ck_jobs_wanted_kind_known"), "jobs_wanted")
    kinds = _KINDS.format(more=", 'archive', 'erase'")
    op.create_check_constraint(op.f("ck_jobs_wanted_kind_known"), "jobs_wanted", kinds)
    op.create_index(
        "one_archiving",
        "jobs_wanted",
        ["kind"],
        unique=True,
        postgresql_where=sa.text("kind = 'archive' AND state IN ('wanted', 'queued', 'running')"),
    )


def downgrade() -> None:
    op.drop_index("one_archiving", "jobs_wanted")
    op.execute("DELETE FROM jobs_wanted WHERE kind IN ('archive', 'erase')")
    op.drop_constraint(op.f("ck_jobs_wanted_kind_known"), "jobs_wanted")
    op.create_check_constraint(op.f("ck_jobs_wanted_kind_known"), "jobs_wanted", _KINDS.format(more=""))
    for column in ("dropped_at", "archived_rows", "archived_at", "archived"):
        op.drop_column("log_hours", column)
