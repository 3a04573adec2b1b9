"""Every rule is loaded, proven by promtool both ways, and says what to do."""

import re
import subprocess
from collections import defaultdict
from glob import glob
from pathlib import Path
from typing import Any

import pytest
import yaml

from control_plane.adapters.metrics import LATENCY_BUCKETS_S
from control_plane.telemetry import Metric
from infra.monitoring import __main__ as made
from infra.monitoring import slo
from model_servers import generator
from tests.support import tools

pytestmark = pytest.mark.integration
ROOT = Path(__file__).parents[2]
PROMETHEUS = ROOT / "infra" / "prometheus"
PAGES = ROOT / "docs" / "operations" / "alerts"
FILES = [*sorted((PROMETHEUS / "rules").glob("*.yaml")), *sorted((ROOT / "model_servers").glob("*/prometheus.yaml"))]
OTHERS = {"ALERTS", "__name__", "up", "model_name"}


def rules() -> list[dict[str, Any]]:
    return [rule for file in FILES for group in yaml.safe_load(file.read_text())["groups"] for rule in group["rules"]]


ALERTS = [rule for rule in rules() if "alert" in rule]
NAMES = sorted({rule["alert"] for rule in ALERTS})


def page_of(alert: str) -> str:
    return re.sub(r"(?<!^)(?=[A-Z])", "-", alert).lower() + ".md"


def looks() -> dict[str, list[list[tuple[float, set[str]]]]]:
    """By alert and promtool test: when is looked, and the labels of what fires then."""
    found = defaultdict[str, list[list[tuple[float, set[str]]]]](list)
    for file in sorted((PROMETHEUS / "tests").glob("*.yaml")):
        for test in yaml.safe_load(file.read_text())["tests"]:
            of_test = defaultdict[str, list[tuple[float, set[str]]]](list)
            for look in test["promql_expr_test"]:
                if alert := re.search(r'ALERTS\{alertname="(\w+)", alertstate="firing"\}', look["expr"]):
                    minutes = float(look["eval_time"][:-1]) * {"m": 1, "h": 60}[look["eval_time"][-1]]
                    of_test[alert[1]].append((minutes, {sample["labels"] for sample in look["exp_samples"]}))
            for name, seen in of_test.items():
                found[name].append(sorted(seen, key=lambda one: one[0]))
    return found


def test_prometheus_takes_every_rule_and_its_tests_pass() -> None:
    promtool = tools.program("promtool")
    for argv in (["check", "rules", *FILES], ["test", "rules", *sorted((PROMETHEUS / "tests").glob("*.yaml"))]):
        done = subprocess.run([promtool, *map(str, argv)], capture_output=True, text=True, timeout=240)
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("alert", NAMES)
def test_every_alert_is_seen_not_to_fire_to_fire_and_to_resolve(alert: str) -> None:
    courses = looks()[alert]
    fired = [
        (before, during, after)
        for course in courses
        for at, (_, during) in enumerate(course)
        for _, before in course[:at]
        for _, after in course[at + 1 :]
    ]
    assert any(during - before and during - after for before, during, after in fired), courses
    severities = {rule["labels"]["severity"] for rule in ALERTS if rule["alert"] == alert}
    seen = set(re.findall(r'severity="(\w+)"', str(courses)))
    assert seen == severities


@pytest.mark.parametrize("rule", ALERTS, ids=lambda rule: f"{rule['alert']}-{rule['labels']['severity']}")
def test_every_alert_says_what_is_wrong_how_bad_it_is_and_where_to_read_on(rule: dict[str, Any]) -> None:
    assert rule["labels"]["severity"] in {"critical", "warning"}
    said = rule["annotations"]
    assert said.keys() == {"summary", "description", "runbook_url"}
    assert said["runbook_url"] == slo.RUNBOOK + page_of(rule["alert"])


def test_every_alert_has_its_page_and_every_page_its_alert() -> None:
    assert {page.name for page in PAGES.glob("*.md")} == {page_of(alert) for alert in NAMES}
    for alert in NAMES:
        text = (PAGES / page_of(alert)).read_text()
        assert text.startswith(f"# {alert}\n\n"), alert
        assert re.findall("^## .*", text, re.MULTILINE) == ["## Look", "## Do"], alert


def test_rules_read_only_metrics_that_are_shown() -> None:
    names = {value for name, value in vars(Metric).items() if name.isupper()} | OTHERS
    for rule in rules():
        bare = re.sub(r'"[^"]*"|\{\{.*?\}\}', "", rule["expr"])
        for name in re.findall(r"\b(?:model|mlcp|mlflow)_\w+", bare):
            assert re.sub("_(bucket|count|sum)$", "", name) in names, rule


def test_the_configurations_are_taken_and_name_the_rules_of_every_model() -> None:
    config = PROMETHEUS / "prometheus.yml"
    routes = PROMETHEUS / "alertmanager.yml", ROOT / "infra" / "compose" / "alertmanager.yml"
    for argv in (["promtool", "check", "config", config], ["amtool", "check-config", *routes]):
        done = subprocess.run([tools.program(str(argv[0])), *map(str, argv[1:])], capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
    patterns = yaml.safe_load(config.read_text())["rule_files"]
    read = {Path(path).resolve() for pattern in patterns for path in glob(str(PROMETHEUS / pattern))}
    assert read == set(FILES)


def test_what_is_committed_is_what_would_be_made() -> None:
    assert made.main(["--check"]) == 0


def test_the_slow_share_knows_the_bounds_of_the_routers_histogram() -> None:
    assert generator.LATENCY_BOUNDS_S == LATENCY_BUCKETS_S
    for window in slo.WINDOWS:
        assert f"model:slow:ratio_rate{window}" in (ROOT / "model_servers/churn/prometheus.yaml").read_text()
