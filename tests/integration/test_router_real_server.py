"""Router and the real model server, both as processes: the two sides of one protocol."""

import asyncio
import os
import signal
from pathlib import Path

import msgspec
import pytest

from tests.support import model_server, native_artifacts
from tests.support.data_plane import client, document, router, save, target
from tests.support.model_server import CHURN, ROW, ModelServer
from tests.support.processes import eventually

pytestmark = pytest.mark.integration


async def test_predictions_explanations_and_batches_pass_and_a_killed_worker_costs_none(
    home: Path, tmp_path: Path
) -> None:
    artifact = native_artifacts.linear_binary(tmp_path / "artifact")
    with model_server.serving(artifact, CHURN) as served:
        with served.client() as direct:
            about = direct.get("/schema")
        shown = target(
            "1",
            f"unix:{served.socket}",
            aux_address=f"unix:{served.spec['aux_socket']}",
            features=tuple(about.json()["features"]),
            schema=msgspec.Raw(about.content),
        )
        old = target("0", "unix:/nowhere", features=("gone",))
        save(home, document(1, shown, old, arms={"stable": (10_000, shown)}, deadline_ms=2_000))
        with router(home, "unix:///nowhere/redis.sock") as url:
            async with client(url) as product:
                example = (await product.get("/ml/churn/example")).json()
                assert (await product.post("/ml/churn/predict", json=example)).status_code == 200
                body = {"features": ROW, "unit_id": "u"}
                answer = (await product.post("/ml/churn/predict", json=body)).json()
                with served.client() as direct:
                    own = direct.post("/predict", json=body).json()
                assert {name: answer[name] for name in own} == own
                refused = await product.post("/ml/churn/predict", json={"features": ROW | {"tenure": "x", "new": 1}})
                assert refused.status_code == 422
                assert {reason.partition(":")[0] for reason in refused.json()["reasons"]} == {
                    "features.tenure",
                    "features.new",
                }
                sibling = {"features": ROW | {"gone": 1}}
                assert (await product.post("/ml/churn/predict", json=sibling)).status_code == 200
                assert (await product.post("/ml/churn/explain", json=body)).status_code == 200
                batch = (await product.post("/ml/churn/batch_predict", json={"rows": [ROW] * 100})).json()
                assert batch["predictions"] == [own] * 100

                statuses, stop = list[int](), asyncio.Event()

                async def customer() -> None:
                    while not stop.is_set():
                        statuses.append((await product.post("/ml/churn/predict", json=body)).status_code)

                customers = [asyncio.create_task(customer()) for _ in range(8)]
                for replaced, victim in enumerate(served.workers(), start=1):
                    os.kill(victim, signal.SIGKILL)
                    await eventually(lambda n=replaced: _replaced(served, n), what="its successor is ready")
                stop.set()
                await asyncio.gather(*customers)
    assert set(statuses) == {200}
    assert len(statuses) > 50


async def _replaced(served: ModelServer, workers: int) -> bool:
    return sum(event["event"] == "worker replaced" for event in served.events()) == workers
