"""What a version is compared with: its own profile.json, or the first answers of one that brought none."""

import json
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from pydantic import SecretStr
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from control_plane.adapters.metrics import Metrics
from control_plane.adapters.registry import Registry
from control_plane.adapters.store import drift as store
from control_plane.domain.drift import document, first_traffic, fold
from control_plane.domain.drift.profiles import Categorical, Numeric
from control_plane.domain.model_config import FeatureType
from control_plane.errors import NotFound
from control_plane.settings import WorkerSettings
from control_plane.worker.monitor import Gauges, Monitor
from tests.support.api import Api, add_model, add_version

pytestmark = pytest.mark.integration
Sessions = async_sessionmaker[AsyncSession]
PROFILE = document.to_json(
    fold.reference(
        {"amount": np.arange(500.0), "country": ["fr"] * 500},
        {"amount": FeatureType.NUMBER, "country": FeatureType.CATEGORY},
        cells=fold.Cells(),
        prediction=(FeatureType.NUMBER, np.linspace(0, 1, 500)),
    )
)


class Artifacts(Registry):
    """A registry whose versions have these files."""

    def __init__(self, files: dict[str, bytes]) -> None:
        self._files = files

    async def read(self, model: str, version: str, path: str, *, limit: int = 4 * 2**20) -> bytes:
        if path not in self._files:
            raise NotFound(f"no {path}")
        return self._files[path]


@pytest.fixture
def monitor(maker: Sessions, dsn: str, home: Path) -> Monitor:
    settings = WorkerSettings(postgres_dsn=SecretStr(dsn), home=home)
    metrics = Metrics(home / "run" / "metrics", "worker")
    return Monitor(settings, maker, Artifacts({}), Gauges(metrics))


async def in_production(maker: Sessions) -> None:
    await add_model(maker, "fraud", versions=0)
    await add_version(maker, "fraud", "1", stage="Production")
    async with maker.begin() as session:
        await session.execute(text("UPDATE models SET production_version = '1'"))


async def answered(maker: Sessions, count: int, *, start: int = 1) -> None:
    now = datetime.now(UTC)
    day = now.replace(hour=0, minute=0, second=0, microsecond=0)
    async with maker.begin() as session:
        await session.execute(
            text(f"CREATE TABLE IF NOT EXISTS p1 PARTITION OF predictions FOR VALUES FROM ('{day}') TO ('infinity')")
        )
        await session.execute(
            text(
                "INSERT INTO predictions (day, prediction_id, model, status, received_at, latency_us, epoch, revision, "
                "served_version, pinned, shadow, features, output) SELECT :day, gen_random_uuid(), 'fraud', 'ok', "
                "CAST(:now AS timestamptz) + i * interval '1 microsecond', 1, 1, 1, '1', false, false, "
                "jsonb_build_object('amount', i % 100, 'country', CASE WHEN i % 3 = 0 THEN 'fr' ELSE 'de' END), "
                "jsonb_build_object('probability', (i % 10) / 10.0) "
                "FROM generate_series(CAST(:start AS int), CAST(:last AS int)) i"
            ),
            {"day": day, "now": now, "start": start, "last": start + count - 1},
        )


async def found(maker: Sessions) -> store.Reference | None:
    async with maker() as session:
        return await store.reference(session, "fraud", "1")


async def test_a_version_of_the_pipeline_brings_its_own(maker: Sessions, monitor: Monitor) -> None:
    await in_production(maker)
    await monitor()
    assert await found(maker) is None
    files = {"artifacts/native/profile.json": json.dumps(PROFILE).encode()}
    await Monitor(monitor.settings, maker, Artifacts(files), monitor.gauges)()
    reference = await found(maker)
    assert reference is not None
    assert (reference.source, reference.profile.rows) == ("training", 500)
    await Monitor(monitor.settings, maker, Artifacts({}), monitor.gauges)()
    again = await found(maker)
    assert again is not None
    assert again.created_at == reference.created_at


async def test_a_profile_that_breaks_the_look_holds_up_no_other_version(maker: Sessions, monitor: Monitor) -> None:
    for model in ("apples", "fraud"):
        await add_model(maker, model, versions=0)
        await add_version(maker, model, "1", stage="Production")

    class Broken(Artifacts):
        async def read(self, model: str, version: str, path: str, *, limit: int = 4 * 2**20) -> bytes:
            if model == "apples":
                raise RuntimeError("not foreseen")
            return await super().read(model, version, path, limit=limit)

    files = {"artifacts/native/profile.json": json.dumps(PROFILE).encode()}
    await Monitor(monitor.settings, maker, Broken(files), monitor.gauges)()
    assert await found(maker) is not None


async def test_one_that_brought_none_is_compared_with_its_first_answers(maker: Sessions, monitor: Monitor) -> None:
    await in_production(maker)
    broken = Artifacts({"profile.json": b'{"format": 99}'})
    await answered(maker, first_traffic.ROWS - 1)
    await Monitor(monitor.settings, maker, broken, monitor.gauges)()
    assert await found(maker) is None, "one answer too few"
    await answered(maker, 1, start=first_traffic.ROWS)
    await Monitor(monitor.settings, maker, broken, monitor.gauges)()
    reference = await found(maker)
    assert reference is not None
    assert (reference.source, reference.profile.rows) == ("first_traffic", first_traffic.ROWS)
    country, prediction = reference.profile.features["country"], reference.profile.prediction
    assert isinstance(country, Categorical)
    assert country.categories == {"de": 1334, "fr": 666}
    assert isinstance(prediction, Numeric)
    assert prediction.moments.mean == pytest.approx(0.45)


async def test_the_api_says_who_looked_and_what_was_found(api: Api, maker: Sessions, monitor: Monitor) -> None:
    await in_production(maker)
    viewer = await api.as_("viewer")
    before = (await viewer.get("/models/fraud/drift")).json()
    assert before["looked_at"] is None
    assert before["note"]
    files = {"artifacts/native/profile.json": json.dumps(PROFILE).encode()}
    await Monitor(monitor.settings, maker, Artifacts(files), monitor.gauges)()
    after = (await viewer.get("/models/fraud/drift")).json()
    assert {reading["kind"]: reading["verdict"] for reading in after["readings"]} == dict.fromkeys(
        ("data", "prediction", "target", "performance", "quality"), "inconclusive"
    )
    assert all(reading["why"] and reading["score"] is None for reading in after["readings"])
    assert [feature["verdict"] for feature in after["features"]] == ["inconclusive"] * 2
    assert (await viewer.get("/models/nosuch/drift")).status_code == 404
    assert (await viewer.get("/models/fraud/drift?days=0")).status_code == 422
