"""Old code on the new schema: what a version before does in the database, it can do after the next one's migrations.

Which is so as long as a migration only adds: see docs/operations/upgrade.md.
"""

import asyncio
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import httpx
import pytest
from alembic import command
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, NullPool, create_engine, make_url, text
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine

from control_plane.adapters.store import migrate
from tests.support import released
from tests.support.api import add_model
from tests.support.processes import free_port, running, wait_until

pytestmark = pytest.mark.integration

# How a finding begins -> why it harms no version that anybody runs. What is taken away after the first release is named
# here with the release whose code was the last to use it, at least one release later.
EXCUSED: Mapping[str, str] = {
    "column windows.profile is gone": "before the first release",
    "column drift_": "before the first release",
    "drift_": "before the first release",
    "jobs_wanted.one_archiving": "of a kind of job that older code does not know",
    "audit.follows": "holds older code to what it did anyway",
    "audit.append_only": "holds older code to what it did anyway",
}

_COLUMNS = """
SELECT c.relname, a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull,
  a.atthasdef OR a.attidentity <> '' OR a.attgenerated <> ''
FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p') AND NOT c.relispartition
  AND a.attnum > 0 AND NOT a.attisdropped AND c.relname <> 'alembic_version'
"""
_RULES = """
SELECT t.relname, k.conname, k.contype::text, pg_get_constraintdef(k.oid) FROM pg_constraint k
JOIN pg_class t ON t.oid = k.conrelid
WHERE t.relnamespace = 'public'::regnamespace AND NOT t.relispartition AND k.contype <> 'n'
UNION ALL
SELECT t.relname, i.relname, 'unique', pg_get_indexdef(x.indexrelid) FROM pg_index x
JOIN pg_class i ON i.oid = x.indexrelid JOIN pg_class t ON t.oid = x.indrelid
WHERE t.relnamespace = 'public'::regnamespace AND x.indisunique AND NOT i.relispartition
  AND NOT EXISTS (SELECT FROM pg_constraint WHERE conindid = i.oid)
UNION ALL
SELECT t.relname, g.tgname, 'trigger', pg_get_triggerdef(g.oid) FROM pg_trigger g JOIN pg_class t ON t.oid = g.tgrelid
WHERE t.relnamespace = 'public'::regnamespace AND NOT g.tgisinternal AND NOT t.relispartition
"""


@dataclass(frozen=True, slots=True)
class Schema:
    columns: Mapping[tuple[str, str], tuple[str, bool, bool]]  # (table, column) -> type, not null, filled by itself
    rules: Mapping[tuple[str, str], tuple[str, str]]  # (table, name) -> kind, definition

    @property
    def tables(self) -> set[str]:
        return {table for table, _ in self.columns}


def schema(connection: Connection) -> Schema:
    columns = {(row[0], row[1]): (row[2], row[3], row[4]) for row in connection.execute(text(_COLUMNS))}
    return Schema(columns, {(row[0], row[1]): (row[2], row[3]) for row in connection.execute(text(_RULES))})


def broken(old: Schema, new: Schema) -> list[str]:
    """What code that knows `old` did and cannot do any more."""
    found = [f"column {'.'.join(place)} is gone" for place in old.columns.keys() - new.columns.keys()]
    for place, (kind, required, filled) in new.columns.items():
        if place in old.columns:
            was, was_required, was_filled = old.columns[place]
            if kind != was:
                found.append(f"column {'.'.join(place)} was {was} and is {kind}")
            if required and not was_required:
                found.append(f"column {'.'.join(place)} has to be filled")
            if was_filled and not filled and required:
                found.append(f"column {'.'.join(place)} is no longer filled by itself")
        elif place[0] in old.tables and required and not filled:
            found.append(f"column {'.'.join(place)} is new, has to be filled, and old code does not")
    for place, (kind, definition) in old.rules.items():
        if place not in new.rules and kind in ("p", "u", "unique"):  # ON CONFLICT names it
            found.append(f"{'.'.join(place)}, which keeps rows apart, is gone")
        elif kind == "c" and place in new.rules and not _allowed(definition) <= _allowed(new.rules[place][1]):
            found.append(f"{'.'.join(place)} allows less")
    for place, (kind, definition) in new.rules.items():
        if place[0] not in old.tables or (kind == "trigger" and place in old.rules):
            continue
        same = place in old.rules and (kind == "c" or old.rules[place][1] == definition)
        if not same and (kind == "trigger" or not _of_new_columns(old, place[0], definition)):
            found.append(f"{'.'.join(place)} is a new rule for rows that old code writes: {definition}")
    return sorted(found)


def _allowed(definition: str) -> set[str]:
    """The values a CHECK lists."""
    return set(re.findall(r"'([^']*)'", definition))


def _of_new_columns(old: Schema, table: str, definition: str) -> bool:
    """Whether it speaks of no column that was there: rows of old code have NULL or the default in the others."""
    words = set(re.findall(r"\w+", definition.partition("REFERENCES")[0]))
    return not any(column in words for owner, column in old.columns if owner == table)


