"""The classic calls do what the clients' calls do."""

from collections.abc import Iterator

import pytest

from control_plane import errors
from control_plane.sdk import ControlPlane, PredictionClient, deploy_model, get_performance, record_prediction
from tests.support import views
from tests.support.answering import Answering, answering

PROMOTE, ROLLOUT = f"{views.API}/models/fraud/promote/production", f"{views.API}/rollouts/{views.ROLLOUT_ID}"


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Answering]:
    with answering() as state:
        for name in ("API", "ROUTER"):
            monkeypatch.setenv(f"MLCP_{name}_URL", state.url)
        for name in ("API", "PREDICT"):
            monkeypatch.setenv(f"MLCP_{name}_KEY", "k")
        yield state


def test_deploy_is_promote_and_wait(server: Answering) -> None:
    server.ok("POST", PROMOTE, views.rollout(), 202)
    server.ok("GET", ROLLOUT, views.rollout(phase="baking", applied=True, cut_over=True))
    deployed = deploy_model("fraud", "2", reason="better")
    with ControlPlane() as cp:
        assert deployed == cp.wait_rollout(cp.promote("fraud", "2", reason="better"))
    asked = [(call.method, call.path, call.body) for call in server.asked]
    assert asked[:2] == asked[2:]


def test_deploy_of_what_its_gates_refuse_is_an_error_with_every_reason(server: Answering) -> None:
    server.problem("POST", PROMOTE, 409, "gates-not-met", reasons=["a", "b"])
    with pytest.raises(errors.GatesNotMet) as caught:
        deploy_model("fraud", reason="better")
    assert caught.value.extra["reasons"] == ["a", "b"]


def test_recording_a_prediction_is_asking_for_it_and_telling_the_truth(server: Answering) -> None:
    server.ok("POST", "/ml/fraud/predict", views.prediction())
    server.ok("POST", "/ml/fraud/outcomes", {"accepted": 1}, 202)
    recorded = record_prediction("fraud", {"amount": 3}, unit_id="c1", actual=True)
    with PredictionClient() as ml:
        assert recorded == ml.predict("fraud", {"amount": 3}, unit_id="c1")
    told = server.asked[1].body[0]
    assert (told["prediction_id"], told["value"], told["name"]) == (recorded.prediction_id, True, "label")
    record_prediction("fraud", {"amount": 3})
    assert [call.path for call in server.asked[-2:]] == ["/ml/fraud/predict"] * 2  # no truth, no outcome


def test_performance_is_performance(server: Answering) -> None:
    view = {"model": "fraud", "period": "7d", "since": views.AT, "until": views.AT, "predictions": 5, "labelled": 0}
    server.ok("GET", f"{views.API}/models/fraud/performance", view | {"accuracy": None, "versions": [], "note": "none"})
    with ControlPlane() as cp:
        assert get_performance("fraud", period="7d") == cp.performance("fraud", period="7d")
    assert server.asked[0].query == {"period": "7d"}
