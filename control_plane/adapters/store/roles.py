"""Who owns what in the database: the audit belongs to the role that migrates, everything else to the processes' role.

So a process that was taken over, or a mistake in one, cannot rewrite what was done: its role may read the audit and add
to it, and nothing else. What it does own it creates and drops as before (day partitions, the job queue).
"""

import os
import pwd
from typing import LiteralString

import psycopg
from psycopg import sql
from sqlalchemy import make_url

KEPT = ("audit", "audit_checkpoints", "alembic_version")  # of the owner
_SCHEMAS = "SELECT nspname FROM pg_namespace WHERE nspname IN ('public', 'procrastinate')"
_LOCK = 7_305_007  # advisory: two starts at once come one after the other

# What a role should own and does not, as statements. A column's own sequence follows its table by itself.
_TO_CHANGE = """
SELECT format('ALTER %%s %%s OWNER TO %%I', kind, name, %(role)s::text) FROM (
  SELECT CASE c.relkind WHEN 'v' THEN 'VIEW' WHEN 'S' THEN 'SEQUENCE' ELSE 'TABLE' END AS kind,
    c.oid::regclass::text AS name, c.relowner AS owner, c.relname = ANY (%(kept)s) AS kept
  FROM pg_class c
  WHERE c.relnamespace = ANY (%(schemas)s::regnamespace[]) AND (c.relkind IN ('r', 'p', 'v') OR c.relkind = 'S'
    AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.objid = c.oid AND d.deptype IN ('a', 'i')))
  UNION ALL
  SELECT 'ROUTINE', oid::regprocedure::text, proowner, proname LIKE 'audit%%' FROM pg_proc
  WHERE pronamespace = ANY (%(schemas)s::regnamespace[])
  UNION ALL
  SELECT 'TYPE', oid::regtype::text, typowner, false FROM pg_type
  WHERE typnamespace = ANY (%(schemas)s::regnamespace[]) AND typtype IN ('e', 'd')
) AS found JOIN pg_roles ON pg_roles.oid = owner
WHERE kept = %(keeps)s AND rolname <> %(role)s ORDER BY kind DESC, name
"""


def name_in(dsn: str) -> str:
    """The role a DSN connects as; where it names none, the one libpq would take."""
    return make_url(dsn).username or os.environ.get("PGUSER") or pwd.getpwuid(os.geteuid()).pw_name


def settle(owner_dsn: str, app: str) -> bool:
    """Divide the database between the role of `owner_dsn` and the role `app`. Blocking, idempotent.

    False, and nothing is changed, when the two are the same. The owner needs to be a superuser, or the database's owner
    and a member of `app`.
    """
    with psycopg.connect(make_url(owner_dsn).set(drivername="postgresql").render_as_string(False)) as connection:
        connection.execute("SELECT pg_advisory_xact_lock(%s)", (_LOCK,))
        owner = connection.info.user
        if owner == app:
            return False
        schemas = [name for (name,) in connection.execute(_SCHEMAS)]
        for schema in schemas:
            _grant(connection, "USAGE, CREATE ON SCHEMA " + schema, app)
        for role, keeps in ((owner, True), (app, False)):
            facts = {"role": role, "kept": list(KEPT), "schemas": schemas, "keeps": keeps}
            for (statement,) in connection.execute(_TO_CHANGE, facts).fetchall():
                connection.execute(statement)
        kept = sql.SQL(", ").join(map(sql.Identifier, KEPT))
        connection.execute(sql.SQL("REVOKE ALL ON {} FROM PUBLIC, {}").format(kept, sql.Identifier(app)))
        _grant(connection, "SELECT, INSERT ON audit, audit_checkpoints", app)
        _grant(connection, "SELECT ON alembic_version", app)
    return True


def _grant(connection: psycopg.Connection, what: LiteralString, role: str) -> None:
    connection.execute(sql.SQL("GRANT " + what + " TO {}").format(sql.Identifier(role)))
