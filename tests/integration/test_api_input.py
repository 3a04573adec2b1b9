"""Bad input of every kind: a problem document with the right status and all reasons, and nothing changed."""

import json
from typing import Any
from uuid import UUID

import httpx
import pytest
from sqlalchemy import text

from control_plane.adapters.store import ids
from tests.support.api import Api, add_model, everything

pytestmark = pytest.mark.integration
WHY = {"reason": "a test"}
PROMOTE = "/models/fraud/promote/production"
CASES: list[tuple[str, str, Any, int, str]] = [
    ("POST", PROMOTE, b'{"version": ', 422, "invalid-input"),
    ("POST", PROMOTE, b"\xff\xfe", 422, "invalid-input"),
    ("POST", PROMOTE, b"[" * 100_000, 422, "invalid-input"),
    ("POST", PROMOTE, b'{"bake_s": ' + b"9" * 5_000 + b"}", 422, "invalid-input"),
    ("POST", PROMOTE, b'{"bake_s": NaN, "reason": "x"}', 422, "invalid-input"),
    ("POST", PROMOTE, b'{"bake_s": Infinity, "reason": "x"}', 422, "invalid-input"),
    ("POST", PROMOTE, b'{"bake_s": -1e400, "reason": "x"}', 422, "invalid-input"),
    ("POST", PROMOTE, {"version": 1, **WHY}, 422, "invalid-input"),
    ("POST", PROMOTE, {"version": "latest", **WHY}, 422, "invalid-input"),
    ("POST", PROMOTE, {"verison": "1", **WHY}, 422, "invalid-input"),
    ("POST", PROMOTE, {"version": "1", "reason": "  "}, 422, "invalid-input"),
    ("POST", PROMOTE, {"version": "1", "reason": "a\0b"}, 422, "invalid-input"),
    ("POST", PROMOTE, b'{"version": "1", "reason": "\\ud800"}', 422, "invalid-input"),
    ("POST", PROMOTE, {"version": "1", "reason": "x" * 2_001}, 422, "invalid-input"),
    ("POST", PROMOTE, {"version": "77", **WHY}, 404, "not-found"),
    ("POST", "/models/nobody/promote/production", WHY, 404, "not-found"),
    ("POST", "/models/NoName%00/promote/production", WHY, 404, "not-found"),
    ("POST", "/models/fraud/rollback", {}, 422, "invalid-input"),
    ("POST", "/models/fraud/rollback", WHY, 409, "conflict"),
    ("POST", "/models/fraud/retrain", {**WHY, "seed": -1, "data": "a\0"}, 422, "invalid-input"),
    ("PUT", "/models/fraud/traffic", {"arms": [], **WHY}, 428, "precondition-required"),
    ("GET", "/models/nobody", None, 404, "not-found"),
    ("GET", "/models/fraud/versions/0x1", None, 404, "not-found"),
    ("GET", "/models/fraud/versions/999999999999999999999", None, 404, "not-found"),
    ("GET", "/models/fraud/timeline?as_of=yesterday", None, 422, "invalid-input"),
    ("GET", "/models/fraud/timeline?as_of=2026-01-01T00:00:00", None, 422, "invalid-input"),  # no offset
    ("GET", "/models/fraud/performance?period=1y", None, 422, "invalid-input"),
    ("GET", "/models/fraud/versions?cursor=x", None, 422, "invalid-input"),
    ("GET", "/models?limit=0", None, 422, "invalid-input"),
    ("GET", "/rollouts?cursor=x", None, 422, "invalid-input"),
    ("GET", "/rollouts?model=%00", None, 422, "invalid-input"),
    ("GET", f"/rollouts/{UUID(int=7)}", None, 404, "not-found"),
    ("GET", "/rollouts/7", None, 422, "invalid-input"),
    ("POST", f"/rollouts/{UUID(int=7)}/abort", WHY, 404, "not-found"),
    ("POST", f"/rollouts/{UUID(int=7)}/explode", WHY, 404, "not-found"),
    ("GET", f"/jobs/{UUID(int=7)}", None, 404, "not-found"),
    ("GET", f"/predictions/{UUID(int=7)}", None, 404, "not-found"),
    ("GET", f"/predictions/{ids.new()}", None, 404, "not-found"),
    ("GET", f"/predictions/{ids.new((1 << 48) - 1)}", None, 404, "not-found"),  # the year 10889
    ("POST", "/keys", {"person": "", "role": "god", "models": [], **WHY}, 422, "invalid-input"),
    ("POST", "/keys", {"person": " \f", "role": "viewer", **WHY}, 422, "invalid-input"),
    ("POST", f"/keys/{UUID(int=7)}/revoke", WHY, 404, "not-found"),
    ("POST", "/outcomes", {"value": 1}, 422, "invalid-input"),
    ("POST", "/outcomes", b'{"model": "fraud", "unit_id": "u", "value": NaN}', 422, "invalid-input"),
    ("POST", "/outcomes", {"model": "nobody", "unit_id": "u", "value": 1}, 422, "invalid-input"),
    ("POST", "/outcomes", {"prediction_id": str(ids.new()), "value": 1}, 422, "invalid-input"),
    ("POST", "/outcomes", {"model": "fraud", "unit_id": "ü" * 65, "value": 1}, 422, "invalid-input"),
    ("POST", "/outcomes", [], 422, "invalid-input"),
    ("GET", "/audit?since=now", None, 422, "invalid-input"),
    ("GET", "/audit?since=0", None, 422, "invalid-input"),  # no date of 1970
    ("GET", "/audit?cursor=x", None, 422, "invalid-input"),
    ("POST", "/policies/try", {"name": "x", "at": 0}, 422, "invalid-input"),
    ("POST", "/policies/try", {"name": "x", "at": "2026-02-30T00:00:00Z"}, 422, "invalid-input"),
    ("POST", "/policies/try", {"name": "x", "at": "9999-12-31T23:59:59-12:00"}, 422, "invalid-input"),
    ("POST", "/policies/try", b'{"name": "x", "facts": {"a": [{"b": NaN}]}}', 422, "invalid-input"),
    ("POST", "/policies/try", b'{"name": "x", "facts": {"a": "\\ud800"}}', 422, "invalid-input"),
    ("POST", "/webhooks/alerts", b'{"name": "x", "facts": {"\\u0000": 1}}', 422, "invalid-input"),
    ("POST", "/webhooks/alerts", b'{"name": "x", "facts": ' + b'{"a":' * 900 + b"1" + b"}" * 901, 422, "invalid-input"),
    ("POST", "/keys", {"person": "p", "role": "viewer", "automated": 1, **WHY}, 422, "invalid-input"),
    ("POST", "/keys", {"person": "p", "role": "viewer", "expires_in_s": "60", **WHY}, 422, "invalid-input"),
    ("GET", "/nothing", None, 404, "not-found"),
    ("DELETE", "/models/fraud", None, 405, "method-not-allowed"),
]


