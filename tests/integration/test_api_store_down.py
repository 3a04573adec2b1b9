"""Postgres away: 503 with a problem document, and back without a restart."""

import asyncio
from pathlib import Path

import httpx
import pytest
from pydantic import SecretStr
from sqlalchemy import make_url, text
from sqlalchemy.ext.asyncio import AsyncEngine

from control_plane.settings import ApiSettings
from tests.support.api import Api, add_model, serving
from tests.support.processes import eventually

pytestmark = pytest.mark.integration


@pytest.mark.parametrize("where", ["127.0.0.1:1/none", "/none?host=/no/such/folder"])
async def test_a_dead_postgres_is_503_and_shows_nothing_of_the_inside(home: Path, where: str) -> None:
    dead = SecretStr(f"postgresql+asyncpg://someone:s3cret@{where}")
    async with serving(ApiSettings(postgres_dsn=dead, home=home)) as url, httpx.AsyncClient(base_url=url) as client:
        for path, key in (("/health", ""), ("/models", "Bearer mlcp_x")):
            answer = await client.get(path, headers={"Authorization": key})
            assert (answer.status_code, answer.json()["type"].rsplit("/")[-1]) == (503, "store-unavailable")
            assert answer.headers["retry-after"] == "1"
            assert "s3cret" not in answer.text
            assert where not in answer.text
        assert (await client.get("/models")).status_code == 401  # no key: nobody needs to be asked


async def test_connections_cut_by_the_server_are_made_again(api: Api, engine: AsyncEngine) -> None:
    await add_model(api.maker)
    viewer = await api.as_("viewer")
    assert (await viewer.get("/models")).status_code == 200
    async with engine.begin() as connection:
        others = "pid <> pg_backend_pid() AND datname = current_database()"
        await connection.execute(text(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE {others}"))
    assert (await viewer.get("/models")).status_code == 200


async def test_a_transaction_cut_off_in_the_middle_is_503_not_500(api: Api, engine: AsyncEngine) -> None:
    await add_model(api.maker)
    operator = await api.as_("operator")
    async with engine.connect() as holder:
        await holder.execute(text("SELECT 1 FROM models WHERE name = 'fraud' FOR UPDATE"))
        waiting = asyncio.create_task(operator.post("/models/fraud/promote/production", json={"reason": "x"}))
        blocked = "wait_event_type = 'Lock' AND datname = current_database()"
        ended = text(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE {blocked}")

        async def cut() -> bool:
            async with engine.connect() as other:  # within one transaction that view never changes
                return bool(await other.scalar(ended))

        await eventually(cut, what="the promotion waits for the row")
        answer = await waiting
    assert (answer.status_code, answer.json()["type"].rsplit("/")[-1]) == (503, "store-unavailable")
    again = await operator.post("/models/fraud/promote/production", json={"reason": "x"})
    assert again.status_code == 202


async def test_health_says_what_is_missing_and_works_behind_a_transaction_pooler(dsn: str, home: Path) -> None:
    assert make_url(dsn).drivername == "postgresql+asyncpg"
    settings = ApiSettings(postgres_dsn=SecretStr(dsn), transaction_pooler=True, home=home)
    async with serving(settings) as url, httpx.AsyncClient(base_url=url) as client:
        answer = (await client.get("/api/v1/health")).json()
    assert (answer["status"], answer["checks"]["postgres"]) == ("degraded", "ok")
    assert "no reconciler leads" in answer["checks"]["reconciler"]
