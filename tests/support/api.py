"""The admin API on a real port, with people who may use it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import uvicorn
from sqlalchemy import insert, text
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker
from starlette.types import ASGIApp

from control_plane.adapters.metrics import Metrics
from control_plane.adapters.store.tables import ModelRow, ModelVersionRow
from control_plane.api.app import create_app
from control_plane.contracts.keys import KeySpec
from control_plane.domain.audit import Actor
from control_plane.domain.governance import Role
from control_plane.services import keys
from control_plane.services.cutover import Cause
from control_plane.settings import ApiSettings

SETUP = Cause(Actor("test"), "test")
T0 = datetime(2026, 1, 1, tzinfo=UTC)
CONFIG: dict[str, Any] = {
    "name": "fraud",
    "problem": "binary",
    "features": {"amount": {"type": "number"}, "country": {"type": "category", "nullable": True}},
    "target": {"column": "is_fraud", "positive": 1},
    "metric": {"name": "average_precision", "minimum": 0.5},
    "costs": {"false_negative": 100.0},
    "decision": {"positive": "block", "negative": "allow"},
}
EVIDENCE: dict[str, Any] = {
    "format": 1,
    "metric": {"name": "average_precision", "value": 0.72, "holdout_rows": 5_000, "low": 0.69, "high": 0.75},
    "production": None,
    "cost": {"model": 120.0, "trivial": 900.0, "currency": "EUR"},
    "data": {"validated": True, "sha256": "aa", "rows": 20_000, "holdout": {"sha256": "aa"}},
    "metrics": {"recall": 0.8},
}


@asynccontextmanager
async def serving(settings: ApiSettings, metrics: Metrics | None = None) -> AsyncIterator[str]:
    """URL of the API on a real port: settings, lifespan, middleware and error handlers all run."""
    async with on_a_port(create_app(settings, metrics=metrics)) as url:
        yield url


@asynccontextmanager
async def on_a_port(app: ASGIApp) -> AsyncIterator[str]:
    """URL of an application on a real port, in this process."""
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="critical", lifespan="on"))
    task = asyncio.create_task(server.serve())
    while not (server.started or task.done()):  # noqa: ASYNC110  (uvicorn has no event to wait on)
        await asyncio.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        await task


@dataclass(frozen=True, slots=True)
class Api:
    """A running API. `as_(role)` is a client with that role's key on the models given."""

    url: str
    maker: async_sessionmaker[AsyncSession]
    clients: list[httpx.AsyncClient] = field(default_factory=list[httpx.AsyncClient])

    def client(self, key: str | None = None) -> httpx.AsyncClient:
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        made = httpx.AsyncClient(base_url=f"{self.url}/api/v1", headers=headers, timeout=240)
        self.clients.append(made)
        return made

    async def key(self, role: Role | str, *models: str, **more: Any) -> str:
        spec = {"person": f"{role}-person", "role": role, "models": list(models) or ["*"], "reason": "a test", **more}
        async with self.maker.begin() as session:
            made = await keys.create(session, KeySpec.model_validate(spec), cause=SETUP, now=datetime.now(UTC))
        return made.secret

    async def as_(self, role: Role | str, *models: str) -> httpx.AsyncClient:
        return self.client(await self.key(role, *models))

    async def close(self) -> None:
        for client in self.clients:
            await client.aclose()


async def add_model(maker: async_sessionmaker[AsyncSession], name: str = "fraud", versions: int = 2) -> None:
    """A model with that many versions in Development which pass every gate."""
    async with maker.begin() as session:
        await session.execute(insert(ModelRow).values(name=name, created_at=T0, salt=f"salt-{name}", revision=1))
    for number in range(1, versions + 1):
        await add_version(maker, name, str(number))


async def add_version(maker: async_sessionmaker[AsyncSession], name: str, version: str, **changed: Any) -> None:
    """One more version; `changed`: columns that differ from one that passes."""
    row = {
        "model": name,
        "version": version,
        "stage": "Development",
        "stage_since": T0,
        "run_id": f"run-{version}",
        "source": f"mlflow-artifacts:/{name}/{version}",
        "digest": f"sha256:{version:0>64}",
        "digest_from": "registration",
        "runtime": "native",
        "config": {**CONFIG, "name": name},
        "inferred": False,
        "evidence": EVIDENCE,
        "semver": f"1.0.{version}",
        "created_at": T0 + timedelta(minutes=int(version)),
        "discovered_at": T0 + timedelta(minutes=int(version)),
    }
    async with maker.begin() as session:
        await session.execute(insert(ModelVersionRow).values({**row, **changed}))


TABLES = "models model_versions stage_events rollouts deployments audit jobs_wanted outcomes principals"
TABLES += " approvals approval_votes"


async def everything(maker: async_sessionmaker[AsyncSession]) -> dict[str, object]:
    """A print of every table a refused request must leave as it was (of keys, the use is noted anyway)."""
    found: dict[str, object] = {}
    async with maker.begin() as session:
        for table in [*TABLES.split(), "idempotency_keys", "api_keys"]:
            rows = f"SELECT (to_jsonb(t) - 'last_used_at')::text AS r FROM {table} t"
            digest = f"SELECT md5(coalesce(string_agg(r, '' ORDER BY r), '')) FROM ({rows}) s"
            found[table] = await session.scalar(text(digest))
    return found
