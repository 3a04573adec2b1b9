"""Predictions through a real router process, on fake model servers."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import msgspec
import pytest

from control_plane.contracts import frames
from tests.support.data_plane import ADMIN, client, document, records, router, save, target, worker
from tests.support.fake_model_server import FakeModelServer, serving
from tests.support.processes import eventually

pytestmark = pytest.mark.integration
NOWHERE = "unix:///nowhere/redis.sock"
BODY: dict[str, Any] = {"features": {"a": 1, "b": "é"}, "unit_id": "customer-1"}


@pytest.fixture
async def servers(tmp_path: Path) -> AsyncIterator[tuple[FakeModelServer, FakeModelServer]]:
    old, new = FakeModelServer(tmp_path / "1.sock", "1"), FakeModelServer(tmp_path / "2.sock", "2")
    async with serving(old, new):
        yield old, new


Servers = tuple[FakeModelServer, FakeModelServer]


async def test_an_answer_says_who_gave_it_and_its_record_says_the_same(home: Path, servers: Servers) -> None:
    save(home, document(7, target("1", servers[0].address), rollout_id="r-1", step=2))
    async with worker(home, NOWHERE) as url, client(url) as product:
        answer = await product.post(
            "/ml/churn/predict", json=BODY | {"request_id": "r"}, headers={"x-request-id": "trace"}
        )
    body = answer.json()
    assert answer.headers["x-request-id"] == "trace"
    assert body == {
        "prediction_id": body["prediction_id"],
        "model": "churn",
        "model_version": "1",
        "variant": "stable",
        "request_id": "r",
        "output": {"probability": 0.25},
        "decision": "keep",
        "threshold": 0.5,
        "reasons": ["age"],
    }
    (record,) = records(home)
    assert msgspec.json.decode(record.features) == BODY["features"]
    assert (record.prediction_id, record.unit_id, record.request_id) == (body["prediction_id"], "customer-1", "r")
    assert (record.assigned_variant, record.served_variant, record.served_version) == ("stable", "stable", "1")
    assert (record.rollout_id, record.step, record.epoch, record.revision) == ("r-1", 2, 1, 7)
    assert (record.status, record.decision, record.threshold) == ("ok", "keep", 0.5)
    assert msgspec.json.decode(record.output) == {"probability": 0.25}


async def test_the_customers_bytes_reach_the_server_unchanged_with_the_siblings_named(
    home: Path, servers: Servers
) -> None:
    old, new = target("1", servers[0].address, features=("a",)), target("2", servers[1].address, features=("a", "b"))
    save(home, document(1, old, new))
    async with worker(home, NOWHERE) as url, client(url) as product:
        content = json.dumps(BODY, indent=3).encode()
        assert (await product.post("/ml/churn/predict", content=content)).status_code == 200
    assert servers[0].requests == [BODY]
    assert servers[0].heads[0]["content-length"] == str(len(content))
    assert servers[0].heads[0]["x-mlcp-siblings"] == "b"


@pytest.mark.parametrize(
    ("given", "unit"),
    [
        ({"json": {"features": {"a": 1}}}, None),
        ({"json": {"features": {"a": 1}}, "headers": {"x-unit-id": "from-header"}}, "from-header"),
        ({"json": {"features": {"a": 1, "customer": 42}}}, "42"),
        ({"json": {"features": {"customer": "c"}, "unit_id": "from-body"}, "headers": {"x-unit-id": "h"}}, "from-body"),
    ],
)
async def test_the_unit_comes_from_the_body_else_the_header_else_the_feature_that_names_it(
    home: Path, servers: Servers, given: dict[str, Any], unit: str | None
) -> None:
    save(home, document(1, target("1", servers[0].address), unit="customer"))
    async with worker(home, NOWHERE) as url, client(url) as product:
        assert (await product.post("/ml/churn/predict", **given)).json()["variant"] == "stable"
    (record,) = records(home)
    assert (record.unit_id, record.assigned_variant) == (unit, "stable" if unit else None)


@pytest.mark.parametrize("mode", ["die", "hang", "fail", "garbage", "refuse", "close"])
async def test_a_candidate_that_cannot_answer_falls_back_to_stable_and_the_record_says_why(
    home: Path, servers: Servers, mode: str
) -> None:
    old, new = target("1", servers[0].address), target("2", servers[1].address)
    save(home, document(1, old, new, arms={"candidate": (10_000, new), "stable": (0, old)}, deadline_ms=400))
    if mode == "die":
        await servers[1].die()
    else:
        servers[1].mode = mode
    reasons = {"die": "dead", "close": "dead", "hang": "deadline", "refuse": "4xx"}
    async with worker(home, NOWHERE) as url, client(url) as product:
        answer = await product.post("/ml/churn/predict", json=BODY)
        metrics = (await product.get("/metrics")).text
    assert answer.status_code == 200, answer.text
    assert (answer.json()["model_version"], answer.json()["variant"]) == ("1", "stable")
    (record,) = records(home)
    assert (record.assigned_variant, record.assigned_version) == ("candidate", "2")
    assert (record.served_variant, record.served_version) == ("stable", "1")
    assert record.fallback_reason == reasons.get(mode, "error")
    assert f'model_fallbacks_total{{model_name="churn",reason="{record.fallback_reason}"}} 1.0' in metrics


async def test_a_candidate_that_keeps_failing_is_not_asked_again_at_once(home: Path, servers: Servers) -> None:
    old, new = target("1", servers[0].address), target("2", servers[1].address)
    save(home, document(1, old, new, arms={"candidate": (10_000, new), "stable": (0, old)}))
    servers[1].mode = "fail"
    async with worker(home, NOWHERE) as url, client(url) as product:
        for _ in range(12):
            assert (await product.post("/ml/churn/predict", json=BODY)).status_code == 200
        assert len(servers[1].requests) < 12
        servers[1].mode = "ok"
        await asyncio.sleep(0.6)
        assert (await product.post("/ml/churn/predict", json=BODY)).json()["variant"] == "candidate"
    assert {r.fallback_reason for r in records(home)} == {"error", "open", None}


async def test_when_nobody_can_answer_the_request_still_leaves_a_record(home: Path, servers: Servers) -> None:
    save(home, document(1, target("1", servers[0].address), deadline_ms=200))
    async with worker(home, NOWHERE) as url, client(url) as product:
        for mode, status, slug in (
            ("hang", 504, "deadline-exceeded"),
            ("fail", 503, "target-unavailable"),
            ("refuse", 422, "invalid-input"),
        ):
            servers[0].mode = mode
            answer = await product.post("/ml/churn/predict", json=BODY)
            assert answer.status_code == status
            assert answer.json()["type"].endswith(slug)
            assert answer.headers["content-type"] == "application/problem+json"
        assert answer.json()["reasons"] == ["features.a: missing"]
    found = records(home)
    assert [r.status for r in found] == ["timeout", "error", "invalid"]
    assert [r.served_version for r in found] == [None, None, "1"]
    assert all(r.assigned_version == "1" for r in found)


async def test_more_than_can_be_carried_is_shed_at_once_with_a_time_to_come_back(home: Path, servers: Servers) -> None:
    save(home, document(1, target("1", servers[0].address), max_in_flight=4, deadline_ms=2_000))
    servers[0].delay_s = 0.3
    async with worker(home, NOWHERE) as url, client(url) as product:
        answers = await asyncio.gather(*(product.post("/ml/churn/predict", json=BODY) for _ in range(10)))
        again = await product.post("/ml/churn/predict", json=BODY)
    shed = [answer for answer in answers if answer.status_code == 503]
    assert len(shed) == 6
    assert all(answer.headers["retry-after"] == "1" for answer in shed)
    assert again.status_code == 200
    assert [r.status for r in records(home)].count("shed") == 6


async def test_a_named_version_needs_the_scope_and_never_counts(home: Path, servers: Servers) -> None:
    old, new = target("1", servers[0].address), target("2", servers[1].address)
    save(home, document(1, old, new, aliases={"staging": "2"}))
    async with worker(home, NOWHERE) as url, client(url) as product, client(url, ADMIN) as admin:
        assert (await product.post("/ml/churn/predict", json=BODY | {"model_version": "2"})).status_code == 403
        assert (await product.post("/ml/churn/predict", json=BODY | {"model_version": "latest"})).status_code == 200
        for named in ("2", 2, "staging"):
            answer = await admin.post("/ml/churn/predict", json=BODY | {"model_version": named})
            assert (answer.json()["model_version"], answer.json()["variant"]) == ("2", "pinned")
        missing = await admin.post("/ml/churn/predict", json=BODY | {"model_version": "9"})
        assert missing.status_code == 404
    latest, *pinned = records(home)
    assert latest.assigned_variant == "stable"
    assert [(r.pinned, r.assigned_variant, r.served_version) for r in pinned] == [(True, None, "2")] * 3


async def test_shadow_copies_are_recorded_and_never_touch_the_answer(home: Path, servers: Servers) -> None:
    old, new = target("1", servers[0].address), target("2", servers[1].address)
    save(home, document(1, old, new, arms={"stable": (10_000, old)}, shadows=[(new, 10_000)], deadline_ms=300))
    async with worker(home, NOWHERE) as url, client(url) as product:
        for n, mode in enumerate(("ok", "hang", "refuse"), 1):
            servers[1].mode = mode
            answer = await product.post("/ml/churn/predict", json=BODY)
            assert (answer.status_code, answer.json()["model_version"]) == (200, "1")
            copied = _async(partial(lambda n: len(servers[1].requests) == n, n))
            await eventually(copied, what="the copy")
        await eventually(_async(lambda: len(records(home)) == 6), what="all records")
    copies = [r for r in records(home) if r.shadow]
    assert sorted(r.status for r in copies) == ["invalid", "ok", "timeout"]
    assert {(r.served_version, r.served_variant, r.assigned_variant) for r in copies} == {("2", "shadow", None)}
    answered = {UUID(r.prediction_id).int for r in records(home) if not r.shadow}
    assert {UUID(r.prediction_id).int ^ 1 for r in copies} == answered, "a copy's id is its request's but for a bit"


async def test_a_unit_keeps_its_variant_and_the_split_is_the_one_asked_for(home: Path, servers: Servers) -> None:
    old, new = target("1", servers[0].address), target("2", servers[1].address)
    arms = {"candidate": (2_000, new), "stable": (6_000, old), "baseline": (2_000, old)}
    save(home, document(1, old, new, arms=arms))
    seen: dict[str, set[str]] = {}
    with router(home, NOWHERE, workers=2) as url:
        async with client(url) as product:
            for _ in range(2):
                for n in range(300):
                    answer = await product.post("/ml/churn/predict", json=BODY | {"unit_id": f"u{n}"})
                    seen.setdefault(f"u{n}", set()).add(answer.json()["variant"])
    assert all(len(variants) == 1 for variants in seen.values())
    share = sum(variants == {"candidate"} for variants in seen.values()) / 300
    assert 0.2 - 5 * 0.023 < share < 0.2 + 5 * 0.023


async def test_explain_and_batch_go_to_the_second_process_and_back(
    home: Path, servers: Servers, tmp_path: Path
) -> None:
    aux = FakeModelServer(tmp_path / "aux.sock", "1-aux")
    save(home, document(1, target("1", servers[0].address, aux_address=aux.address)))
    async with serving(aux), worker(home, NOWHERE) as url, client(url) as product:
        for path in ("explain", "predict/explain"):
            answer = await product.post(f"/ml/churn/{path}", json=BODY)
            assert answer.json() == {
                "path": "/explain",
                "version": "1-aux",
                "bytes": len(answer.request.content),
            }
        rows = b"x" * 3_000_000
        answer = await product.post("/ml/churn/batch_predict", content=rows)
        assert answer.json() == {"path": "/batch_predict", "version": "1-aux", "bytes": len(rows)}
        await aux.die()
        assert (await product.post("/ml/churn/explain", json=BODY)).status_code == 503
    assert records(home) == []


async def test_outcomes_are_on_disk_before_they_are_acknowledged(home: Path, servers: Servers) -> None:
    save(home, document(1, target("1", servers[0].address)))
    async with worker(home, NOWHERE) as url, client(url) as product:
        one = {"unit_id": "u", "name": "label", "value": True, "observed_at": "2026-11-01T00:00:00Z"}
        assert (await product.post("/ml/churn/outcomes", json=one)).json() == {"accepted": 1}
        many = {"outcomes": [one, one | {"value": 2.5, "currency": "EUR", "name": "amount"}]}
        answer = await product.post("/ml/churn/outcomes", json=many)
        assert (answer.status_code, answer.json()) == (202, {"accepted": 2})
        stored = b"".join(path.read_bytes() for path in (home / "spool").glob("outcomes-*/*.seg"))
        bad = [one, one | {"prediction_id": "x"}, {"value": [], "surprise": 1, "observed_at": "2026-11-01"}]
        refused = await product.post("/ml/churn/outcomes", json=bad)
    assert len(list(frames.payloads(stored))) == 3
    assert refused.status_code == 422
    reasons = "\n".join(refused.json()["reasons"])
    for expected in ("[1].prediction_id", "[2].value", "[2].surprise", "[2].observed_at", "[2]: expected exactly one"):
        assert f"outcomes{expected}" in reasons
    assert "outcomes[0]" not in reasons


async def test_what_a_careless_client_sends_is_refused_with_the_right_status(home: Path, servers: Servers) -> None:
    save(home, document(1, target("1", servers[0].address), max_body_bytes=100_000))
    bad: list[tuple[bytes, str]] = [
        (b"", "body"),
        (b"{", "body"),
        (b"[]", "body: expected an object"),
        (b"\xff\xfe", "not UTF-8"),
        (b'{"features": {"a": "\xff"}}', "not UTF-8"),
        (b'{"features": {"a": NaN}}', "features.a: NaN and infinity"),
        (b'{"features": {"a": -Infinity, "b": 1}}', "features.a: NaN and infinity"),
        (b'{"features": {"a": 1}, "unit_id": NaN}', "invalid character"),
        (b"1e999", "out of range"),
        (b'{"features": {"a": 1}, "unit_id": 1e999}', "out of range"),
        (b'{"rows": [{"a": 1e999}]}', "features"),
        (b'{"features": 1, "unit_id": 2}', "unit_id: expected a string"),
        (b'{"features": null}', "features: expected an object"),
        (b"{}", "features: missing"),
        (b'{"features": {}, "unit_id": ""}', "unit_id"),
        (b'{"features": {}, "unit_id": "a\\u0000"}', "unit_id"),
        (json.dumps({"features": {}, "unit_id": "é" * 65}).encode(), "unit_id"),
        (b'{"features": {}, "request_id": "' + b"x" * 300 + b'"}', "request_id"),
        (b'{"features": ' + b"[" * 50_000 + b"]" * 40_000 + b"}", "nested too deeply"),
    ]
    async with worker(home, NOWHERE) as url, client(url) as product:
        for content, reason in bad:
            answer = await product.post("/ml/churn/predict", content=content)
            assert answer.status_code == 422, content[:60]
            assert any(reason in found for found in answer.json()["reasons"]), (content[:60], answer.text)
        for large in (b"x" * 20_000_000, _chunks(20_000_000)):
            assert (await product.post("/ml/churn/predict", content=large)).status_code == 413
        no_key = httpx.AsyncClient(base_url=url)
        assert (await no_key.post("/ml/churn/predict", json=BODY)).status_code == 401
        for key, path, status in (
            ("wrong", "churn", 401),
            ("old-key", "churn", 401),
            ("other-key", "churn", 403),
            ("other-key", "nosuch", 403),
            ("test-key", "nosuch", 404),
        ):
            headers = {"authorization": f"Bearer {key}"}
            answer = await no_key.post(f"/ml/{path}/predict", json=BODY, headers=headers)
            assert (answer.status_code, answer.json()["status"]) == (status, status)
            assert ("churn" in answer.text) == (key == "test-key" or path == "churn")
        await no_key.aclose()
        for method, path, status in (
            ("GET", "/ml/churn/predict", 405),
            ("GET", "/x", 404),
            ("PUT", "/health", 405),
        ):
            assert (await product.request(method, path)).status_code == status
        assert (await product.post("/ml/churn/predict", json=BODY)).status_code == 200
    assert [r.status for r in records(home)] == ["ok"]


def _async(look: Callable[[], bool]) -> Callable[[], Awaitable[bool]]:
    async def asked() -> bool:
        return look()

    return asked


async def _chunks(size: int) -> AsyncIterator[bytes]:
    for _ in range(size // 100_000):
        yield b"x" * 100_000


async def test_a_person_finds_example_schema_and_page_of_a_model(home: Path, servers: Servers) -> None:
    about = {
        "example": {"features": {"a": 1}},
        "request_schema": {"properties": {"features": {"properties": {"a": {"type": "number", "description": "<b>"}}}}},
    }
    shown = target("1", servers[0].address, schema=msgspec.Raw(json.dumps(about).encode()))
    save(home, document(1, shown))
    async with worker(home, NOWHERE) as url, httpx.AsyncClient(base_url=url) as anyone:
        example = (await anyone.get("/ml/churn/example")).json()
        assert example == about["example"]
        assert (await anyone.get("/ml/churn/openapi.json")).json()["paths"]["/ml/churn/predict"]["post"]
        page = (await anyone.get("/ml/churn/docs")).text
        assert "&lt;b&gt;" in page
        assert "<b>" not in page
        assert (await anyone.get("/ml/churn/health")).json()["status"] == "ok"
        assert (await anyone.get("/ready")).json()["revision"] == 1
        await servers[0].die()
        assert (await anyone.get("/ml/churn/health")).status_code == 503