async def test_bad_input_is_refused_with_a_problem_and_changes_nothing(api: Api) -> None:
    await add_model(api.maker)
    admin = await api.as_("admin")
    before, wrong = await everything(api.maker), list[str]()
    for method, path, body, status, slug in CASES:
        content = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        answer = await admin.request(method, path, content=content, headers={"Content-Type": "application/json"})
        problem, case = answer.json(), f"{method} {path} {str(body)[:60]}: {answer.status_code} {answer.text[:200]}"
        if (answer.status_code, problem.get("type", "").rsplit("/")[-1]) != (status, slug):
            wrong.append(case)
        assert answer.headers["content-type"] == "application/problem+json", case
        assert problem.keys() >= {"type", "title", "status", "detail", "instance", "trace_id"}, case
        assert problem["trace_id"] == answer.headers["x-request-id"], case
        assert status != 422 or problem["reasons"], case
    assert not wrong
    assert await everything(api.maker) == before


async def test_every_reason_is_given_at_once(api: Api) -> None:
    await add_model(api.maker)
    operator = await api.as_("operator")
    spec = {"version": 1, "strategy": "sideways", "steps": [{"weight": 101, "hold_s": -1}], "extra": 1}
    answer = await operator.post(PROMOTE, json=spec)
    fields = {reason.split(":")[0] for reason in answer.json()["reasons"]}
    assert fields == {"body.version", "body.strategy", "body.steps.0.weight", "body.steps.0.hold_s", "body.extra"}


