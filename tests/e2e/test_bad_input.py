"""What a hostile or careless client sends: a problem document with the right status and every reason, and no change."""

from typing import Any

import httpx
import pytest

from tests.support.stack import Stack

pytestmark = pytest.mark.integration
MB = 2**20


def state(stack: Stack) -> tuple[Any, ...]:
    with stack.admin() as admin:
        head = admin.get("/audit", params={"limit": 1}).json()["items"]
        return (
            [admin.get(f"/models/{m}").json() for m in ("churn", "fraud")],
            len(admin.get("/rollouts", params={"limit": 200}).json()["items"]),
            head[0]["seq"] if head else 0,
        )


def assert_problem(answer: httpx.Response, status: int, *reasons: str) -> None:
    assert answer.status_code == status, (answer.status_code, answer.text[:500])
    assert answer.headers["content-type"].startswith("application/problem+json")
    problem = answer.json()
    assert problem["status"] == status
    assert {"type", "title", "detail"} <= problem.keys()
    assert "Traceback" not in answer.text
    text = " | ".join([problem["detail"], *problem.get("reasons", [])])
    for reason in reasons:
        assert reason in text, text


def changed(body: dict[str, Any], **features: Any) -> dict[str, Any]:
    return body | {"features": body["features"] | features}


def test_a_bad_predict_body_is_refused_with_every_field_named(stack: Stack) -> None:
    good = stack.example("churn")
    number = next(k for k, v in good["features"].items() if isinstance(v, float | int) and not isinstance(v, bool))
    word = next(k for k, v in good["features"].items() if isinstance(v, str))
    with stack.data_plane() as client:

        def send(content: bytes) -> httpx.Response:
            return client.post("/ml/churn/predict", content=content, headers={"content-type": "application/json"})

        for malformed in (
            b"",
            b"{",
            b"[]",
            b'"x"',
            b"null",
            b"\xff\xfe",
            b'{"features": {"a": NaN}}',
            b'{"features": 1}',
        ):
            answer = send(malformed)
            assert answer.status_code in {400, 422}, (malformed, answer.text)
            assert_problem(answer, answer.status_code)
        text = httpx.Request("POST", "http://x", json=changed(good, **{number: 12345.5})).content
        for literal in (b"NaN", b"Infinity", b"-Infinity", b"1e999"):
            assert_problem(send(text.replace(b"12345.5", literal)), 422, number)
        answer = client.post("/ml/churn/predict", json=changed(good, **{number: "many", "no_such_feature": 1}))
        assert_problem(answer, 422, number, "no_such_feature")
        missing = {k: v for k, v in good["features"].items() if k not in {number, word}}
        assert_problem(client.post("/ml/churn/predict", json=good | {"features": missing}), 422, number, word)
        assert_problem(client.post("/ml/churn/predict", json=changed(good, **{word: {"a": [1]}})), 422, word)
        assert_problem(client.post("/ml/churn/predict", json=good | {"unit_id": "é" * 65}), 422, "unit_id")
        assert_problem(send(b'{"features": {"a": "' + b"x" * (20 * MB) + b'"}}'), 413)
        assert client.post("/ml/churn/predict", json=good).status_code == 200


def test_an_unknown_model_version_or_key_is_refused(stack: Stack) -> None:
    good = stack.example("churn")
    with stack.data_plane() as client:
        assert_problem(client.post("/ml/nosuchmodel/predict", json=good), 404)
        nobody = {"authorization": "Bearer wrong"}
        assert_problem(client.post("/ml/churn/predict", json=good, headers=nobody), 401)
        assert_problem(httpx.post(stack.url("ROUTER") + "/ml/churn/predict", json=good), 401)
        pinned = client.post("/ml/churn/predict", json=good | {"model_version": "1"})
        assert_problem(pinned, 403)
    with stack.data_plane("admin") as client:
        assert_problem(client.post("/ml/churn/predict", json=good | {"model_version": "999"}), 404)


def test_a_bad_admin_call_is_refused_and_changes_nothing(stack: Stack) -> None:
    before = state(stack)
    with stack.admin() as admin, stack.admin("predictor") as powerless:
        why = {"reason": "test"}
        assert_problem(admin.post("/models/nosuchmodel/promote/production", json=why), 404)
        assert_problem(admin.post("/models/churn/promote/production", json=why | {"version": "999"}), 404)
        assert_problem(admin.post("/models/churn/promote/heaven", json=why), 422)
        assert_problem(admin.post("/models/churn/promote/production", json=why | {"strategy": "magic"}), 422)
        assert_problem(admin.post("/models/churn/promote/production", content=b"{"), 422)
        assert_problem(admin.post("/models/churn/promote/production", content=b"x" * (20 * MB)), 413)
        assert_problem(powerless.post("/models/churn/promote/production", json=why), 403)
        assert_problem(powerless.post("/models/churn/rollback", json=why), 403)
        assert_problem(httpx.post(stack.url("API") + "/api/v1/models/churn/rollback", json=why), 401)
        assert_problem(admin.get("/no/such/route"), 404)
        assert_problem(admin.get("/rollouts/not-a-uuid"), 422)
    assert state(stack) == before
