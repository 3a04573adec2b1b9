"""What routers ask the API when the bus is down, MLflow's webhooks, and the wake-ups of the reconciler."""

import asyncio
import base64
import hmac
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest
from pydantic import SecretStr
from sqlalchemy import make_url, text

from control_plane.adapters.store import snapshots
from control_plane.settings import ApiSettings
from tests.support.api import Api, add_model, serving

pytestmark = pytest.mark.integration


async def publish(api: Api, revision: int, document: bytes) -> None:
    async with api.maker.begin() as session:
        await snapshots.add(session, epoch=1, revision=revision, document=document, content_hash=b"h")


async def test_a_router_gets_a_newer_snapshot_as_soon_as_there_is_one(api: Api) -> None:
    router = api.client("router-token")
    await publish(api, 1, b'{"one":1}')
    first = await router.get("/snapshot")
    assert (first.status_code, first.content) == (200, b'{"one":1}')
    known = {"epoch": 1, "revision": 1}
    assert (await router.get("/snapshot", params=known)).status_code == 304
    waiting = asyncio.create_task(router.get("/snapshot", params={**known, "wait_s": 20}))
    await asyncio.sleep(0.2)
    began = time.monotonic()
    await publish(api, 2, b'{"two":2}')
    second = await waiting
    assert (second.status_code, second.content) == (200, b'{"two":2}')
    assert time.monotonic() - began < 5
    higher = {"epoch": 2, "revision": 0}
    assert (
        await router.get("/snapshot", params=higher)
    ).status_code == 304  # a higher epoch wins whatever the revision


async def test_many_waiting_routers_hold_no_database_connection(api: Api) -> None:
    await publish(api, 1, b"{}")
    router = api.client("router-token")
    params = {"epoch": 1, "revision": 1, "wait_s": 3}
    waiting = [asyncio.create_task(router.get("/snapshot", params=params)) for _ in range(30)]
    await asyncio.sleep(0.5)
    viewer = await api.as_("viewer")
    assert (await viewer.get("/models")).status_code == 200
    assert {answer.status_code for answer in await asyncio.gather(*waiting)} == {304}


async def test_a_report_is_kept_under_the_routers_name(api: Api) -> None:
    router = api.client("router-token")
    pin = {"fraud": {"target": "t", "version": "1", "person": "ann", "reason": "x", "at": 1.0}}
    for revision in (4, 5):
        body: dict[str, Any] = {"epoch": 1, "revision": revision, "pins": pin, "rejected": "bad sum", "at": 1.0}
        assert (await router.post("/routers/host-1", json=body)).status_code == 204
    async with api.maker.begin() as session:
        rows = (await session.execute(text("SELECT router_id, revision, pins, rejected FROM routers"))).all()
    assert [tuple(row) for row in rows] == [("host-1", 5, pin, "bad sum")]


@asynccontextmanager
async def woken(dsn: str) -> AsyncIterator[list[str]]:
    """What is notified while inside."""
    heard: list[str] = []
    plain = make_url(dsn).set(drivername="postgresql").render_as_string(hide_password=False)
    async with await psycopg.AsyncConnection.connect(plain, autocommit=True) as connection:
        await connection.execute("LISTEN mlcp_wake")
        yield heard
        heard.extend([notice.payload async for notice in connection.notifies(timeout=1)])


async def test_what_changes_releases_wakes_the_reconciler_and_a_refusal_does_not(api: Api, dsn: str) -> None:
    await add_model(api.maker)
    operator = await api.as_("operator")
    async with woken(dsn) as heard:
        await operator.post("/models/fraud/promote/production", json={"version": "1"})
        await operator.post("/models/fraud/promote/production", json={"version": "2"})  # refused: one is open
        await operator.post("/models/fraud/rollback", json={"reason": "x"})
    assert len(heard) == 2
    assert heard[0] == "promote fraud"


async def test_mlflows_webhook_is_believed_by_its_signature_or_a_key(dsn: str, api: Api, home: Path) -> None:
    settings = ApiSettings(postgres_dsn=SecretStr(dsn), mlflow_webhook_secret=SecretStr("hook"), home=home)
    body = b'{"entity":"model_version","action":"created"}'

    def signed(secret: str, at: float) -> dict[str, str]:
        delivery, stamp = "d-1", str(int(at))
        mac = hmac.new(secret.encode(), f"{delivery}.{stamp}.".encode() + body, sha256).digest()
        signature = "v1," + base64.b64encode(mac).decode()
        return {"X-MLflow-Signature": signature, "X-MLflow-Delivery-Id": delivery, "X-MLflow-Timestamp": stamp}

    key = await api.key("operator")
    async with serving(settings) as url, httpx.AsyncClient(base_url=url) as client, woken(dsn) as heard:
        post, now = client.post, time.time()
        path = "/api/v1/webhooks/mlflow"
        assert (await post(path, content=body, headers=signed("hook", now))).status_code == 202
        assert (await post(path, content=body, headers=signed("wrong", now))).status_code == 401
        assert (await post(path, content=body + b" ", headers=signed("hook", now))).status_code == 401
        assert (await post(path, content=body, headers=signed("hook", now - 3_600))).status_code == 401  # a replay
        assert (await post(path, content=body)).status_code == 401
        assert (await post(path, content=body, headers={"Authorization": f"Bearer {key}"})).status_code == 202
    assert heard == ["mlflow", "mlflow"]
