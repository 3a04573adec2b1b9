"""Brings a database to the newest schema: expand, migrate, contract, one numbered step after another."""

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import NullPool, create_engine, make_url

_MIGRATIONS = Path(__file__).resolve().parents[3] / "migrations"


def config(dsn: str) -> Config:
    """Alembic's configuration for `dsn` (any postgresql:// driver; migrations connect with psycopg)."""
    made = Config()
    made.set_main_option("script_location", str(_MIGRATIONS))
    made.set_main_option("path_separator", "os")
    made.attributes["dsn"] = dsn
    return made


def upgrade(dsn: str) -> bool:
    """Whether the schema is now the newest this code knows. Blocking; safe from several processes at once, and again.

    False: it is newer than that and is left as it is. What a release adds the one before can live with, so going back
    to that is a matter of its processes alone.
    """
    made = config(dsn)
    known = {step.revision for step in ScriptDirectory.from_config(made).walk_revisions()}
    engine = create_engine(make_url(dsn).set(drivername="postgresql+psycopg"), poolclass=NullPool)
    try:
        with engine.connect() as connection:
            current = set(MigrationContext.configure(connection).get_current_heads())
    finally:
        engine.dispose()
    if current - known:
        return False
    command.upgrade(made, "head")
    return True
