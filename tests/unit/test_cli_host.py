"""Commands that need files of this host and nothing else: logs, and pins with everything else dead."""

import json
from pathlib import Path

import pytest

from tests.support import views
from tests.support.answering import Answering
from tests.support.cli import Run

API, ROLLOUT = views.API, views.ROLLOUT_ID


def test_json_lines_are_put_in_words_and_others_shown_as_they_are(mlcp: Run, tmp_path: Path) -> None:
    (tmp_path / "logs").mkdir()
    event = {
        "event": "started",
        "level": "info",
        "timestamp": "2026-11-20T12:03:44.1Z",
        "process": "api",
        "port": 8000,
    }
    (tmp_path / "logs" / "api.log").write_text(json.dumps(event) + "\nplain words\n")
    assert mlcp("logs", "api").stdout.splitlines() == ["12:03:44 info    started  port=8000", "plain words"]
    assert [json.loads(line)["event"] for line in mlcp("logs", "api", "--json").stdout.splitlines()] == [
        "started",
        "plain words",
    ]
    assert mlcp("logs", "api", "-n", "1").stdout == "plain words\n"


def test_a_model_is_enough_while_it_has_one_server_and_unknown_names_say_what_there_is(
    mlcp: Run, tmp_path: Path
) -> None:
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "churn-3-1a2b.log").write_text("of churn\n")
    assert mlcp("logs", "churn").stdout == "of churn\n"
    (tmp_path / "logs" / "churn-4-3c4d.log").write_text("")
    assert "churn-4-3c4d" in mlcp("logs", "churn", exits=3).stderr
    mlcp("logs", "../secret", exits=7)


@pytest.fixture
def snapshot(tmp_path: Path) -> None:
    targets = {f"t{version}": {"id": f"t{version}", "version": version} for version in ("1", "2")}
    arms = [("stable", 9_500, "t2"), ("candidate", 500, "t1")]
    route = {
        "targets": targets,
        "arms": [{"variant": variant, "weight": weight, "target": target} for variant, weight, target in arms],
        "salt": "s",
        "previous": "t1",
    }
    models = {"churn": route, "new": {**route, "previous": None}}
    document = {"epoch": 1, "revision": 41, "created_at": views.AT, "models": models}
    (tmp_path / "router").mkdir()
    (tmp_path / "router" / "snapshot.json").write_text(json.dumps(document))


@pytest.mark.usefixtures("snapshot")
def test_a_pin_needs_files_and_nothing_else(
    server: Answering, mlcp: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLCP_API_KEY")
    assert "version 1 until" in mlcp("router", "pin", "churn", "--previous", "--reason", "night").stdout
    pinned = json.loads((tmp_path / "router" / "pins" / "churn.json").read_text())
    assert {name: pinned[name] for name in ("model", "target", "version", "reason")} == {
        "model": "churn",
        "target": "t1",
        "version": "1",
        "reason": "night",
    }
    assert pinned["person"]
    assert pinned["at"]
    shown = mlcp("router", "show").stdout
    assert "2 (95 %), 1 (5 %)" in shown
    assert "night" in shown
    mlcp("router", "release", "churn", "--reason", "day")
    assert list((tmp_path / "router" / "pins").iterdir()) == []
    journal = [json.loads(line) for line in (tmp_path / "router" / "pins.ndjson").read_text().splitlines()]
    assert [(entry["action"], entry["reason"]) for entry in journal] == [("pin", "night"), ("release", "day")]
    assert not server.asked


@pytest.mark.usefixtures("snapshot")
@pytest.mark.parametrize(
    ("argv", "exits", "says"),
    [
        (("churn", "--version", "9"), 4, "ready: 1, 2"),
        (("new", "--previous"), 4, "no previous version"),
        (("nosuch", "--previous"), 3, "it routes churn, new"),
        (("churn",), 7, "either --previous or --version"),
        (("churn", "--previous", "--version", "1"), 7, "either --previous or --version"),
        (("../churn", "--previous"), 7, "is not a model's name"),
    ],
)
def test_a_pin_that_cannot_hold_is_refused(
    mlcp: Run, tmp_path: Path, argv: tuple[str, ...], exits: int, says: str
) -> None:
    said = mlcp("router", "pin", *argv, "--reason", "r", exits=exits).stderr
    assert says in " ".join(said.split())
    assert not (tmp_path / "router" / "pins").exists()


def test_without_a_snapshot_there_is_nothing_to_pin(mlcp: Run) -> None:
    assert "snapshot.json" in mlcp("router", "pin", "churn", "--previous", "--reason", "r", exits=3).stderr.replace(
        "\n", ""
    )
    assert "not pinned" in mlcp("router", "release", "churn", "--reason", "r", exits=3).stderr
