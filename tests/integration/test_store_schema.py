import asyncio
import sys
from datetime import UTC, datetime
from uuid import UUID

import pytest
from alembic import command
from sqlalchemy import insert, text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker

from control_plane.adapters.store import ids, migrate
from control_plane.adapters.store.tables import ModelVersionRow, PredictionRow

pytestmark = pytest.mark.integration
NOW = datetime(2026, 1, 1, tzinfo=UTC)
VERSION = {"model": "m", "stage_since": NOW, "source": "s", "config": {}, "created_at": NOW, "discovered_at": NOW}


def test_the_migrations_build_exactly_what_the_tables_declare(dsn: str) -> None:
    command.check(migrate.config(dsn))


def test_the_migrations_can_be_taken_back_and_applied_again(empty_database: str) -> None:
    migrate.upgrade(empty_database)
    command.downgrade(migrate.config(empty_database), "base")
    migrate.upgrade(empty_database)
    command.check(migrate.config(empty_database))


async def test_two_processes_may_migrate_at_once(empty_database: str) -> None:
    program = f"from control_plane.adapters.store import migrate; migrate.upgrade({empty_database!r})"
    argv = [sys.executable, "-c", program]
    both = await asyncio.gather(*(asyncio.create_subprocess_exec(*argv) for _ in range(2)))
    assert [await process.wait() for process in both] == [0, 0]


async def test_a_model_never_has_two_production_versions(maker: async_sessionmaker[AsyncSession]) -> None:
    async with maker.begin() as session:
        await session.execute(insert(ModelVersionRow).values(**VERSION, version="1", stage="Production"))
    with pytest.raises(IntegrityError, match="one_production"):
        async with maker.begin() as session:
            await session.execute(insert(ModelVersionRow).values(**VERSION, version="2", stage="Production"))


async def test_a_prediction_without_its_day_partition_is_refused_not_hidden(engine: AsyncEngine) -> None:
    row = {"day": NOW, "prediction_id": ids.new(), "model": "m", "status": "ok", "received_at": NOW, "latency_us": 1}
    row |= {"epoch": 1, "revision": 1, "pinned": False, "shadow": False}
    with pytest.raises(IntegrityError, match="no partition"):
        async with engine.begin() as connection:
            await connection.execute(insert(PredictionRow).values(**row))


async def test_an_absent_document_is_a_null_of_sql(maker: async_sessionmaker[AsyncSession]) -> None:
    async with maker.begin() as session:
        await session.execute(text("INSERT INTO models (name, created_at, salt, revision) VALUES ('m', now(), 's', 1)"))
        await session.execute(text("UPDATE models SET traffic = NULL"))
        assert await session.scalar(text("SELECT count(*) FROM models WHERE traffic IS NULL")) == 1


def test_an_id_carries_its_time_and_its_version() -> None:
    identity = ids.new(at_ms=1_767_225_600_123)
    assert (identity.version, identity.variant) == (7, "specified in RFC 4122")
    assert ids.born(identity) == datetime(2026, 1, 1, 0, 0, 0, 123_000, tzinfo=UTC)
    assert ids.new(1) < ids.new(2)
    with pytest.raises(ValueError, match="not a UUIDv7"):
        ids.born(UUID(int=0))
