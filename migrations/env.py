"""Runs the migrations over one synchronous connection, one process at a time."""

import os

from alembic import context
from sqlalchemy import Connection, NullPool, create_engine, make_url, text
from sqlalchemy.sql.schema import SchemaItem

from control_plane.adapters.store.tables import Base

_LOCK = 7_305_000  # any constant but the audit chain's: two processes that start at once migrate one after the other


def _ours(item: SchemaItem, name: str | None, kind: str, reflected: bool, compare_to: SchemaItem | None) -> bool:
    """Day partitions and the job queue's own tables are in the database, not in our metadata."""
    return not (kind == "table" and reflected and compare_to is None)


def _run(connection: Connection) -> None:
    context.configure(connection=connection, target_metadata=Base.metadata, include_object=_ours)
    with context.begin_transaction():
        connection.execute(text(f"SELECT pg_advisory_xact_lock({_LOCK})"))
        context.run_migrations()


def main() -> None:
    given = context.config.attributes.get("connection")
    if isinstance(given, Connection):
        _run(given)
        return
    url = make_url(context.config.attributes.get("dsn") or os.environ["MLCP_POSTGRES_DSN"])
    engine = create_engine(url.set(drivername="postgresql+psycopg"), poolclass=NullPool)
    with engine.connect() as connection:
        _run(connection)
    engine.dispose()


main()
