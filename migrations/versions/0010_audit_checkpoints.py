"""Signed checkpoints of the audit chain; Postgres itself refuses a link that does not follow, and any change of one."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0010"
down_revision: str | None = "0009"
branch_labels: Sequence[str] | None = None
depends_on: Sequence[str] | None = None

# The chain's formula is that of domain/audit.py and never changes. What `append` writes always follows: its lock is
# held. The search path is fixed, so that no table or function of the session's own can stand in for another.
_FOLLOWS = """
CREATE FUNCTION audit_follows() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog, public AS $$
DECLARE head record;
BEGIN
  SELECT seq, hash INTO head FROM public.audit ORDER BY seq DESC LIMIT 1;
  IF NEW.seq <> coalesce(head.seq, 0) + 1
    OR NEW.hash <> sha256(coalesce(head.hash, decode(repeat('00', 32), 'hex')) || NEW.payload) THEN
    RAISE EXCEPTION 'link % does not follow the head of the audit chain', NEW.seq USING ERRCODE = 'MLA01';
  END IF;
  RETURN NEW;
END $$
"""
_APPEND_ONLY = """
CREATE FUNCTION audit_append_only() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog, public AS $$
BEGIN
  RAISE EXCEPTION '% is append-only: % is refused', TG_TABLE_NAME, TG_OP USING ERRCODE = 'MLA02';
END $$
"""


def upgrade() -> None:
    op.create_table(
        "audit_checkpoints",
        sa.Column("seq", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("body", sa.LargeBinary(), nullable=False),
        sa.Column("signature", sa.LargeBinary(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("seq"),
    )
    op.execute(_FOLLOWS)
    op.execute(_APPEND_ONLY)
    op.execute("CREATE TRIGGER follows BEFORE INSERT ON audit FOR EACH ROW EXECUTE FUNCTION audit_follows()")
    for table in ("audit", "audit_checkpoints"):
        op.execute(
            f"CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON {table} "
            "FOR EACH STATEMENT EXECUTE FUNCTION audit_append_only()"
        )


def downgrade() -> None:
    op.execute("DROP TRIGGER append_only ON audit")
    op.execute("DROP TRIGGER follows ON audit")
    op.drop_table("audit_checkpoints")
    op.execute("DROP FUNCTION audit_append_only")
    op.execute("DROP FUNCTION audit_follows")
