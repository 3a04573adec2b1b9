"""Brings a database to the newest schema: expand, migrate, contract, one numbered step after another."""

from pathlib import Path

from alembic import command
from alembic.config import Config

_MIGRATIONS = Path(__file__).resolve().parents[3] / "migrations"


def config(dsn: str) -> Config:
    """Alembic's configuration for `dsn` (any postgresql:// driver; migrations connect with psycopg)."""
    made = Config()
    made.set_main_option("script_location", str(_MIGRATIONS))
    made.set_main_option("path_separator", "os")
    made.attributes["dsn"] = dsn
    return made


def upgrade(dsn: str) -> None:
    """Blocking; safe to call from several processes at once and again when there is nothing to do."""
    command.upgrade(config(dsn), "head")
