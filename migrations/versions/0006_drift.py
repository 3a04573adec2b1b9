"""Drift: references, profiles of windows, what days measured, looks and incidents.

`windows.profile` was never written: profiles are appended, not updated in place.
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision: str = "0006"
down_revision: str | None = "0005"
branch_labels: Sequence[str] | None = None
depends_on: Sequence[str] | None = None


def _document(name: str) -> sa.Column[object]:
    return sa.Column(name, postgresql.JSONB(none_as_null=True, astext_type=sa.Text()), nullable=False)


def _text(name: str) -> sa.Column[str]:
    return sa.Column(name, sa.TEXT(), nullable=False)


def _time(name: str, *, nullable: bool = False) -> sa.Column[object]:
    return sa.Column(name, sa.DateTime(timezone=True), nullable=nullable)


def upgrade() -> None:
    op.drop_column("windows", "profile")
    op.create_table(
        "drift_references",
        _text("model"),
        _text("version"),
        _text("source"),
        sa.Column("document", sa.LargeBinary(), nullable=False),
        _time("created_at"),
        _time("filled_at", nullable=True),
        sa.CheckConstraint("source IN ('training', 'first_traffic')", name=op.f("ck_drift_references_source_known")),
        sa.PrimaryKeyConstraint("model", "version"),
    )
    op.create_table(
        "drift_profiles",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        _text("model"),
        _text("version"),
        _text("variant"),
        _text("kind"),
        _text("grain"),
        _time("starts"),
        sa.Column("rows", sa.BigInteger(), nullable=False),
        sa.Column("data", sa.LargeBinary(), nullable=False),
        sa.CheckConstraint("kind IN ('rows', 'blocks')", name=op.f("ck_drift_profiles_kind_known")),
        sa.CheckConstraint("grain IN ('part', 'hour', 'day', 'month')", name=op.f("ck_drift_profiles_grain_known")),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("drift_profiles_window", "drift_profiles", ["model", "version", "kind", "starts"])
    op.create_index("drift_profiles_parts", "drift_profiles", ["id"], postgresql_where=sa.text("grain = 'part'"))
    op.create_table(
        "drift_blocks",
        _text("model"),
        _text("version"),
        sa.Column("day", sa.Date(), nullable=False),
        sa.Column("unit", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.PrimaryKeyConstraint("model", "version", "day", "unit"),
    )
    op.create_table(
        "drift_days",
        _text("model"),
        _text("version"),
        sa.Column("day", sa.Date(), nullable=False),
        sa.Column("hour", sa.Integer(), autoincrement=False, nullable=False),
        _document("measured"),
        sa.PrimaryKeyConstraint("model", "version", "day", "hour"),
    )
    op.create_table(
        "drift_looks",
        _text("model"),
        _time("hour"),
        _text("version"),
        _time("at"),
        _document("look"),
        sa.PrimaryKeyConstraint("model", "hour"),
    )
    op.create_table(
        "drift_incidents",
        sa.Column("id", sa.Uuid(), nullable=False),
        _text("model"),
        _text("version"),
        _time("opened_at"),
        _time("closed_at", nullable=True),
        _text("severity"),
        sa.Column("kinds", postgresql.ARRAY(sa.TEXT()), nullable=False),
        sa.Column("features", postgresql.ARRAY(sa.TEXT()), nullable=False),
        _document("history"),
        sa.CheckConstraint("severity IN ('low', 'medium', 'high')", name=op.f("ck_drift_incidents_severity_known")),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index(
        "one_open_incident",
        "drift_incidents",
        ["model"],
        unique=True,
        postgresql_where=sa.text("closed_at IS NULL"),
    )
    op.create_index("drift_incidents_model_opened", "drift_incidents", ["model", "opened_at"])


def downgrade() -> None:
    for table in ("incidents", "looks", "days", "blocks", "profiles", "references"):
        op.drop_table(f"drift_{table}")
    op.add_column("windows", sa.Column("profile", postgresql.JSONB(none_as_null=True), nullable=True))
