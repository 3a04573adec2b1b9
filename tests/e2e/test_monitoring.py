"""A real Prometheus and Alertmanager over the real processes: rules load, alerts travel, dashboards show something."""

import json
import os
import re
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from infra.monitoring import preview
from infra.monitoring.__main__ import BOARDS
from tests.integration.test_alert_rules import FILES
from tests.support.monitoring import RUNBOOKS, SECRET, Monitoring, monitoring
from tests.support.stack import Stack, eventually
from tests.support.traffic import Traffic

pytestmark = pytest.mark.integration
DASHBOARDS = Path(__file__).parents[2] / "infra" / "grafana" / "dashboards"
CANARY = {
    "strategy": "canary",
    "steps": [{"weight": 50, "hold_s": 3_600}],
    "bake_s": 0,
    "analysis": {"observation_s": 1, "interval_s": 1, "metrics": [{"name": "error_rate"}]},
    "reason": "to be looked at",
}


@pytest.fixture(scope="module")
def watched(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Monitoring]:
    with monitoring(tmp_path_factory.mktemp("monitoring"), f"127.0.0.1:{stack.ports['ROUTER']}") as found:
        yield found


def test_prometheus_loads_every_rule_and_evaluates_it_on_the_real_processes(watched: Monitoring) -> None:
    def evaluated() -> list[dict[str, Any]] | None:
        groups = httpx.get(f"{watched.url}/api/v1/rules").json()["data"]["groups"]
        found = [rule for group in groups if not group["name"].startswith("fast ") for rule in group["rules"]]
        return found if all(rule["health"] != "unknown" for rule in found) else None

    found = eventually(evaluated, "every rule evaluated")
    wanted = [
        rule.get("alert") or rule["record"]
        for file in FILES
        for group in yaml.safe_load(file.read_text())["groups"]
        for rule in group["rules"]
    ]
    assert sorted(rule["name"] for rule in found) == sorted(wanted)
    assert [(rule["name"], rule["lastError"]) for rule in found if rule["health"] != "ok"] == []
    beats = "count by (process) (mlcp_process_heartbeat_timestamp_seconds)"
    heard = eventually(lambda: watched.query(beats), "beats")
    assert {series["metric"]["process"] for series in heard} == {
        *("api", "reconciler", "worker", "shipper", "ingester", "router")
    }
    assert watched.query("mlcp_audit_chain_intact")[0]["value"][1] == "1"


def test_an_alert_travels_from_the_routers_metrics_to_the_webhook_and_resolves(
    stack: Stack, watched: Monitoring
) -> None:
    labels = {"alertname": "ModelAvailabilityBudgetBurn", "model_name": "fraud", "severity": "critical"}
    parent = stack.process("fraud-")["pid"]
    children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
    with Traffic(stack.url("ROUTER"), stack.key("predictor"), "fraud", stack.example("fraud"), rate=40):
        eventually(lambda: watched.query('rate(model_predictions_total{model_name="fraud"}[5s]) > 0'), "traffic")
        assert not watched.alerts(**labels, status="firing")
        for pid in children:
            os.kill(int(pid), signal.SIGSTOP)
        try:
            told = eventually(lambda: watched.alerts(**labels, clock="fast"), "the alert at the webhook")
        finally:
            for pid in children:
                os.kill(int(pid), signal.SIGCONT)
        assert told[0]["status"] == "firing"
        page = f"{RUNBOOKS}/model-availability-budget-burn.md"
        assert told[0]["annotations"]["runbook_url"] == page
        assert re.search(r"fraud does not answer [\d.]+% of", told[0]["annotations"]["summary"])
        assert "runbook_base" not in told[0]["labels"]
        assert watched.received[0][0] == f"Bearer {SECRET}"
        eventually(
            lambda: [alert for alert in watched.alerts(**labels, clock="fast") if alert["status"] == "resolved"],
            "the end of the alert at the webhook",
        )


@pytest.fixture(scope="module")
def eventful(stack: Stack, second_churn: tuple[str, str], watched: Monitoring) -> Iterator[Monitoring]:
    """What has to have happened before every panel has something to show: customers, truth, a canary, a job, a key."""
    odd = stack.example("fraud")
    odd["features"] = {**odd["features"], "amount": 150_000.0}
    with stack.data_plane() as client, stack.admin() as admin:
        body = stack.example("categorization")
        answers = [client.post("/ml/categorization/predict", json=body).json() for _ in range(2)]
        truth = [{"prediction_id": answer["prediction_id"], "value": "FUEL"} for answer in answers]
        assert client.post("/ml/categorization/outcomes", json={"outcomes": truth}).status_code == 202
        person = {"person": "someone", "role": "viewer", "expires_in_s": 86_400, "reason": "expires"}
        assert admin.post("/keys", json=person).status_code == 201
        assert stack.mlcp("erase", "nobody-there", "--reason", "a job").returncode == 0
        _, second = second_churn
        begun = admin.post("/models/churn/promote/production", json={**CANARY, "version": second})
        assert begun.status_code in {200, 201, 202}, begun.text
        rollout = begun.json()["id"]
        try:
            key = stack.key("predictor")
            with (
                Traffic(stack.url("ROUTER"), key, "churn", stack.example("churn"), rate=30, units=400),
                Traffic(stack.url("ROUTER"), key, "fraud", odd, rate=5),
                Traffic(stack.url("ROUTER"), key, "categorization", stack.example("categorization"), rate=5),
            ):
                yield watched
        finally:
            admin.post(f"/rollouts/{rollout}/abort", json={"reason": "looked at"})


def panels(name: str) -> list[tuple[str, str]]:
    """(title, query) of every query of a dashboard, with Grafana's variables filled in."""
    board = json.loads((DASHBOARDS / f"{name}.json").read_text())
    filled = {"$model": ".*", "$__rate_interval": "30s"}
    found: list[tuple[str, str]] = []
    for panel in board["panels"]:
        for target in panel.get("targets", ()):
            expr = target["expr"]
            for variable, value in filled.items():
                expr = expr.replace(variable, value)
            found.append((panel["title"], expr))
    return found


@pytest.mark.parametrize("name", [board.uid.removeprefix("mlcp-") for board in BOARDS])
def test_every_query_of_a_dashboard_returns_data_of_the_real_processes(eventful: Monitoring, name: str) -> None:
    waiting = panels(name)
    assert waiting
    deadline = time.monotonic() + 180
    while waiting := [(title, expr) for title, expr in waiting if not eventful.query(expr)]:
        assert time.monotonic() < deadline, f"nothing to see in {waiting}"
        time.sleep(1)


def test_a_dashboard_can_be_drawn_without_grafana(eventful: Monitoring, tmp_path: Path) -> None:
    """MLCP_TEST_PREVIEWS: a folder that gets a picture of each dashboard."""
    given = os.environ.get("MLCP_TEST_PREVIEWS")
    for board in BOARDS if given else BOARDS[3:4]:
        drawn = preview.draw(board, eventful.url, Path(given) if given else tmp_path, minutes=3)
        assert drawn.read_bytes().startswith(b"\x89PNG")
        assert drawn.stat().st_size > 20_000
