"""Idempotency-Key: one request is carried out once, however often it is sent."""

import asyncio

import pytest
from sqlalchemy import text

from tests.support.api import Api, add_model, everything

pytestmark = pytest.mark.integration
PROMOTE = "/models/fraud/promote/production"
BODY = {"version": "1", "reason": "a test"}


async def test_the_same_request_gets_the_same_answer_and_is_done_once(api: Api) -> None:
    await add_model(api.maker)
    operator = await api.as_("operator")
    once = {"Idempotency-Key": "k1"}
    first = await operator.post(PROMOTE, json=BODY, headers=once)
    after = await everything(api.maker)
    second = await operator.post(PROMOTE, json=BODY, headers=once)
    assert (first.status_code, second.status_code) == (202, 202)
    assert (second.json(), second.headers["idempotency-replayed"]) == (first.json(), "true")
    assert await everything(api.maker) == after


async def test_the_key_of_another_request_is_refused(api: Api) -> None:
    await add_model(api.maker)
    operator, other = await api.as_("operator"), await api.as_("admin")
    once = {"Idempotency-Key": "k1"}
    await operator.post(PROMOTE, json=BODY, headers=once)
    for path, body in ((PROMOTE, {**BODY, "version": "2"}), ("/models/fraud/rollback", {"reason": "a test"})):
        answer = await operator.post(path, json=body, headers=once)
        assert (answer.status_code, answer.json()["type"].rsplit("/")[-1]) == (409, "idempotency-mismatch")
    theirs = await other.post("/models/fraud/retrain", json={"reason": "x"}, headers=once)
    assert theirs.status_code == 202  # keys belong to whoever sends them


async def test_twins_sent_at_once_are_done_once_and_answered_alike(api: Api) -> None:
    await add_model(api.maker)
    operator = await api.as_("operator")
    post = operator.post
    answers = await asyncio.gather(*(post(PROMOTE, json=BODY, headers={"Idempotency-Key": "k"}) for _ in range(6)))
    assert {answer.status_code for answer in answers} == {202}
    assert len({answer.text for answer in answers}) == 1


async def test_a_refusal_is_not_remembered(api: Api) -> None:
    await add_model(api.maker)
    operator = await api.as_("operator")
    once = {"Idempotency-Key": "k"}
    assert (await operator.post("/models/fraud/rollback", json={"reason": "x"}, headers=once)).status_code == 409
    assert (await operator.post(PROMOTE, json=BODY, headers=once)).status_code == 202


async def test_a_secret_is_shown_once_and_kept_nowhere(api: Api) -> None:
    admin = await api.as_("admin")
    spec = {"person": "eve", "role": "viewer", "reason": "x"}
    first = await admin.post("/keys", json=spec, headers={"Idempotency-Key": "k"})
    assert first.status_code == 201
    secret = first.json()["secret"]
    again = await admin.post("/keys", json=spec, headers={"Idempotency-Key": "k"})
    assert (again.status_code, again.json()["type"].rsplit("/")[-1]) == (409, "conflict")
    assert secret not in again.text
    async with api.maker.begin() as session:
        tables = await session.scalars(
            text("SELECT relname FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace")
        )
        for table in tables.all():
            rows = await session.scalars(text(f"SELECT t::text FROM {table} t"))
            hexed = secret.encode().hex()
            assert not [row for row in rows if secret in row or hexed in row], table
    assert len((await admin.get("/keys")).json()["items"]) == 2


async def test_outcomes_sent_twice_are_stored_once(api: Api) -> None:
    await add_model(api.maker)
    product = await api.as_("predictor")
    identity = "01890000-0000-7000-8000-000000000001"
    outcome = {"model": "fraud", "unit_id": "u1", "value": True, "outcome_id": identity}
    batch = [outcome, {"model": "fraud", "unit_id": "u2", "name": "refund", "value": 12.5, "currency": "EUR"}]
    first = await product.post("/outcomes", json=batch)
    assert (first.status_code, first.json()) == (201, {"accepted": 2, "known": 0})
    second = await product.post("/outcomes", json=outcome)  # one alone, without a list
    assert (second.status_code, second.json()) == (201, {"accepted": 0, "known": 1})
    half = await product.post(
        "/outcomes", json=[{**outcome, "outcome_id": None}, {"model": "no-such", "unit_id": "u", "value": 1}]
    )
    assert half.status_code == 422
    async with api.maker.begin() as session:
        assert await session.scalar(text("SELECT count(*) FROM outcomes")) == 2