@pytest.mark.parametrize("declared", [True, False])
async def test_a_body_of_20_mb_is_refused_whether_it_says_so_or_not(api: Api, declared: bool) -> None:
    await add_model(api.maker)
    admin = await api.as_("admin")
    before = await everything(api.maker)

    async def chunks() -> Any:
        for _ in range(320):
            yield b" " * 65_536

    content = b" " * 20 * 2**20 if declared else chunks()
    answer = await admin.post(PROMOTE, content=content, headers={"Content-Type": "application/json"})
    assert (answer.status_code, answer.json()["type"].rsplit("/")[-1]) == (413, "too-large")
    assert await everything(api.maker) == before
    assert (await admin.get("/models/fraud")).status_code == 200


async def test_a_form_is_told_to_be_json(api: Api) -> None:
    await add_model(api.maker)
    operator = await api.as_("operator")
    answer = await operator.post("/models/fraud/rollback", data={"reason": "x"})
    assert answer.status_code == 422
    assert "header.content-type: send application/json" in answer.json()["reasons"]


async def test_a_failing_commit_is_never_answered_with_success(api: Api) -> None:
    await add_model(api.maker)
    operator = await api.as_("operator")
    async with api.maker.begin() as session:
        late = "ALTER TABLE rollouts ADD CONSTRAINT late UNIQUE (model) DEFERRABLE INITIALLY DEFERRED"
        await session.execute(text(late))
    first = await operator.post(PROMOTE, json={"version": "1", **WHY})
    aborted = await operator.post(f"/rollouts/{first.json()['id']}/abort", json=WHY)
    assert (first.status_code, aborted.status_code) == (202, 200)
    before = await everything(api.maker)
    second = await operator.post(PROMOTE, json={"version": "1", **WHY}, headers={"Idempotency-Key": "k"})
    assert (second.status_code, second.json()["type"].rsplit("/")[-1]) == (500, "internal")
    assert "late" not in second.text  # nothing of the inside is shown
    assert second.json()["trace_id"] == second.headers["x-request-id"]
    assert await everything(api.maker) == before


async def test_the_classic_paths_are_at_the_root_too(api: Api) -> None:
    await add_model(api.maker)
    viewer = await api.as_("viewer")
    async with httpx.AsyncClient(base_url=api.url, headers=viewer.headers) as root:
        for path in ("/models", "/models/fraud", "/models/fraud/performance", "/experiments", "/health"):
            assert (await root.get(path)).json().keys() == (await viewer.get(path)).json().keys()
        assert (await root.get("/openapi.json")).status_code == 200


async def test_whole_numbers_dates_and_what_a_path_takes_are_read_as_the_document_says(api: Api) -> None:
    admin = await api.as_("admin")
    made = await admin.post("/keys", json={"person": "p", "role": "viewer", "expires_in_s": 60.0, **WHY})
    assert made.status_code == 201, made.text  # JSON has one kind of number
    seen = {"name": "x", "at": "2026-11-21T12:00:00.123456789+05:30", "facts": {"n": 1.0, "big": 2**80}}
    assert (await admin.post("/webhooks/alerts", json=seen)).status_code == 202
    for path, methods in (("/keys", "GET, POST"), ("/policies/halt", "POST"), ("/policies/current", "GET")):
        answer = await admin.delete(path)
        assert (answer.status_code, answer.headers["allow"]) == (405, methods), path
