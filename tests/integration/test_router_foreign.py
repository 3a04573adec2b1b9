"""A version served elsewhere over the Open Inference Protocol: observed, routed, split, recorded like ours.

One of our own model servers plays the other party: behind TCP it is known by nothing but its protocol.
"""

import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import msgspec
import pytest

from control_plane.adapters.deployers.base import Seen, Unit
from control_plane.adapters.deployers.external import ExternalDeployer
from control_plane.contracts.snapshot import Target
from tests.support import model_server, native_artifacts
from tests.support.answering import Answer, Answering, answering
from tests.support.data_plane import client, document, records, save, target, worker
from tests.support.model_server import CHURN, ROW
from tests.support.processes import free_port

pytestmark = pytest.mark.integration
NOWHERE = "unix:///nowhere/redis.sock"
BODY: dict[str, Any] = {"features": ROW, "unit_id": "customer-1"}


def unit(url: str, config: dict[str, Any] = CHURN) -> Unit:
    declared = config | {"serving": {"endpoint": url}, "decision": config["decision"] | {"threshold": 0.4}}
    return Unit(uuid4(), "churn", "2", "", "pyfunc", declared)


async def observed(wanted: Unit) -> Seen:
    deployer = ExternalDeployer()
    try:
        return await deployer.observe(wanted)
    finally:
        await deployer.aclose()


def routed(seen: Seen, version: str = "2", name: str = "churn") -> Target:
    assert seen.address
    assert seen.description
    return target(
        version,
        seen.address,
        protocol="oip",
        remote_name=name,
        features=tuple(str(feature) for feature in seen.description["features"]),
        schema=msgspec.Raw(json.dumps(seen.description, sort_keys=True).encode()),
    )


@pytest.fixture(scope="module")
def there(tmp_path_factory: pytest.TempPathFactory) -> Iterator[model_server.ModelServer]:
    artifact = native_artifacts.linear_binary(tmp_path_factory.mktemp("artifact"))
    with model_server.serving(artifact, CHURN, socket=f"127.0.0.1:{free_port()}", workers=1, aux_socket=None) as made:
        yield made


@pytest.fixture
async def other() -> AsyncIterator[Answering]:
    """A party that answers what a test declares, ready and with one matrix for an input."""
    with answering() as made:
        made.ok("GET", "/base/v2/models/other/ready", {"name": "other", "ready": True})
        metadata = {"name": "other", "inputs": [{"name": "predict", "datatype": "FP32", "shape": [-1, 2]}]}
        made.ok("GET", "/base/v2/models/other", metadata)
        yield made


MATRIX: dict[str, Any] = {
    "problem": "binary",
    "features": {"a": {"type": "number"}, "b": {"type": "boolean"}},
    "decision": {"positive": "yes", "negative": "no"},
}
INFER = "/base/v2/models/other/infer"
GIVEN: dict[str, Any] = {"features": {"a": 1.5, "b": True}, "unit_id": "u"}


def said(probability: float) -> dict[str, Any]:
    return {"model_name": "x", "outputs": [{"name": "p", "datatype": "FP32", "shape": [1], "data": [probability]}]}


async def test_it_answers_and_is_recorded_as_our_own_server_would_be(
    home: Path, there: model_server.ModelServer
) -> None:
    seen = await observed(unit(f"http://{there.socket}"))
    assert (seen.state, seen.error) == ("ready", None)
    save(home, document(1, routed(seen), deadline_ms=5_000))
    async with worker(home, NOWHERE) as url, client(url) as product:
        answer = (await product.post("/ml/churn/predict", json=BODY)).json()
        health = await product.get("/ml/churn/health")
        refused = await product.post("/ml/churn/predict", json={"features": {"tenure": "x"}})
        tensors = await product.get("/v2/models/churn")
        assert (await product.post("/ml/churn/explain", json=BODY)).status_code == 422
        assert (await product.post("/ml/churn/batch_predict", json={"rows": [ROW]})).status_code == 404
    expected = native_answer(there)
    assert answer["output"] == expected["output"]
    assert (answer["decision"], answer["threshold"]) == (expected["decision"], 0.4)
    assert (answer["model_version"], answer["variant"]) == ("2", "stable")
    assert health.json()["status"] == "ok"
    assert refused.status_code == 422
    assert refused.json()["reasons"] == [
        "features.contract: missing",
        "features.senior: missing",
        'features.tenure: expected a number or null, got "x"',
    ]
    assert [one["name"] for one in tensors.json()["inputs"]] == list(ROW)
    first, second = records(home)
    assert (first.status, first.served_version, first.unit_id) == ("ok", "2", "customer-1")
    assert msgspec.json.decode(first.features) == ROW
    assert msgspec.json.decode(first.output) == expected["output"]
    assert second.status == "invalid"


