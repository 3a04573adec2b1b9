"""`mlcp drift`: what a terminal of 80 columns shows, and a report that is one file of aggregates."""

import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from control_plane.cli import drift_html, sparks
from tests.support import views
from tests.support.answering import Answering
from tests.support.cli import Run

HISTOGRAM = {"cells": ["below 0", "0 .. 1", "above 1"], "reference": [0.2, 0.6, 0.2], "current": [0.0, 0.3, 0.7]}
EVIL = "<script>alert(1)</script>"


def feature(name: str, psi: float | None, verdict: str = "fail") -> dict[str, Any]:
    return {
        "name": name,
        "verdict": verdict,
        "why": f"{name} drifted: PSI 0.41 > 0.12 (above 1: 20.0% -> 70.0%).",
        "rows": 1_200,
        "psi": psi,
        "limit": 0.12,
        "findings": [{"issue": "nulls", "why": "12.0% nulls"}],
        "share": 0.8,
        "histogram": HISTOGRAM,
    }


def drifted(**changes: Any) -> dict[str, Any]:
    event = {"at": views.AT, "what": "open", "version": "3", "severity": "high", "why": "amount drifted."}
    event |= {"kinds": ["data"], "features": ["amount"]}
    incident = {"id": views.ROLLOUT_ID, "version": "3", "opened_at": views.AT, "closed_at": None, "severity": "high"}
    incident |= {"kinds": ["data"], "features": ["amount"], "history": [event]}
    points = [
        {"at": views.AT, "version": "3", "rows": 100, "scores": {"data": s}, "psi": {"amount": s}, "estimated": 0.8}
        for s in (0.01, None, 0.02, 0.2, 0.41)
    ]
    return {
        "model": "churn",
        "version": "3",
        "looked_at": views.AT,
        "alarm": True,
        "reference": {"source": "training", "rows": 6_000, "created_at": views.AT},
        "window": {"since": views.AT, "until": views.AT, "rows": 1_200, "blocks": 800},
        "basis": "28 usual days by weekday",
        "readings": [
            {"kind": "data", "verdict": "fail", "alarm": True, "score": 0.41, "why": "amount drifted. " * 8},
            {"kind": "performance", "verdict": "inconclusive", "alarm": False, "score": None, "why": "Few labels."},
        ],
        "features": [feature("amount", 0.41), *(feature(f"number_of_things_{i}", None) for i in range(20))],
        "prediction": feature("prediction", 0.2),
        "performance": {
            "metric": "roc_auc",
            "reference": 0.84,
            "estimated": {"value": 0.8, "low": 0.78, "high": 0.82, "rows": 900},
            "validity": "While only the customers change.",
        },
        "incidents": [incident],
        "history": points,
    } | changes


def test_a_terminal_shows_the_alarm_every_kind_and_the_largest_features(server: Answering, mlcp: Run) -> None:
    server.ok("GET", f"{views.API}/models/churn/drift", drifted())
    shown = mlcp("drift", "churn").stdout
    assert "ALARM (high) since 2026-11-20 12:00:00 UTC: amount." in shown
    assert "INCONCLUSIVE" in shown
    assert "▁ ▁▄█" in shown
    assert "amount" in shown
    assert "... and 6 more" in shown


def test_nobody_has_looked_yet_is_said(server: Answering, mlcp: Run) -> None:
    view = {"model": "churn", "version": None, "looked_at": None, "alarm": False, "note": "No version is Production."}
    server.ok("GET", f"{views.API}/models/churn/drift", view)
    assert mlcp("drift", "churn").stdout.strip() == "No version is Production."


def test_a_model_or_two_files_are_asked_for(mlcp: Run) -> None:
    mlcp("drift", exits=7)
    mlcp("drift", "churn", "--reference", "a.csv", exits=7)
    mlcp("drift", "--current", "a.csv", exits=7)
    mlcp("drift", "churn", "--workers", "2", exits=7)


class Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        assert not [name for name, _ in attrs if name in {"src", "href"} or name.startswith("on")]


def test_a_report_is_one_file_without_scripts_or_addresses(server: Answering, mlcp: Run, tmp_path: Path) -> None:
    view = drifted()
    view["features"][1]["name"] = EVIL
    view["features"][1]["histogram"] = HISTOGRAM | {"cells": [EVIL, "b", "c"]}
    view["readings"][0]["why"] = EVIL
    server.ok("GET", f"{views.API}/models/churn/drift", view)
    mlcp("drift", "churn", "--html", str(tmp_path / "report.html"))
    text = (tmp_path / "report.html").read_text()
    reader = Reader()
    reader.feed(text)
    assert "script" not in reader.tags
    assert reader.tags.count("svg") >= 23
    assert "http" not in text
    assert not re.search(r"url\(|@import", text)
    assert "While only the customers change." in text


def test_a_report_of_files_has_its_verdict_and_its_columns() -> None:
    report = {"verdict": "pass", "why": "None of 1 features drifted.", "reference_rows": 10, "current_rows": 5}
    text = drift_html.page(report | {"features": [feature("amount", 0.0, "pass")]}, "b against a")
    assert "None of 1 features drifted." in text
    assert "10 rows against 5." in text


def test_sparks_keep_the_peak_of_what_shares_a_character_and_leave_the_unknown_blank() -> None:
    assert sparks.line([], width=4) == ""
    assert sparks.line([0.0, None, 1.0], width=4) == "▁ █"
    assert sparks.line([0, 0, 9, 0, 0, 0], width=3) == "▁█▁"
    assert sparks.line([0.5], width=3, top=1.0) == "▅"
    assert sparks.pair([0.5, 0.5], [0.0, 1.0], width=2) == ("▅▅", "▁█")
    assert sparks.pair([], [], width=2) == ("", "")
