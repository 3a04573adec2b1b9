"""The loop closes by itself: drift is noticed, a version is trained on what customers do now, compared, rolled out, and
the alarm ends. Where there is only noise, nothing happens. And the same with people, as a bank would run it."""

import base64
import hmac
import json
import os
import re
import signal
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from datetime import datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from jsonschema import Draft202012Validator

from tests.support import history
from tests.support.history import Day
from tests.support.monitoring import monitoring
from tests.support.stack import Stack, eventually

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(2_400)]
PAGE = Path(__file__).parents[2] / "docs" / "howto" / "close-the-loop.md"
SECRET = "what Alertmanager and the control plane share"
QUICK = {
    "label": {"delay_s": 3_600, "absence_means": "unknown"},
    "rollout": {"strategy": "blue_green", "bake_s": 3},
    "metric": {"name": "roc_auc", "minimum": 0.6},
    "training": {"rows": 3_000, "candidates": ["logistic"], "unique": ["customer_id"], "test_share": 0.3},
}
POLICIES = {  # of the page people read
    policy["name"]: policy
    for found in re.findall(r"^```yaml\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    for policy in [yaml.safe_load(found)]
}
BY_HAND = {
    "kind": "policy",
    "name": "by_hand",
    "rules": {name: {"tier": "automatic"} for name in ("retrain", "deploy", "promote", "configure")},
    "diagnoses": [{"name": "noticed", "when": {}, "propose": ["log"]}],
}


@pytest.fixture(scope="module")
def looping() -> Iterator[Stack]:
    """A stack of its own that knows four models like churn, and judges a version's first hours."""
    with tempfile.TemporaryDirectory(prefix="mlcp-loop-", ignore_cleanup_errors=True) as folder:
        declared = Path(folder) / "models"
        for name in ("moved", "steady", "fragile", "governed"):
            history.declare(declared, name, **QUICK)
        stack = Stack(Path(folder) / "var")
        stack.extra = {"MLCP_MODELS": str(declared), "MLCP_MODELS_AT_START": "", "MLCP_DRIFT_EARLY": "true"}
        stack.extra |= {"MLCP_ALERT_WEBHOOK_SECRET": SECRET, "MLCP_JOB_TIMEOUT_S": "300"}
        try:
            stack.up()
            yield stack
        finally:
            stack.mlcp("down", check=False, timeout=120)


def place(stack: Stack, model: str) -> Path:
    return Path(stack.extra["MLCP_MODELS"]) / model


def begin(stack: Stack, model: str) -> None:
    """Version 1 in Production."""
    stack.mlcp("train", model, "--seed", "3")
    eventually(lambda: stage(stack, model, "1"), f"{model} 1 is known", every=0.5)
    stack.mlcp("promote", model, "1", "--reason", "the first", "--wait")


def days(stack: Stack, model: str, *, moved_since: int | None) -> list[Day]:
    """A week up to now; from `moved_since` days back on, other customers, and fiber means the opposite for them."""
    found: list[Day] = []
    for back in range(6, -1, -1):
        moved = moved_since is not None and back <= moved_since
        made = history.bodies(
            place(stack, model), 600 if moved else 300, seed=50 + back, scenario="drifted" if moved else "stable"
        )
        found.append(Day(back, history.turned(made, "internet_service", "fiber") if moved else made))
    return found


def apply(stack: Stack, policy: dict[str, Any]) -> None:
    file = stack.home / f"{policy['name']}.yaml"
    file.write_text(yaml.safe_dump(policy))
    stack.mlcp("apply", "-f", str(file), "--reason", "for this test")


def asked(stack: Stack, path: str, **query: Any) -> Any:
    """GET of the admin API; a command line for each look would cost more than the looks."""
    with stack.admin() as client:
        answer = client.get(path, params=query)
        assert answer.status_code == 200, answer.text
        return answer.json()


def incident(stack: Stack, model: str) -> dict[str, Any] | None:
    """The open one."""
    view = asked(stack, f"/models/{model}/drift")
    return view["incidents"][0] if view["alarm"] else None


def calm(stack: Stack, model: str) -> bool:
    """AssertionError with every reading while an incident is open."""
    view = asked(stack, f"/models/{model}/drift")
    assert not view["alarm"], [(r["kind"], r["verdict"], r["why"]) for r in view["readings"]]
    return True


def stage(stack: Stack, model: str, version: str) -> str | None:
    rows = asked(stack, f"/models/{model}/versions")["items"]
    return next((row["stage"] for row in rows if row["version"] == version), None)


def trainings(stack: Stack, model: str) -> list[dict[str, Any]]:
    return [job for job in asked(stack, "/jobs", model=model)["items"] if job["kind"] == "train"]


def ended(stack: Stack, model: str, count: int = 1, within: float = 480) -> dict[str, Any]:
    def look() -> dict[str, Any] | None:
        found = trainings(stack, model)
        over = len(found) >= count and found[0]["state"] in {"succeeded", "failed", "cancelled"}
        return found[0] if over else None

    found = eventually(look, f"retraining {count} of {model} is over", within=within, every=1)
    assert found is not None
    return found


def over(stack: Stack, model: str, replay: str) -> dict[str, Any] | None:
    found = asked(stack, f"/models/{model}/replays/{replay}")
    return found if found["state"] in {"succeeded", "failed", "cancelled"} else None


def looked_since(stack: Stack, model: str, moment: float) -> bool:
    at = asked(stack, f"/models/{model}/drift")["looked_at"]
    return at is not None and datetime.fromisoformat(at).timestamp() > moment


def live_between_looks(stack: Stack, model: str) -> None:
    """The week with other customers since three days ago, right after a look: the next one, a minute later, and what
    follows from it see all of it and not what had arrived by then."""

    def looked() -> None:
        begun = time.time()
        eventually(lambda: looked_since(stack, model, begun), f"a look at {model}", every=0.5)

    many = history.live_through(stack, model, "1", days(stack, model, moved_since=3), ready=looked)
    assert many == 3 * 300 + 4 * 600
    eventually(lambda: _logged(stack, model) == many, "all of it in Postgres", every=0.5)


def test_drift_is_noticed_answered_by_a_better_version_and_over_while_noise_leads_to_nothing(looping: Stack) -> None:
    apply(looping, POLICIES["closes_the_loop"])
    for model in ("moved", "steady"):
        begin(looping, model)
    noise = history.live_through(looping, "steady", "1", days(looping, "steady", moved_since=None))
    live_between_looks(looping, "moved")
    told = time.time()
    opened = eventually(lambda: incident(looping, "moved"), "the alarm", every=2)
    assert "performance" in opened["kinds"] or "data" in opened["kinds"]

    job = ended(looping, "moved")
    assert job["state"] == "succeeded", job
    assert (job["args"]["source"], job["created_by"]) == ("archive", "policy")
    result = job["result"]
    assert result["verdict"] == "pass", result
    assert result["gathered"]["rows"] == 3_300
    assert result["production"]["difference"]["low"] > 0
    assert result["production"]["version"] == "1"
    replayed = eventually(lambda: over(looping, "moved", result["replay"]), "the replay", every=1)
    assert (replayed["state"], replayed["report"]["rows"]) == ("succeeded", 3_300), replayed
    assert stage(looping, "moved", result["version"]) in {"Staging", "Production"}
    retrained = [
        row for row in looping.json("audit", "list", "--object", "model:moved") if row["action"] == "model.retrain"
    ]
    assert retrained[0]["evidence"]["production"]["difference"] == result["production"]["difference"]
    assert retrained[0]["after"]["stage"] == "Staging"

    eventually(lambda: stage(looping, "moved", result["version"]) == "Production", "the rollout", every=1)
    made = history.bodies(place(looping, "moved"), 1_500, seed=99, scenario="drifted")
    today = history.turned(made, "internet_service", "fiber")

    def asked_and_calm() -> bool:
        history.ask(looping, "moved", today)  # again, too: until a new version's reference is known nothing is counted
        return calm(looping, "moved")

    eventually(asked_and_calm, "the end of the alarm", within=480, every=20)
    metrics = httpx.get(f"{looping.url('ROUTER')}/metrics").text
    assert 'model_drift_alarm{model_name="moved"} 0.0' in metrics

    eventually(lambda: looked_since(looping, "steady", told + 60), "a look at noise", every=2)
    assert noise == 7 * 300
    assert incident(looping, "steady") is None
    assert trainings(looping, "steady") == []
    assert [d for d in looping.json("policies", "decisions", "steady") if d["source"] != "human"] == []
    assert len(trainings(looping, "moved")) == 1, "one drift, one retraining"
    assert list((looping.home / "archive" / "retraining").iterdir()) == [], "personal data does not outlive its job"


def test_a_retraining_survives_its_worker_and_leaves_production_alone_when_it_fails_or_is_stopped(
    looping: Stack,
) -> None:
    apply(looping, BY_HAND)
    begin(looping, "fragile")
    production = stage(looping, "fragile", "1")
    few = looping.mlcp("retrain", "fragile", "--reason", "too early", "--wait", check=False)
    assert few.returncode == 1
    assert "Too little to learn from: 0 labelled rows, 500 are needed" in " ".join(few.stderr.split())

    bad = looping.home / "bad.csv"
    bad.write_text("customer_id,tenure_months\nc-1,3\n")
    refused = looping.mlcp(
        "retrain", "fragile", "--from", "file", "--data", str(bad), "--reason", "r", "--wait", check=False
    )
    assert refused.returncode == 1
    assert "Training data refused" in " ".join(refused.stderr.split())

    live_between_looks(looping, "fragile")
    looping.mlcp("retrain", "fragile", "--reason", "to be stopped")
    job = trainings(looping, "fragile")[0]["id"]
    eventually(lambda: "fitting" in asked(looping, f"/jobs/{job}/logs")["text"], "it is at work", every=0.2)
    assert looping.mlcp("retrain", "fragile", "--reason", "twice", check=False).returncode != 0, "one at a time"
    looping.mlcp("jobs", "cancel", job, "--reason", "enough")
    assert ended(looping, "fragile")["state"] == "cancelled"

    looping.mlcp("retrain", "fragile", "--since", "30d", "--reason", "through a crash")
    job = trainings(looping, "fragile")[0]["id"]
    eventually(lambda: "fitting" in asked(looping, f"/jobs/{job}/logs")["text"], "it is at work", every=0.2)
    os.kill(looping.process("worker")["pid"], signal.SIGKILL)
    survived = ended(looping, "fragile")
    assert (survived["state"], survived["progress"]["attempt"]) == ("succeeded", 2), survived
    assert len(looping.json("versions", "fragile")) == 2, "the interrupted attempt left no version behind"
    assert stage(looping, "fragile", "1") == production == "Production" or survived["result"]["verdict"] == "pass"


def _logged(stack: Stack, model: str) -> int:
    found = asked(stack, f"/models/{model}/performance", period="30d")
    return sum(version["predictions"] for version in found["versions"])


def signed(stack: Stack, body: dict[str, Any], *, secret: str = SECRET, ago_s: int = 0) -> httpx.Response:
    """Alertmanager's own body, passed on by a relay that signs it; a signature is good once."""
    content, now = json.dumps(body).encode(), str(int(time.time()) - ago_s)
    mac = hmac.new(secret.encode(), f"{now}.".encode() + content, sha256).digest()
    headers = {"X-Mlcp-Timestamp": now, "X-Mlcp-Signature": "v1," + base64.b64encode(mac).decode()}
    headers["content-type"] = "application/json"
    return httpx.post(f"{stack.url('API')}/api/v1/webhooks/alertmanager", content=content, headers=headers, timeout=240)


def approve(stack: Stack, operation: str) -> dict[str, Any]:
    """What the policy has asked for, as it was shown to the second person, who agrees to it."""

    def waiting() -> dict[str, Any] | None:
        found = asked(stack, "/approvals", state="pending")["items"]
        return next((a for a in found if a["operation"] == operation and a["model"] == "governed"), None)

    one = eventually(waiting, f"somebody is asked about {operation}", every=0.5)
    assert one is not None
    assert (one["author"], one["automated"], one["quorum"]) == ("policy", True, 1)
    with stack.admin("approver") as client:
        seen = client.get(f"/approvals/{one['id']}")
        headers = {"If-Match": seen.headers["etag"]}
        done = client.post(f"/approvals/{one['id']}/approve", json={"reason": "seen and agreed"}, headers=headers)
        assert done.status_code == 200, done.text
    return dict(seen.json())


def documents(stack: Stack, model: str, counts: dict[str, int], folder: Path) -> dict[str, dict[str, Any]]:
    """The newest report of each kind once there are so many, fetched in both forms; the facts of the JSON, which keeps
    to its schema."""
    schema, found = asked(stack, "/reports/schema"), dict[str, dict[str, Any]]()

    def made() -> dict[str, Any] | None:
        listed = stack.json("reports", "list", model)
        newest = {report["kind"]: report for report in reversed(listed)}
        return newest if Counter(report["kind"] for report in listed) >= Counter(counts) else None

    reports = eventually(made, f"reports {counts} of {model}", every=2)
    for kind in counts:
        document, pdf = folder / f"{kind}.json", folder / f"{kind}.pdf"
        for file, digest in ((document, "sha256"), (pdf, "pdf_sha256")):
            stack.mlcp("reports", "get", reports[kind]["id"], "--to", str(file))
            assert sha256(file.read_bytes()).hexdigest() == reports[kind][digest], file.name
        assert pdf.read_bytes().startswith(b"%PDF-")
        told = json.loads(document.read_text())
        Draft202012Validator(schema).validate(told)
        assert told["summary"] == reports[kind]["summary"]
        found[kind] = told["facts"]
    return found


def test_the_whole_scenario_from_drift_to_a_verified_audit_with_people_in_it(looping: Stack, tmp_path: Path) -> None:
    apply(looping, BY_HAND)
    begin(looping, "governed")
    apply(looping, POLICIES["governed"])
    labels = {"alertname": "ModelDriftDetected", "model_name": "governed"}
    with monitoring(tmp_path, f"127.0.0.1:{looping.ports['ROUTER']}") as watched:
        live_between_looks(looping, "governed")
        alerts = eventually(lambda: watched.alerts(**labels), "monitoring tells of the drift", every=0.5)
        assert alerts[0]["status"] == "firing"
        body = next(body for _, body in watched.received if alerts[0] in body["alerts"])
    assert signed(looping, body, secret="a guess").status_code == 401
    assert trainings(looping, "governed") == []
    told = signed(looping, body)
    assert told.status_code == 202, told.text
    assert told.json()["new"] == len(body["alerts"])
    again = signed(looping, body, ago_s=60)
    assert (again.status_code, again.json().get("new")) == (202, 0), "the same alert is one signal"

    shown = approve(looping, "retrain")
    assert any("put into Staging if it is better" in line for line in shown["will"]), shown
    job = ended(looping, "governed")
    assert job["state"] == "succeeded", job
    result = job["result"]
    assert (result["verdict"], stage(looping, "governed", result["version"])) == ("pass", "Staging"), result
    assert stage(looping, "governed", "1") == "Production", "nothing is promoted by a retraining"
    replayed = eventually(lambda: over(looping, "governed", result["replay"]), "the replay", every=1)
    assert replayed["state"] == "succeeded", replayed

    approve(looping, "promote")
    eventually(lambda: stage(looping, "governed", result["version"]) == "Production", "the rollout", every=1)
    decided = looping.json("policies", "decisions", "governed")
    assert {(d["source"], d["diagnosis"]) for d in decided} >= {("alert", "drifted"), ("retraining", "better")}
    better = next(d for d in decided if d["source"] == "retraining")
    assert better["inputs"]["signal"]["facts"]["replay_summary"] == replayed["summary"]

    looping.mlcp("reports", "make", "governed", "incident", "--reason", "for the committee", "--wait")
    facts = documents(looping, "governed", {"retraining": 1, "deployment": 2, "incident": 1}, tmp_path)
    assert facts["retraining"]["lineage"]["version"] == result["version"]
    judged = facts["retraining"]["scores"][0]
    assert (judged["name"], judged["reference_version"]) == ("roc_auc", "1")
    assert judged["value"] > judged["reference"]
    assert not any("have no time" in limit for limit in facts["retraining"]["limits"]), "the log has"
    release = facts["deployment"]["release"]
    assert (release["candidate"], release["stable"], release["phase"]) == (result["version"], "1", "succeeded")
    for kind, agreed in (("retraining", ["retrain"]), ("deployment", ["retrain", "promote"])):
        approvals = facts[kind]["approvals"]
        assert [approval["action"] for approval in approvals] == agreed
        assert {(a["asked_by"], a["why"]) for a in approvals} == {("policy", "seen and agreed")}
    assert facts["incident"]["drift"]["incidents"][0]["version"] == "1"

    rows = looping.json("audit", "list", "--object", "model:governed", "--limit", "100")
    actions = [row["action"] for row in reversed(rows)]
    for action in ("policy.decide", "model.retrain", "version.stage", "model.promote"):
        assert action in actions, actions
    approver = next(row["approver"] for row in rows if row["action"] == "model.promote" and row["approver"])
    assert approver["person"] not in {"policy", rows[-1]["actor"]["person"]}
    newest = max(rows[0]["seq"], *(told["proof"]["head_seq"] for told in facts.values()))
    eventually(lambda: asked(looping, "/audit/verify")["signed_to"] >= newest, "it is signed to its end", every=2)
    assert looping.json("audit", "verify")["ok"] is True
    file, key = tmp_path / "audit.jsonl", looping.home / "keys" / "audit-signing.pub"
    looping.mlcp("audit", "export", str(file))
    offline = ("audit", "verify", "--export", str(file), "--public-key", str(key))
    assert looping.json(*offline)["ok"] is True
    file.write_text(file.read_text().replace("seen and agreed", "never agreed to", 1))
    assert looping.mlcp(*offline, check=False).returncode != 0, "what was edited is found"