def native_answer(there: model_server.ModelServer) -> dict[str, Any]:
    import httpx

    found: dict[str, Any] = httpx.post(f"http://{there.socket}/predict", json=BODY, trust_env=False).json()
    return found


async def test_the_url_may_name_a_base_path_and_the_model(home: Path, other: Answering) -> None:
    seen = await observed(unit(f"{other.url}/base/v2/models/other", MATRIX))
    save(home, document(1, routed(seen, name="other"), deadline_ms=5_000))
    other.ok("POST", INFER, said(0.75))
    async with worker(home, NOWHERE) as url, client(url) as product:
        answer = (await product.post("/ml/churn/predict", json=GIVEN)).json()
    assert (answer["output"], answer["decision"]) == ({"probability": 0.75}, "yes")
    sent = next(asked for asked in other.asked if asked.path == INFER)
    assert sent.body == {"inputs": [{"name": "predict", "shape": [1, 2], "datatype": "FP32", "data": [1.5, 1.0]}]}
    assert sent.headers["host"] == other.url.removeprefix("http://")


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (Answer(500, {"error": "boom"}), "error"),
        (Answer(200, said(7.5)), "error"),
        (Answer(200, raw=b"<html>"), "error"),
        (Answer(drop=True), "dead"),
        (Answer(400, {"error": "wrong shape"}), "4xx"),
    ],
)
async def test_a_candidate_served_elsewhere_that_fails_falls_back_to_stable(
    home: Path, other: Answering, there: model_server.ModelServer, fault: Answer, reason: str
) -> None:
    stable = routed(await observed(unit(f"http://{there.socket}")), "1")
    config = CHURN | {"features": {"tenure": {"type": "number"}, "senior": {"type": "boolean"}}}
    candidate = routed(await observed(unit(f"{other.url}/base/v2/models/other", config)), name="other")
    save(
        home,
        document(
            1, stable, candidate, arms={"stable": (0, stable), "candidate": (10_000, candidate)}, deadline_ms=5_000
        ),
    )
    other.declare("POST", INFER, fault)
    async with worker(home, NOWHERE) as url, client(url) as product:
        answer = await product.post("/ml/churn/predict", json=BODY)
    assert (answer.status_code, answer.json()["variant"]) == (200, "stable")
    (record,) = records(home)
    assert (record.assigned_variant, record.served_variant, record.fallback_reason) == ("candidate", "stable", reason)


async def test_what_the_server_says_of_a_body_it_refuses_reaches_the_client(home: Path, other: Answering) -> None:
    save(home, document(1, routed(await observed(unit(f"{other.url}/base/v2/models/other", MATRIX)), name="other")))
    other.declare("POST", INFER, Answer(400, {"error": "a must be positive"}))
    async with worker(home, NOWHERE) as url, client(url) as product:
        answer = await product.post("/ml/churn/predict", json=GIVEN)
    assert (answer.status_code, answer.json()["reasons"]) == (400, ["a must be positive"])


async def test_a_server_that_is_not_ready_is_starting_and_one_with_other_inputs_has_failed(other: Answering) -> None:
    assert (await observed(unit(f"{other.url}/base/v2/models/nobody", MATRIX))).state == "starting"
    assert (await observed(unit(f"http://127.0.0.1:{free_port()}", MATRIX))).state == "starting"
    seen = await observed(unit(f"{other.url}/base/v2/models/other"))
    assert seen.state == "failed"
    assert "has 2 columns, model.yaml has 3 features." in str(seen.error)


async def test_a_target_whose_description_is_of_an_earlier_release_is_dead_and_costs_nobody_else(
    home: Path, there: model_server.ModelServer
) -> None:
    stable = routed(await observed(unit(f"http://{there.socket}")), "1")
    broken = target(
        "2", f"http://{there.socket}", protocol="oip", remote_name="churn", schema=msgspec.Raw(b'{"oip":true}')
    )
    arms = {"stable": (0, stable), "candidate": (10_000, broken)}
    save(home, document(1, stable, broken, arms=arms, deadline_ms=5_000))
    async with worker(home, NOWHERE) as url, client(url) as product:
        answer = await product.post("/ml/churn/predict", json=BODY)
    assert (answer.status_code, answer.json()["variant"]) == (200, "stable")