def test_every_migration_leaves_what_the_version_before_it_reads_and_writes(empty_database: str) -> None:
    steps = [step.revision for step in ScriptDirectory.from_config(migrate.config(empty_database)).walk_revisions()]
    engine = create_engine(make_url(empty_database).set(drivername="postgresql+psycopg"), poolclass=NullPool)
    before: Schema | None = None
    problems: list[str] = []
    for revision in reversed(steps):
        command.upgrade(migrate.config(empty_database), revision)
        with engine.connect() as connection:
            after = schema(connection)
        if before is not None:
            found = [problem for problem in broken(before, after) if not problem.startswith(tuple(EXCUSED))]
            problems += [f"{revision}: {problem}" for problem in found]
        before = after
    assert problems == []


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("ALTER TABLE models DROP COLUMN traffic", "column models.traffic is gone"),
        ("ALTER TABLE models RENAME COLUMN traffic TO split", "column models.traffic is gone"),
        ("DROP TABLE webhook_deliveries", "column webhook_deliveries.at is gone"),
        ("ALTER TABLE models ALTER COLUMN revision TYPE text", "column models.revision was"),
        ("ALTER TABLE models ADD COLUMN owner text NOT NULL", "column models.owner is new, has to be filled"),
        ("ALTER TABLE models ALTER COLUMN traffic SET NOT NULL", "column models.traffic has to be filled"),
        ("DROP INDEX one_production", "model_versions.one_production, which keeps rows apart, is gone"),
        ("ALTER TABLE models ADD CONSTRAINT short CHECK (length(name) < 9)", "models.short is a new rule"),
    ],
)
def test_what_would_break_the_version_before_is_noticed(change: str, said: str, dsn: str) -> None:
    engine = create_engine(make_url(dsn).set(drivername="postgresql+psycopg"), poolclass=NullPool)
    with engine.begin() as connection:
        before = schema(connection)
        connection.execute(text(change))
        found = broken(before, schema(connection))
    assert any(problem.startswith(said) for problem in found), found


@pytest.mark.parametrize(
    "change",
    [
        "ALTER TABLE models ADD COLUMN note text",
        "ALTER TABLE models ADD COLUMN tries int NOT NULL DEFAULT 0 CHECK (tries >= 0)",
        "CREATE TABLE later (id int PRIMARY KEY, name text NOT NULL)",
        "CREATE INDEX models_created ON models (created_at)",
        "ALTER TABLE models ALTER COLUMN created_at DROP NOT NULL",
    ],
)
def test_what_only_adds_passes(change: str, dsn: str) -> None:
    engine = create_engine(make_url(dsn).set(drivername="postgresql+psycopg"), poolclass=NullPool)
    with engine.begin() as connection:
        before = schema(connection)
        connection.execute(text(change))
        assert broken(before, schema(connection)) == []


def test_code_that_goes_back_leaves_the_newer_schema_alone(empty_database: str) -> None:
    assert migrate.upgrade(empty_database)
    engine = create_engine(make_url(empty_database).set(drivername="postgresql+psycopg"), poolclass=NullPool)
    with engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
        before = schema(connection)
    assert not migrate.upgrade(empty_database)
    with engine.connect() as connection:
        assert schema(connection) == before
        assert connection.scalar(text("SELECT version_num FROM alembic_version")) == "9999"


@pytest.mark.slow
@pytest.mark.history
def test_the_version_before_goes_on_while_and_after_the_schema_gets_newer(empty_database: str, tmp_path: Path) -> None:
    """Its API answers, promotes and rolls back across the migration, and starts again on the new schema."""
    before, home = released.checkout(tmp_path), tmp_path / "home"
    env = {"PYTHONPATH": str(before), "MLCP_HOME": str(home), "MLCP_POSTGRES_DSN": empty_database}
    subprocess.run([*_PYTHON, "control_plane.api.init"], cwd=before, env={**os.environ, **env}, check=True)
    key = {"Authorization": f"Bearer {(home / 'keys' / 'admin.key').read_text().strip()}"}
    for moment in ("while", "after"):
        port = free_port()
        ours, log = env | {"MLCP_API_PORT": str(port)}, tmp_path / f"api-{moment}"
        with (
            running([*_PYTHON, "control_plane.api"], log=log, env=ours, cwd=before),
            httpx.Client(base_url=f"http://127.0.0.1:{port}", headers=key, timeout=240) as old,
        ):
            wait_until(partial(_answers, old), what="the old API answers", every=0.1)
            if moment == "while":
                assert migrate.upgrade(empty_database)
            asyncio.run(_add(empty_database, f"fraud-{moment}"))
            _works(old, f"fraud-{moment}")


async def _add(dsn: str, model: str) -> None:
    engine = create_async_engine(make_url(dsn))
    await add_model(async_sessionmaker(engine), model)
    await engine.dispose()


_PYTHON = [sys.executable, "-W", "ignore", "-m"]


def _answers(api: httpx.Client) -> bool:
    try:
        return api.get("/health").status_code in (200, 503)
    except httpx.TransportError:
        return False


def _works(api: httpx.Client, model: str) -> None:
    """Every page that needs no argument, a promotion and its rollback, a key, the audit."""
    paths = api.get("/openapi.json").json()["paths"]
    for path, methods in paths.items():
        if "get" in methods and "{" not in path:
            assert api.get(path).status_code < 500, path
        elif "get" in methods and path.count("{") == 1 and "/models/{" in path:
            assert api.get(re.sub(r"{\w+}", model, path)).status_code != 500, path
    why = {"reason": "an upgrade"}
    asked = api.post(f"/api/v1/models/{model}/promote/production", json={"version": "1", **why})
    assert asked.status_code == 202, asked.text
    assert api.post(f"/api/v1/models/{model}/rollback", json=why).is_success
    made = api.post("/api/v1/keys", json={"person": "ada", "role": "viewer", **why})
    assert made.is_success, made.text
    verified = api.get("/api/v1/audit/verify").json()
    assert verified["first_bad"] is None, verified
