"""The main job on the whole stack: real Postgres, Redis, MLflow, every process, three trained models."""

import json
import os
import signal
import time
from collections.abc import Callable

import httpx
import pytest

from tests.support.flips import flip
from tests.support.stack import Stack, eventually
from tests.support.traffic import Traffic

pytestmark = pytest.mark.integration
MODELS = ("churn", "fraud", "categorization")


@pytest.mark.parametrize("model", MODELS)
def test_each_of_the_three_models_answers_and_the_answer_is_logged(stack: Stack, model: str) -> None:
    with stack.data_plane() as client, stack.admin() as admin:
        answer = client.post(f"/ml/{model}/predict", json=stack.example(model) | {"unit_id": "someone"})
        assert answer.status_code == 200, answer.text
        body = answer.json()
        assert {"prediction_id", "model", "model_version", "variant", "output"} <= body.keys()
        row = eventually(
            lambda: (r := admin.get(f"/predictions/{body['prediction_id']}")).status_code == 200 and r.json(),
            "the prediction in Postgres",
        )
    assert (row["model"], row["served_version"], row["unit_id"]) == (model, body["model_version"], "someone")


def test_exactly_one_production_version_of_each_model_and_mlflow_says_the_same(stack: Stack) -> None:
    for model in MODELS:
        versions = stack.json("versions", model)
        production = [v["version"] for v in versions if v["stage"] == "Production"]
        assert len(production) == 1

        def mirrored(name: str = model, version: str = production[0]) -> bool:
            url = stack.url("MLFLOW") + "/api/2.0/mlflow/registered-models/alias"
            answer = httpx.get(url, params={"name": name, "alias": "production"})
            return bool(answer.json()["model_version"]["version"] == version)

        eventually(mirrored, f"alias production of {model}")


def test_ten_promotions_and_rollbacks_under_load_fail_no_request(
    stack: Stack, second_churn: tuple[str, str], record_property: Callable[[str, object], None]
) -> None:
    first, second = second_churn
    with Traffic(stack.url("ROUTER"), stack.key("predictor"), "churn", stack.example("churn"), rate=300) as traffic:
        flips = flip(traffic, stack.mlcp, first, second)
    record_property("rollback_to_first_answer_s", flips.back_s)  # limits: benchmarks/stack
    record_property("requests_per_s", flips.requests_per_s)
    assert not traffic.failed, traffic.failed[:5]
    assert traffic.versions() == {first, second}
    assert len(traffic.answers) > 1_000


@pytest.mark.parametrize("victim", ["api", "reconciler", "worker", "mlflow", "ingester", "shipper"])
def test_predictions_go_on_while_a_killed_process_comes_back(stack: Stack, victim: str) -> None:
    before = stack.process(victim)
    with Traffic(stack.url("ROUTER"), stack.key("predictor"), "fraud", stack.example("fraud"), rate=100) as traffic:
        time.sleep(0.5)
        os.kill(before["pid"], signal.SIGKILL)
        eventually(
            lambda: (now := stack.process(victim))["state"] == "ready" and now["pid"] != before["pid"],
            f"{victim} again",
        )
        time.sleep(0.5)
    assert len(traffic.answers) > 50
    assert not traffic.failed, traffic.failed[:5]


def test_a_killed_model_server_worker_costs_no_request_and_comes_back(stack: Stack) -> None:
    parent = stack.process("fraud-")["pid"]

    def workers() -> set[int]:
        with open(f"/proc/{parent}/task/{parent}/children") as children:
            return {int(pid) for pid in children.read().split()}

    before = workers()
    assert len(before) >= 2
    with Traffic(stack.url("ROUTER"), stack.key("predictor"), "fraud", stack.example("fraud"), rate=200) as traffic:
        time.sleep(0.5)
        victim = min(before)
        os.kill(victim, signal.SIGKILL)
        eventually(lambda: len(workers() - {victim}) >= len(before), "the worker again")
        time.sleep(1)
    assert not traffic.failed, traffic.failed[:5]


def test_every_answered_prediction_is_in_postgres_exactly_once_after_the_kills(stack: Stack) -> None:
    with Traffic(
        stack.url("ROUTER"), stack.key("predictor"), "categorization", stack.example("categorization"), rate=200
    ) as traffic:
        for victim in ("ingester", "shipper", "redis"):
            pid = stack.process(victim)["pid"]
            os.kill(pid, signal.SIGKILL)
            eventually(
                lambda victim=victim, pid=pid: (
                    stack.process(victim)["pid"] != pid and stack.process(victim)["state"] == "ready"
                ),
                f"{victim} again",
            )
    assert not traffic.failed, traffic.failed[:5]
    with stack.admin() as admin:

        def missing() -> list[str]:
            return [
                answer.prediction_id
                for answer in traffic.answers[:: max(1, len(traffic.answers) // 200)]
                if answer.prediction_id and admin.get(f"/predictions/{answer.prediction_id}").status_code != 200
            ]

        eventually(lambda: not missing(), "all of them in Postgres", every=1)


def test_with_everything_else_dead_a_pin_sends_a_model_back(stack: Stack, second_churn: tuple[str, str]) -> None:
    first, second = second_churn
    stack.mlcp("promote", "churn", second, "--reason", "for the drill", "--wait")
    supervisor = json.loads((stack.home / "run" / "status.json").read_text())["supervisor_pid"]
    dead = ("api", "reconciler", "worker", "ingester", "shipper", "redis", "mlflow", "postgres")
    with stack.data_plane() as client:

        def version() -> str:
            answer = client.post("/ml/churn/predict", json=stack.example("churn"))
            assert answer.status_code == 200, answer.text
            return str(answer.json()["model_version"])

        def again(name: str) -> bool:
            process = stack.process(name)
            return process["state"] == "ready" and process["pid"] != killed[name]

        os.kill(supervisor, signal.SIGSTOP)  # else it would start them again within the second
        killed = {name: stack.process(name)["pid"] for name in dead}
        try:
            for pid in killed.values():
                os.kill(pid, signal.SIGKILL)
            assert version() == second
            stack.mlcp("router", "pin", "churn", "--previous", "--reason", "night shift", timeout=240)
            eventually(lambda: version() == first, "answers of the previous version")
        finally:
            os.kill(supervisor, signal.SIGCONT)
        eventually(lambda: all(again(name) for name in dead), "everything again", every=1)
        assert version() == first, "a pin holds until it is released"
        stack.mlcp("router", "release", "churn", "--reason", "day shift")
        eventually(lambda: version() == second, "the routed version again")
    with stack.admin() as admin:

        def audited() -> bool:
            rows = admin.get("/audit", params={"limit": 200}).json()["items"]
            actions = {row["action"] for row in rows}
            return {"router.pinned", "router.released"} <= actions

        eventually(audited, "the pin and its release in the audit")
    stack.mlcp("rollback", "churn", "--reason", "drill over", "--wait")


def test_the_audit_chain_holds_at_the_end(stack: Stack) -> None:
    verified = stack.json("audit", "verify")
    assert verified["ok"] is True, json.dumps(verified)
    assert verified["links"] > 20
