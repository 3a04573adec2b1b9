"""`mlcp replay` and `mlcp replays`, and what a gate makes of a report."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from pydantic import TypeAdapter

from control_plane.domain.replay import gate as gates
from control_plane.domain.replay import words
from control_plane.domain.replay.gate import ReplayGate
from control_plane.domain.replay.report import (
    Cell,
    Change,
    Consistency,
    Direction,
    Example,
    FeatureChange,
    Flips,
    Interval,
    Labels,
    Latency,
    Quantiles,
    Refusal,
    Report,
    Segment,
    Shift,
    Spread,
)
from tests.support import views
from tests.support.answering import Answering
from tests.support.cli import Run

API, ID = views.API, views.ROLLOUT_ID
NOW = datetime(2026, 3, 1, tzinfo=UTC)
SPREAD = Spread(0.2, 0.01, 0.05, 0.1, 0.3, 0.8)
REPORT = Report(
    model="fraud",
    candidate="4",
    baseline="3",
    since=NOW - timedelta(days=7),
    until=NOW,
    rows=50_000,
    units=4_000,
    left_out={"answered by nobody": 3},
    versions={"3": 50_000},
    consistency=Consistency(50_000, 0, 0, 0.0, "Version 3 says again what it said then."),
    shift=Shift(50_000, SPREAD, SPREAD, Interval(0.01, 0.005, 0.015), 0.03, (Cell(0.0, 0.1, 0.5, 0.4),)),
    flips=Flips(
        50_000,
        1_000,
        Interval(0.02, 0.018, 0.022),
        (Direction("accept", "review", 1_000, Interval(0.02, 0.018, 0.022)),),
        (Example("p", "accept", "review", 0.1, 0.9, {"amount": 5.0, "iban": "***"}),),
    ),
    labels=Labels(40_000, 0, 9_000, 1_000),
    metrics=(
        Change("roc_auc", True, 0.8, 0.81, Interval(0.01, -0.001, 0.021)),
        Change("cost", False, 3.0, 2.5, Interval(-0.5, -0.7, -0.3)),
    ),
    currency="EUR",
    latency={"candidate": Latency(Quantiles(8, 9, 10), Quantiles(60, 70, 80))},
    refused={"baseline": 0, "candidate": 20},
    refusals=(Refusal("risk", "expected a number, got null", 20),),
    features=(FeatureChange("risk", "may not be null any more"),),
    segments=(Segment("DE", 30_000, Interval(0.0, -0.1, 0.1), Interval(0.01, 0.0, 0.02)),),
    segment="country",
)


def view(report: Report | None, **changes: Any) -> dict[str, Any]:
    made: dict[str, Any] = {"id": ID, "model": "fraud", "candidate_version": "4", "baseline_version": "3"}
    made |= {"since": views.AT, "until": views.AT, "sample": 1.0, "segment": None, "state": "succeeded"}
    made |= dict.fromkeys(("fraction", "error", "done_at", "gate"))
    made |= {"created_at": views.AT, "created_by": "ann", "summary": list(words.summary(report)) if report else []}
    return made | {"report": TypeAdapter(Report).dump_python(report, mode="json") if report else None} | changes


def test_a_replay_is_waited_for_and_told_in_sentences_and_tables(server: Answering, mlcp: Run) -> None:
    server.ok("POST", f"{API}/models/fraud/replay", view(None, state="running", fraction=0.5), 202)
    server.ok("GET", f"{API}/models/fraud/replays/{ID}", view(REPORT, gate=["replay: too much of it."]))
    said = mlcp("replay", "fraud", "--candidate", "4", "--since", "30d", "--segment", "country").stdout
    assert server.asked[0].body == {"candidate": "4", "since": "30d", "sample": 1.0, "segment": "country"}
    for part in (
        "says again what it said then",
        "1,000 of 50,000 decisions differ: 2.00% [1.80%, 2.20%]",
        "The gate does not let it pass",
        "too much of it",
        "roc_auc",
        "iban=***",
        "expected a number, got null",
        "DE",
    ):
        assert part in said, part
    assert max(len(line) for line in said.splitlines()) <= 120
    detached = mlcp("replay", "fraud", "--candidate", "4", "--until", "2026-03-01", "--detach").stdout
    assert "running" in detached
    assert "T" in server.asked[-1].body["until"]
    assert "neither a time" in mlcp("replay", "fraud", "--candidate", "4", "--until", "soon", exits=7).stderr


def test_a_replay_that_failed_says_why(server: Answering, mlcp: Run) -> None:
    server.ok("POST", f"{API}/models/fraud/replay", view(None, state="failed", error="no memory"), 202)
    assert "no memory" in mlcp("replay", "fraud", "--candidate", "4", exits=1).stderr


def test_replays_are_listed_and_shown(server: Answering, mlcp: Run) -> None:
    server.ok("GET", f"{API}/models/fraud/replays", views.page(view(None, gate=[])))
    assert "passes" in mlcp("replays", "fraud").stdout
    server.ok("GET", f"{API}/models/fraud/replays/{ID}", view(REPORT))
    assert "2.00%" in mlcp("replays", "fraud", ID).stdout
    assert '"psi": 0.03' in mlcp("replays", "fraud", ID, "--json").stdout


def against(found: Report = REPORT, metric: str | None = "roc_auc", **asked: Any) -> tuple[str, ...]:
    return gates.reasons(ReplayGate(**asked), found, metric=metric)


def test_a_gate_passes_what_is_certain_and_refuses_what_is_not() -> None:
    assert against() == ()
    assert against(max_flip_rate=0.022) == ()
    assert "(INCONCLUSIVE)" in against(max_flip_rate=0.021)[0], "the upper end counts"
    assert "more than 1.00%" in against(max_flip_rate=0.01)[0]
    assert "PSI 0.030" in against(max_score_shift=0.02)[0]
    assert against(metric_margin=0.002) == ()
    assert "may be worse by more than 0.0005" in against(metric_margin=0.0005)[0]
    assert against(metric="cost", metric_margin=0.0) == (), "less cost is better"
    assert "was not measured" in against(metric="rmse", metric_margin=0.1)[0]
    assert "60,000 are asked for" in against(min_rows=60_000)[0]
    assert "refuses 20 of 50,020 rows" in against(max_refused=0.0001)[0]
    worse = replace(REPORT, metrics=(Change("roc_auc", True, 0.8, 0.7, Interval(-0.1, -0.12, -0.08)),))
    assert "is worse by more than 0.05" in against(worse, metric_margin=0.05)[0]
    hidden = replace(REPORT, metrics=(Change("roc_auc", True, 0.8, 0.7, None, None, "They cannot be ranked."),))
    assert "cannot be ranked" in against(hidden, metric_margin=0.05)[0]


def test_skew_and_an_unchecked_log_refuse_unless_that_is_switched_off() -> None:
    skewed = replace(REPORT, consistency=Consistency(1_000, 5, 0, 0.1, ""))
    assert "skew" in against(skewed)[0]
    assert against(skewed, max_skew=None) == ()
    assert "(INCONCLUSIVE)" in against(replace(REPORT, consistency=Consistency()))[0]


def test_a_report_answers_a_gate_while_it_is_long_and_fresh_enough() -> None:
    gate = ReplayGate(since_days=7, max_age_days=2)
    assert gates.covers(gate, NOW - timedelta(days=7), NOW, now=NOW + timedelta(days=2))
    assert not gates.covers(gate, NOW - timedelta(days=7), NOW, now=NOW + timedelta(days=2, hours=1))
    assert not gates.covers(gate, NOW - timedelta(days=6), NOW, now=NOW)
    wrong = ReplayGate(since_days=-1, min_rows=0, max_flip_rate=2.0, metric="cost")
    assert len(gates.problems(wrong)) == 4


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (Change("cost", False, 3.0, 2.5, Interval(-0.5, -0.7, -0.3)), "better"),
        (Change("recall", True, 0.5, 0.4, Interval(-0.1, -0.2, -0.05)), "worse"),
        (Change("recall", True, 0.5, 0.4, Interval(-0.1, -0.2, 0.05)), "no difference can be told"),
        (Change("cost", False, 3.0, 2.5, Interval(0.0, -1, 1), (-0.5, 0.5), "Hidden."), "between -0.5000 and +0.5000"),
    ],
)
def test_a_metric_is_told_as_what_it_is(change: Change, said: str) -> None:
    assert said in words.told(change)
