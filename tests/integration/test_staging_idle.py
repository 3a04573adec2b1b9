"""A version in Staging that nobody asks for runs no servers, and does again as soon as somebody asks."""

import time
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from control_plane.adapters import bus
from control_plane.adapters.store import routers
from tests.support.data_plane import ADMIN, client, document, target, worker
from tests.support.fake_model_server import FakeModelServer, serving
from tests.support.processes import eventually
from tests.support.reconciler import add_versions, environment, reconciler, routed, router, supervisor

pytestmark = pytest.mark.integration
Sessions = async_sessionmaker[AsyncSession]


async def test_a_staged_version_nobody_asks_for_is_stopped_and_started_again_when_somebody_does(
    maker: Sessions, dsn: str, redis: str, home: Path, tmp_path: Path
) -> None:
    await add_versions(maker, "m", "1", "2", home=home)
    async with maker.begin() as session:
        staged = "UPDATE model_versions SET stage = 'Staging', stage_since = clock_timestamp() WHERE version = '2'"
        await session.execute(text(staged))
    env = environment(dsn, redis, home) | {"MLCP_STAGING_IDLE_S": "3600", "MLCP_WARM_S": "0"}
    async with supervisor(home), router(redis) as report:

        async def runs() -> bool:
            _, route = await routed(maker, "m")
            return route is not None and [one.version for one in route.targets.values()] == ["2"]

        async def sleeps() -> bool:
            _, route = await routed(maker, "m")
            asleep = route is not None and not route.targets and route.sleeping == ("2",)
            return asleep and not any((home / "run" / "wanted").glob("*.json"))

        async def a_day_passes(column: str) -> None:
            async with maker.begin() as session:
                await session.execute(text(f"UPDATE model_versions SET {column} = {column} - interval '1 day'"))

        with reconciler(env, tmp_path / "log"):
            await eventually(runs, what="a version that came to Staging runs")
            await a_day_passes("stage_since")
            await eventually(sleeps, what="nobody asked: it was stopped")
            _, route = await routed(maker, "m")
            assert route is not None
            assert route.aliases == {"staging": "2"}, "requests may go on naming it"
            report["asked"] = {"m": {"2": time.time()}}
            await eventually(runs, what="asked for, it runs again")
            await a_day_passes("asked_at")
            await eventually(sleeps, what="and stops again")


async def test_what_a_router_notes_of_requests_is_the_newest_and_never_in_the_future(maker: Sessions) -> None:
    await add_versions(maker, "m", "1")

    async def asked(at: float) -> float:
        async with maker.begin() as session:
            await routers.asked(session, routers.flat({"m": {"1": at, "9": at}, "unknown": {"1": at}}))
            row = await session.execute(text("SELECT extract(epoch FROM asked_at) FROM model_versions"))
            return float(row.scalar_one())

    now = time.time()
    assert await asked(now - 100) == pytest.approx(now - 100, abs=0.001)
    assert await asked(now - 50) == pytest.approx(now - 50, abs=0.001)
    assert await asked(now - 80) == pytest.approx(now - 50, abs=0.001)
    assert await asked(now + 9_999) == pytest.approx(now, abs=60)


async def test_who_names_a_stopped_version_is_told_to_come_back_and_the_control_plane_hears_of_it(
    home: Path, redis: str, tmp_path: Path
) -> None:
    one = FakeModelServer(tmp_path / "1.sock", "1")
    aliases = {"production": "1", "staging": "2"}
    sealed = document(1, target("1", one.address), sleeping=("2",), aliases=aliases)
    publisher = bus.connect(redis)
    await bus.publish_snapshot(publisher, sealed, 1, 1)

    async def heard() -> set[str]:
        reports = (await bus.router_reports(publisher)).values()
        return {version for report in reports for version in dict(report.get("asked") or {}).get("churn", {})}  # type: ignore[call-overload]

    async with serving(one), worker(home, redis) as url, client(url) as product, client(url, ADMIN) as admin:

        async def routed() -> bool:
            return (await product.post("/ml/churn/predict", json={"features": {"a": 1}})).status_code == 200

        await eventually(routed, what="an answer")
        body = {"features": {"a": 1}, "model_version": "2"}
        assert (await product.post("/ml/churn/predict", json=body)).status_code == 403
        assert (await admin.post("/ml/churn/predict", json=body | {"model_version": "9"})).status_code == 404
        assert await heard() == set(), "who may not name a version starts none"
        for path, asking in (
            ("/ml/churn/predict", body),
            ("/ml/churn/predict", body | {"model_version": "staging"}),
            ("/v2/models/churn/versions/2/infer", {"inputs": [_tensor("a")]}),
        ):
            refused = await admin.post(path, json=asking)
            assert (refused.status_code, refused.headers["retry-after"]) == (503, "1"), refused.text
            assert "being started" in refused.text
        assert (await admin.get("/v2/models/churn/versions/2/ready")).status_code == 404

        async def both() -> bool:
            named = await admin.post("/ml/churn/predict", json=body | {"model_version": "production"})
            return named.status_code == 200 and await heard() == {"1", "2"}

        await eventually(both, what="both versions in the report")
    await publisher.aclose()


def _tensor(name: str) -> dict[str, object]:
    return {"name": name, "shape": [1], "datatype": "FP64", "data": [1.0]}
