"""`mlcp predict | explain | outcomes | why`: what they send, print and exit with."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from tests.support import views
from tests.support.answering import Answer, Answering
from tests.support.cli import Run

API, ROLLOUT = views.API, views.ROLLOUT_ID


@pytest.mark.parametrize(
    ("given", "sent"),
    [
        ('{"amount": 5}', {"features": {"amount": 5}}),
        ('{"features": {"amount": 5}, "unit_id": "c1"}', {"features": {"amount": 5}, "unit_id": "c1"}),
    ],
    ids=["bare-features", "whole-body"],
)
def test_a_file_holds_features_or_a_whole_body(
    server: Answering, mlcp: Run, tmp_path: Path, given: str, sent: dict[str, Any]
) -> None:
    server.ok("POST", "/ml/fraud/predict", views.prediction())
    (tmp_path / "body.json").write_text(given)
    shown = mlcp("predict", "fraud", "-f", str(tmp_path / "body.json")).stdout
    assert "block" in shown
    assert "3 (stable)" in shown
    assert server.asked[0].body == sent
    assert json.loads(mlcp("predict", "fraud", "-f", "-", "--json", stdin=given).stdout)["decision"] == "block"


def test_the_example_is_asked_for_and_sent(server: Answering, mlcp: Run) -> None:
    server.ok("GET", "/ml/fraud/example", {"features": {"amount": 1}})
    server.ok("POST", "/ml/fraud/predict", views.prediction(logged=False))
    assert "could not be kept" in mlcp("predict", "fraud", "--example", "--unit", "c9").stdout
    assert server.asked[1].body == {"features": {"amount": 1}, "unit_id": "c9"}


def test_every_row_of_a_table_is_answered_into_another(server: Answering, mlcp: Run, tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("amount\n5\n")
    out = tmp_path / "out.parquet"
    server.declare(
        "POST", "/ml/fraud/batch_predict", Answer(200, raw=b"PAR1"), Answer(422, {"detail": "no such column"})
    )
    shown = mlcp("predict", "fraud", "-f", str(tmp_path / "rows.csv"), "--out", str(out)).stdout
    assert shown.split()[-2:] == ["4", "bytes."]
    assert out.read_bytes() == b"PAR1"
    (asked,) = server.asked
    assert (asked.headers["content-type"], asked.headers["accept"]) == ("text/csv", "application/vnd.apache.parquet")
    assert asked.body == b"amount\n5\n"
    out.unlink()
    mlcp("predict", "fraud", "-f", str(tmp_path / "rows.csv"), "--out", str(out), exits=7)
    mlcp("predict", "fraud", "-f", str(tmp_path / "rows.csv"), "--out", str(tmp_path / "out.xls"), exits=7)
    mlcp("predict", "fraud", "-f", str(tmp_path / "none.csv"), "--out", str(out), exits=7)
    assert os.listdir(tmp_path) == ["rows.csv"]


def test_without_a_file_explain_shows_what_moves_the_model_on_the_whole(server: Answering, mlcp: Run) -> None:
    measured = {"statistic": "mean_absolute_contribution", "space": "margin", "rows": 1_000}
    found = measured | {"model": "fraud", "version": "3", "features": {"amount": 1.5, "hour": 0.25}}
    server.ok("GET", f"{API}/models/fraud/explain", found)
    shown = mlcp("explain", "fraud").stdout
    assert "over 1000 rows, in margin units" in shown
    assert shown.index("1.5000") < shown.index("0.2500")


@pytest.mark.parametrize("given", ["{", "[1]", "3"])
def test_what_is_no_object_is_refused_before_it_travels(server: Answering, mlcp: Run, given: str) -> None:
    mlcp("predict", "fraud", "-f", "-", stdin=given, exits=7)
    mlcp("predict", "fraud", exits=7)
    mlcp("predict", "fraud", "-f", "/no/such/file", exits=7)
    assert not server.asked


def test_an_explanation_lists_the_largest_contribution_first(server: Answering, mlcp: Run) -> None:
    told = {"space": "margin", "of": None, "base": -1.5, "contributions": {"hour": -0.1, "amount": 2.0}}
    server.ok("POST", "/ml/fraud/explain", {"output": {"probability": 0.9}, "explanation": told})
    shown = mlcp("explain", "fraud", "-f", "-", stdin='{"amount": 9, "hour": 3}').stdout
    assert shown.index("amount") < shown.index("hour")
    assert "+2.0000" in shown


OF_ONE = "0199c7d2-6f0a-7cc3-98a1-0a2b8f6f1a55"


@pytest.mark.parametrize(
    "given",
    [
        '[{"prediction_id": "<id>", "value": true}, {"unit_id": "c1", "value": 3.5, "name": "spend"}]',
        '{"prediction_id": "<id>", "value": true}\n\n{"unit_id": "c1", "value": 3.5, "name": "spend"}\n',
        "prediction_id,unit_id,value,name\n<id>,,true,\n,c1,3.5,spend\n",
    ],
    ids=["json", "ndjson", "csv"],
)
def test_outcomes_come_in_three_formats(server: Answering, mlcp: Run, given: str) -> None:
    server.ok("POST", "/ml/fraud/outcomes", {"accepted": 2}, 202)
    assert (
        "2 outcomes of fraud taken" in mlcp("outcomes", "fraud", "-f", "-", stdin=given.replace("<id>", OF_ONE)).stdout
    )
    sent = server.asked[0].body
    assert len({outcome.pop("outcome_id") for outcome in sent}) == 2
    assert sent == [
        {"prediction_id": OF_ONE, "value": True},
        {"unit_id": "c1", "value": 3.5, "name": "spend"},
    ]


def test_outcomes_that_cannot_be_read_are_refused(mlcp: Run) -> None:
    mlcp("outcomes", "fraud", "-f", "-", stdin='{"a": }', exits=7)
    told = mlcp("outcomes", "fraud", "-f", "-", stdin="unit_id,value\nc1,1\nc2,\n", exits=7).stderr
    assert "none was taken" in told
    assert "line 3, column value: missing" in told


def test_the_story_of_a_rollout_is_told_from_its_audit_rows(server: Answering, mlcp: Run) -> None:
    server.ok("GET", f"{API}/rollouts/{ROLLOUT}", views.rollout(phase="baking"))
    mine, other = {"rollout": ROLLOUT}, {"rollout": "another"}
    rows = [views.audit(9, after=mine, reasons=["last"]), views.audit(8, after=other, reasons=["not this"])]
    server.ok("GET", f"{API}/audit", views.page(*rows, views.audit(7, before=mine, reasons=["first"])))
    shown = mlcp("why", ROLLOUT).stdout
    assert "Promotion of churn, 1 -> 2" in shown
    assert shown.index("first") < shown.index("last")
    assert "not this" not in shown
    assert len(json.loads(mlcp("why", ROLLOUT, "--json").stdout)["audit"]) == 2


def test_a_prediction_leads_to_the_rollout_that_made_its_version_answer(server: Answering, mlcp: Run) -> None:
    record = dict.fromkeys(("rollout_id", "step", "unit_id", "request_id", "features", "output"))
    record |= {"prediction_id": ROLLOUT, "model": "churn", "status": "ok", "received_at": views.AT}
    record |= {"latency_ms": 4.2, "assigned_variant": "candidate", "assigned_version": "3"}
    record |= {"served_variant": "stable", "served_version": "2", "fallback_reason": "dead", "pinned": False}
    record |= {"shadow": False, "epoch": 1, "revision": 2, "threshold": None, "decision": None, "outcomes": []}
    server.problem("GET", f"{API}/rollouts/p1", 404, "not-found")
    server.ok("GET", f"{API}/predictions/p1", record)
    event = {"at": views.AT, "version": "2", "from_stage": "Staging", "to_stage": "Production", "actor": "admin"}
    view = {"model": "churn", "as_of": views.AT, "production_version": "2", "staging_version": None}
    server.ok(
        "GET", f"{API}/models/churn/timeline", view | {"events": [event | {"reason": "r", "rollout_id": ROLLOUT}]}
    )
    server.ok("GET", f"{API}/audit", views.page(views.audit(7, after={"rollout": ROLLOUT})))
    shown = " ".join(mlcp("why", "p1").stdout.split())
    assert "by version 2 (stable) in 4.2 ms" in shown
    assert "Assigned to version 3 (candidate), which did not answer: dead." in shown
    assert "better on the hold-out" in shown
