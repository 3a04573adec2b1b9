"""The prediction clients against a real HTTP server, and the test double that takes their place."""

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID

import pytest

from control_plane import errors
from control_plane.sdk import AsyncPredictionClient, ControlPlane, PredictionClient, Predictions, async_every, every
from control_plane.sdk.testing import AsyncFakePredictions, FakePredictions
from tests.support import views
from tests.support.answering import Answer, Answering, answering


@pytest.fixture
def server() -> Iterator[Answering]:
    with answering() as state:
        yield state


@pytest.fixture
def ml(server: Answering) -> Iterator[PredictionClient]:
    with PredictionClient(server.url, "secret") as client:
        yield client


def test_an_answer_is_typed_by_what_the_model_says(server: Answering, ml: PredictionClient) -> None:
    server.ok("POST", "/ml/fraud/predict", views.prediction())
    server.ok(
        "POST", "/ml/fraud/predict", views.prediction(output={"label": "food", "probability": 0.5}, decision=None)
    )
    server.ok("POST", "/ml/fraud/predict", views.prediction(output={"value": [1, 2]}, variant=None, logged=False))
    binary, multiclass, foreign = (ml.predict("fraud", {"amount": 3}, unit_id="c1") for _ in range(3))
    assert (binary.probability, binary.decision, binary.label, binary.logged) == (0.91, "block", None, True)
    assert (multiclass.label, multiclass.probability) == ("food", 0.5)
    assert (foreign.value, foreign.probability, foreign.logged) == ([1, 2], None, False)
    assert server.asked[0].body["features"] == {"amount": 3}
    assert server.asked[0].body["unit_id"] == "c1"
    assert "model_version" not in server.asked[0].body


def test_a_prediction_sent_twice_keeps_its_request_id(server: Answering, ml: PredictionClient) -> None:
    server.declare("POST", "/ml/fraud/predict", Answer(drop=True), Answer(200, views.prediction()))
    ml.predict("fraud", {"amount": 3})
    assert len(server.asked) == 2
    assert len({asked.body["request_id"] for asked in server.asked}) == 1
    ml.predict("fraud", {}, request_id="mine", model_version="2")
    assert server.asked[-1].body == {"features": {}, "request_id": "mine", "model_version": "2"}


def test_a_product_service_is_not_kept_waiting_for_a_dead_model(server: Answering, ml: PredictionClient) -> None:
    server.problem("POST", "/ml/fraud/predict", 503, "target-unavailable")
    began = datetime.now(UTC)
    with pytest.raises(errors.TargetUnavailable):
        ml.predict("fraud", {})
    assert len(server.asked) == 2
    assert (datetime.now(UTC) - began).total_seconds() < 1


def test_a_body_that_does_not_fit_names_every_feature(server: Answering, ml: PredictionClient) -> None:
    reasons = ["features.amount: missing", "features.foo: unknown"]
    server.problem("POST", "/ml/fraud/predict", 422, "invalid-input", reasons=reasons)
    with pytest.raises(errors.InvalidInput) as caught:
        ml.predict("fraud", {"foo": 1})
    assert caught.value.extra["reasons"] == reasons
    assert len(server.asked) == 1


def test_an_outcome_carries_an_id_so_that_it_may_be_sent_again(server: Answering, ml: PredictionClient) -> None:
    server.declare("POST", "/ml/fraud/outcomes", Answer(drop=True), Answer(202, {"accepted": 1}))
    at = datetime(2026, 11, 20, tzinfo=UTC)
    taken = ml.outcome("fraud", 12.5, unit_id="c1", name="chargeback", currency="EUR", observed_at=at)
    assert taken.accepted == 1
    first, second = (asked.body[0] for asked in server.asked)
    assert first == second
    assert UUID(first.pop("outcome_id")).version == 7
    assert first == {
        "name": "chargeback",
        "value": 12.5,
        "observed_at": "2026-11-20T00:00:00+00:00",
        "unit_id": "c1",
        "currency": "EUR",
    }


def test_many_rows_many_outcomes_and_an_explanation(server: Answering, ml: PredictionClient) -> None:
    answers = [{"output": {"probability": p}} for p in (0.1, 0.9)]
    server.ok("POST", "/ml/fraud/batch_predict", {"model": "fraud", "version": "3", "predictions": answers})
    server.ok("POST", "/ml/fraud/outcomes", {"accepted": 2}, 202)
    told = {"space": "margin", "base": 0.5, "contributions": {"amount": 1.0}, "of": None}
    server.ok("POST", "/ml/fraud/explain", {"output": {"probability": 0.9}, "explanation": told})
    server.ok("GET", "/ml/fraud/example", {"features": {"amount": 1}})
    assert [answer.output for answer in ml.batch("fraud", [{"amount": 1}, {"amount": 2}]).predictions] == [
        {"probability": 0.1},
        {"probability": 0.9},
    ]
    assert server.asked[0].body == {"rows": [{"amount": 1}, {"amount": 2}]}
    assert ml.outcomes("fraud", [{"unit_id": c, "value": True} for c in "ab"]).accepted == 2
    assert ml.explain("fraud", ml.example("fraud")).explanation.contributions == {"amount": 1.0}


