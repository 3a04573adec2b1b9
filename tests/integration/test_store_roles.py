"""The role of the processes adds to the audit and can do nothing else to it."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from uuid import uuid4

import psycopg
import pytest
from alembic import command
from psycopg import errors, sql
from sqlalchemy import make_url
from sqlalchemy.ext.asyncio import AsyncEngine

from control_plane.adapters import queue, store
from control_plane.adapters.store import audit, ids, ingest, jobs, log_archive, migrate, roles
from control_plane.domain.audit import Actor

pytestmark = pytest.mark.integration


class Divided:
    """A database of two roles, neither of them a superuser."""

    def __init__(self, admin_dsn: str) -> None:
        name = uuid4().hex[:12]
        self.admin, self.owner, self.app = admin_dsn, f"owner_{name}", f"app_{name}"

    def dsn(self, role: str, driver: str = "asyncpg") -> str:
        url = make_url(self.admin).set(username=role, drivername=f"postgresql+{driver}")
        return url.render_as_string(hide_password=False)

    def connect(self, role: str | None = None) -> psycopg.Connection:
        url = make_url(self.admin if role is None else self.dsn(role)).set(drivername="postgresql")
        return psycopg.connect(url.render_as_string(hide_password=False), autocommit=True)

    def prepare(self) -> None:
        """As `control_plane.api.init` does."""
        migrate.upgrade(self.dsn(self.owner))
        queue.prepare(self.dsn(self.owner))
        assert roles.settle(self.dsn(self.owner), self.app)


@pytest.fixture
def divided(empty_database: str) -> Iterator[Divided]:
    made = Divided(empty_database)
    database = sql.Identifier(str(make_url(empty_database).database))
    with made.connect() as admin:
        for role in (made.owner, made.app):
            admin.execute(sql.SQL("CREATE ROLE {} LOGIN").format(sql.Identifier(role)))
        admin.execute(sql.SQL("GRANT {} TO {}").format(sql.Identifier(made.app), sql.Identifier(made.owner)))
        admin.execute(sql.SQL("ALTER DATABASE {} OWNER TO {}").format(database, sql.Identifier(made.owner)))
    yield made
    with made.connect() as admin:
        admin.execute(sql.SQL("ALTER DATABASE {} OWNER TO CURRENT_USER").format(database))
        for role in (made.app, made.owner):
            admin.execute(sql.SQL("DROP OWNED BY {} CASCADE").format(sql.Identifier(role)))
            admin.execute(sql.SQL("DROP ROLE {}").format(sql.Identifier(role)))


REFUSED = """
UPDATE audit SET actor = 'x'
UPDATE audit_checkpoints SET body = ''
DELETE FROM audit
DELETE FROM audit_checkpoints
TRUNCATE audit
TRUNCATE audit_checkpoints
ALTER TABLE audit DISABLE TRIGGER ALL
ALTER TABLE audit ALTER COLUMN actor DROP NOT NULL
ALTER TABLE audit RENAME TO audit_before
ALTER TABLE audit SET SCHEMA procrastinate
ALTER TABLE audit_checkpoints OWNER TO CURRENT_USER
ALTER FUNCTION audit_follows() RENAME TO f
CREATE OR REPLACE FUNCTION audit_follows() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'
CREATE TRIGGER first BEFORE INSERT ON audit FOR EACH ROW EXECUTE FUNCTION audit_append_only()
CREATE RULE silent AS ON INSERT TO audit DO INSTEAD NOTHING
CREATE POLICY hidden ON audit USING (false)
DROP TRIGGER append_only ON audit
DROP TABLE audit
DROP TABLE audit_checkpoints
DROP FUNCTION audit_follows() CASCADE
DROP SCHEMA public CASCADE
UPDATE alembic_version SET version_num = '0009'
SET session_replication_role = replica
DO $$ BEGIN LOCK TABLE audit IN ACCESS EXCLUSIVE MODE; END $$
"""


async def test_the_processes_role_can_read_and_add_and_nothing_else(divided: Divided) -> None:
    divided.prepare()
    divided.prepare()  # a second start changes nothing
    engine = store.create_engine(divided.dsn(divided.app))
    async with store.transaction(store.sessions(engine)) as session:
        await audit.append(session, "written", actor=Actor("ann"), object="model:fraud", trigger="test")
    with divided.connect(divided.app) as app:
        for statement in REFUSED.strip().splitlines():
            with pytest.raises((errors.InsufficientPrivilege, errors.WrongObjectType)):
                app.execute(statement.encode())
            assert app.execute("SELECT count(*) FROM audit").fetchone() == (1,), statement
        granted = app.execute("GRANT DELETE ON audit TO CURRENT_USER")  # a warning, no error: it has nothing to give
        assert granted.statusmessage == "GRANT"
        with pytest.raises(errors.InsufficientPrivilege):
            app.execute("DELETE FROM audit")
    async with store.sessions(engine)() as session:
        found = await audit.verify(session)
    await engine.dispose()
    assert (found.links, found.first_bad) == (1, None)


async def test_what_the_processes_create_and_drop_they_still_do(divided: Divided) -> None:
    divided.prepare()
    dsn = divided.dsn(divided.app)
    engine: AsyncEngine = store.create_engine(dsn)
    queue.prepare(dsn)  # as a worker does: it is there
    day = datetime(2026, 3, 1, tzinfo=UTC)
    async with ingest.connection(engine) as connection:
        await ingest.make_partitions(connection, {day.date()})
    async with store.transaction(store.sessions(engine)) as session:
        assert [found.date() for found in await log_archive.partitions(session, before=datetime.now(UTC))] == [
            day.date()
        ]
        assert await log_archive.drop(session, day, now=datetime.now(UTC)) is None
        job = await jobs.want(session, "archive", None, {}, created_by="test", now=day)

    async def carry_out(_: object) -> None:
        """Never asked: nothing works here."""

    async with queue.opened(dsn, carry_out) as opened:
        await opened.put(job, "archive")
        assert await opened.abandoned() == []
        await opened.put(ids.new(), "report")
    await engine.dispose()


async def test_an_existing_installation_of_one_role_is_divided_with_its_data(divided: Divided) -> None:
    before = divided.dsn(divided.app)  # what was the only role
    with divided.connect() as admin:
        admin.execute(sql.SQL("GRANT ALL ON SCHEMA public TO {}").format(sql.Identifier(divided.app)))
        name = sql.Identifier(str(make_url(divided.admin).database))
        admin.execute(sql.SQL("GRANT CREATE ON DATABASE {} TO {}").format(name, sql.Identifier(divided.app)))
    command.upgrade(migrate.config(before), "0009")
    queue.prepare(before)
    engine = store.create_engine(before)
    async with store.transaction(store.sessions(engine)) as session:
        for _ in range(3):
            await audit.append(session, "written", actor=Actor("ann"), object="model:fraud", trigger="test")
    divided.prepare()
    async with store.transaction(store.sessions(engine)) as session:
        await audit.append(session, "written", actor=Actor("ann"), object="model:fraud", trigger="test")
        found = await audit.verify(session)
    await engine.dispose()
    assert (found.links, found.first_bad) == (4, None)
    with divided.connect(divided.app) as app, pytest.raises(errors.InsufficientPrivilege):
        app.execute("DELETE FROM audit")


def test_a_process_of_the_processes_role_alone_prints_the_first_keys_and_those_printed_before_end(
    divided: Divided, tmp_path: Path
) -> None:
    """As `kubectl exec deploy/api` does, where the owner's DSN is the migrations' alone."""
    divided.prepare()
    env = {**os.environ, "MLCP_POSTGRES_DSN": divided.dsn(divided.app), "MLCP_HOME": str(tmp_path / "none")}
    printed: list[dict[str, str]] = []
    for _ in range(2):
        argv = [sys.executable, "-m", "control_plane.api.init", "--print-keys"]
        done = subprocess.run(argv, env=env, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        printed.append(json.loads(done.stdout))
    assert [one.keys() for one in printed] == [{"admin", "approver", "predictor"}] * 2
    assert len({key for one in printed for key in one.values()}) == 6
    with divided.connect(divided.app) as app:
        assert app.execute("SELECT count(*) FROM api_keys WHERE revoked_at IS NULL").fetchone() == (3,)
    assert not (tmp_path / "none").exists()


def test_one_role_for_everything_changes_nothing(dsn: str) -> None:
    assert not roles.settle(dsn, roles.name_in(dsn))
