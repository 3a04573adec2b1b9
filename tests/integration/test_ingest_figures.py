"""Availability and business figures: folded once, by brute force the same, shown in metrics and performance."""

import asyncio
import json
import os
import random
import subprocess
import sys
from collections import defaultdict
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from control_plane.adapters import bus
from control_plane.adapters.metrics import Metrics
from control_plane.ingest.business import Business
from control_plane.ingest.figures import Figures
from tests.integration.test_ingest_fold import Bench, record, started
from tests.support.api import CONFIG, Api, add_model

pytestmark = pytest.mark.integration
BUSINESS = {
    "blocked_amount": {"kind": "sum", "feature": "amount", "decision": "block", "unit": "EUR"},
    "blocked": {"kind": "count", "decision": "block"},
    "decided": {"kind": "count"},
    "saving": {"kind": "expected_saving", "unit": "EUR"},
}
COSTS = {"false_positive": 5, "false_negative": 100, "true_positive": 2, "false_negative_column": "amount"}


@pytest.fixture
async def bench(engine: AsyncEngine, redis: str, home: Path) -> AsyncIterator[Bench]:
    client = bus.connect(redis, timeout_s=5)
    async with started(engine, client, redis, home, (Business().fold,)) as made:
        yield made
    await client.aclose()


async def declare(api: Api) -> None:
    await add_model(api.maker)
    config = json.dumps({**CONFIG, "costs": COSTS, "business": BUSINESS})
    async with api.maker.begin() as session:
        await session.execute(text("UPDATE model_versions SET config = CAST(:config AS jsonb)"), {"config": config})
        await session.execute(text("UPDATE models SET production_version = '1'"))


async def test_figures_equal_those_computed_by_hand_and_count_each_prediction_once(bench: Bench, api: Api) -> None:
    await declare(api)
    draw = random.Random(7)
    payloads, expected = list[bytes](), defaultdict[tuple[str, str], float](float)
    for number in range(200):
        amount, p = round(draw.uniform(1, 900), 2), round(draw.random(), 3)
        decision, version = ("block" if p > 0.5 else "allow"), draw.choice("12")
        odd = {3: "much", 4: None}.get(number, amount)
        shadow, status = number % 10 == 5, "invalid" if number % 10 == 6 else "ok"
        made = {"features": {"amount": odd}, "output": {"probability": p}, "decision": decision}
        payloads.append(record(model="fraud", served_version=version, shadow=shadow, status=status, **made))
        if shadow or status != "ok":
            continue
        expected[version, "decided"] += 1
        cost = amount if odd == amount else 100
        saving = p * cost - p * 2 - (1 - p) * 5 if decision == "block" else 0
        expected[version, "saving"] += saving
        if decision == "block":
            expected[version, "blocked"] += 1
            expected[version, "blocked_amount"] += odd if isinstance(odd, float) else 0
    batch = bench.batch(*payloads)
    await bench.fold(batch, batch)
    rows = await bench.all("SELECT version, name, sum(total) AS total FROM business_windows GROUP BY 1, 2")
    found = {(row["version"], row["name"]): row["total"] for row in rows}
    assert found == pytest.approx(dict(expected))

    viewer = await api.as_("viewer")
    shown = (await viewer.get("/models/fraud/performance")).json()
    assert {(f["version"], f["name"]): f["total"] for f in shown["business"]} == pytest.approx(dict(expected))
    assert {f["name"]: (f["kind"], f["unit"]) for f in shown["business"]} == {
        name: (spec["kind"], spec.get("unit", "")) for name, spec in BUSINESS.items()
    }


async def test_availability_is_answered_of_asked_within_the_window(bench: Bench, api: Api) -> None:
    await declare(api)
    failed = [record(model="fraud", status=status, served_version=None) for status in ("error", "timeout", "shed")]
    apart = [record(model="fraud", status="error", pinned=True), record(model="fraud", status="error", shadow=True)]
    answered = [record(model="fraud") for _ in range(16)] + [record(model="fraud", status="invalid")]
    await bench.fold(bench.batch(*answered, *failed, *apart))
    viewer = await api.as_("viewer")
    shown = (await viewer.get("/models/fraud/performance")).json()["availability"]
    assert shown == {"asked": 20, "answered": 17, "share": 0.85, "objective": 0.999, "met": False}
    unasked = await viewer.get("/models/fraud/performance", params={"period": "1m"})
    assert unasked.status_code == 200

    metrics = Metrics(bench.home / "run" / "figures", "ingester")
    async with api.maker() as session:
        await Figures(metrics).refresh(session, datetime.now(UTC))
    lines = metrics.render().decode().splitlines()
    assert 'model_availability{model_name="fraud",period="30d"} 0.85' in lines
    blocked = 'model_business_value{metric="blocked",model_name="fraud",period="24h",unit=""} '
    assert f"{blocked}0.0" in lines
    decided = 'model_business_value{metric="decided",model_name="fraud",period="24h",unit=""} '
    assert f"{decided}16.0" in lines
    assert 'mlflow_active_models{service_name="mlcp"} 1.0' in lines


async def test_a_first_refusal_of_training_data_is_a_rise_from_zero(api: Api, tmp_path: Path) -> None:
    await add_model(api.maker)
    metrics = Metrics(tmp_path / "run" / "metrics", "ingester")
    gauges = Figures(metrics)
    async with api.maker() as session:
        await gauges.refresh(session, datetime.now(UTC))
    series = 'model_training_data_refused_total{model_name="fraud"} '
    assert f"{series}0.0" in metrics.render().decode().splitlines()
    await asyncio.to_thread(_refuse_training, tmp_path)
    assert f"{series}1.0" in metrics.render().decode().splitlines()
    async with api.maker() as session:
        await gauges.refresh(session, datetime.now(UTC))
    assert f"{series}1.0" in metrics.render().decode().splitlines()


def _refuse_training(home: Path) -> None:
    """As a training does: in a process that ends with it."""
    program = (
        "import sys; from pathlib import Path; from training.common import models, telemetry; "
        "telemetry.refused(models.find('fraud', models.folders({})).config, Path(sys.argv[1]))"
    )
    environment = {name: value for name, value in os.environ.items() if name != "PROMETHEUS_MULTIPROC_DIR"}
    subprocess.run([sys.executable, "-c", program, str(home)], env=environment, check=True)