async def test_the_asynchronous_client_does_the_same(server: Answering) -> None:
    server.declare("POST", "/ml/fraud/predict", Answer(503), Answer(200, views.prediction()))
    server.ok("POST", "/ml/fraud/outcomes", {"accepted": 1}, 202)
    async with AsyncPredictionClient(server.url, "secret") as ml:
        answer = await ml.predict("fraud", {"amount": 3}, unit_id="c1")
        assert (await ml.outcome("fraud", True, prediction_id=answer.prediction_id)).accepted == 1
    assert server.asked[-1].body[0]["prediction_id"] == answer.prediction_id


def test_its_key_is_the_predictors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, server: Answering) -> None:
    monkeypatch.delenv("MLCP_PREDICT_KEY", raising=False)
    monkeypatch.setenv("MLCP_HOME", str(tmp_path))
    monkeypatch.setenv("MLCP_ROUTER_URL", server.url)
    with pytest.raises(errors.Unauthenticated, match=r"predictor\.key"):
        PredictionClient()
    (tmp_path / "keys").mkdir()
    (tmp_path / "keys" / "predictor.key").write_text("p\n")
    server.ok("GET", "/ml/fraud/example", {"features": {}})
    with PredictionClient() as ml:
        ml.example("fraud")
    assert server.asked[0].headers["authorization"] == "Bearer p"


class TestPages:
    def pages(self, server: Answering) -> None:
        for items, cursor in ((["a", "b"], "b"), (["c"], None)):
            server.ok("GET", "/api/v1/models", {"items": [views.model(name) for name in items], "next": cursor})

    def test_every_item_of_every_page_comes_in_order(self, server: Answering) -> None:
        self.pages(server)
        with ControlPlane(server.url, "k") as cp:
            assert [model.name for model in every(cp.models, limit=2)] == ["a", "b", "c"]
        assert [asked.query.get("cursor") for asked in server.asked] == [None, "b"]

    async def test_the_asynchronous_client_too(self, server: Answering) -> None:
        from control_plane.sdk import AsyncControlPlane

        self.pages(server)
        async with AsyncControlPlane(server.url, "k") as cp:
            assert [model.name async for model in async_every(cp.models)] == ["a", "b", "c"]


def checkout(ml: Predictions, customer: str, amount: float) -> str:
    """A product service, as its author would test it."""
    try:
        answer = ml.predict("fraud", {"amount": amount}, unit_id=customer)
    except errors.Unavailable:
        return "accepted"
    if answer.decision == "block":
        ml.outcome("fraud", True, prediction_id=answer.prediction_id)
        return "blocked"
    return "accepted"


class TestFake:
    def test_product_code_runs_on_the_fake_as_on_the_client(self, server: Answering, ml: PredictionClient) -> None:
        server.ok("POST", "/ml/fraud/predict", views.prediction())
        server.ok("POST", "/ml/fraud/outcomes", {"accepted": 1}, 202)
        fake = FakePredictions()
        fake.answers("fraud", output={"probability": 0.91}, decision="block", threshold=0.4, model_version="3")
        assert checkout(ml, "c1", 5.0) == checkout(fake, "c1", 5.0) == "blocked"
        real = ml.predict("fraud", {})
        double = fake.predict("fraud", {})
        assert double.model_copy(update={"prediction_id": real.prediction_id}) == real

    def test_it_keeps_what_it_was_asked_and_told(self) -> None:
        fake = FakePredictions()
        fake.answers("fraud", output={"probability": 0.91}, decision="block")
        assert checkout(fake, "c1", 120.5) == "blocked"
        [asked], [told] = fake.predicted, fake.reported
        assert (asked.model, asked.features, asked.unit_id) == ("fraud", {"amount": 120.5}, "c1")
        assert (told.value, told.name, told.prediction_id) == (True, "label", asked.prediction_id)

    def test_declared_answers_come_in_order_the_last_one_stays_and_failures_are_raised(self) -> None:
        fake = FakePredictions()
        fake.fails("fraud", errors.TargetUnavailable("dead"))
        fake.answers("fraud", output={"probability": 0.1}, decision="pass")
        fake.answers("fraud", output={"probability": 0.9}, decision="block")
        assert [checkout(fake, "c", 1) for _ in range(4)] == ["accepted", "accepted", "blocked", "blocked"]
        assert fake.predicted[0].prediction_id is None

    def test_a_model_nobody_declared_is_not_found(self) -> None:
        with pytest.raises(errors.NotFound, match="churn"):
            FakePredictions().predict("churn", {})

    async def test_the_asynchronous_fake_shares_its_declarations(self) -> None:
        ml = AsyncFakePredictions()
        ml.fake.answers("fraud", output={"probability": 0.9}, decision="block")
        answer = await ml.predict("fraud", {"amount": 1}, unit_id="c1")
        await ml.outcome("fraud", False, prediction_id=answer.prediction_id)
        assert ml.fake.reported[0].prediction_id == answer.prediction_id == ml.fake.predicted[0].prediction_id
