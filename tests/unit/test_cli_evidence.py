"""`mlcp apply`, `mlcp rollouts watch | effect` and the story of `mlcp why`: what they send and print."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from control_plane.cli import plot
from control_plane.cli.plot import Point
from tests.support import views
from tests.support.answering import Answering
from tests.support.cli import Run

API, ROLLOUT = views.API, views.ROLLOUT_ID
T0 = datetime(2026, 11, 20, 12, tzinfo=UTC)


def analysis(at: int, low: float, high: float, **more: Any) -> dict[str, Any]:
    arm = {"units": 100 * (at + 1), "mean": 0.1}
    measured = {
        "metric": "outcome:bought", "role": "goal", "verdict": "inconclusive", "comparison": "undecided",
        "why": "w", "effect": (low + high) / 2, "low": low, "high": high, "candidate": arm, "baseline": arm,
    }  # fmt: skip
    return {
        "at": (T0 + timedelta(minutes=at)).isoformat(), "step": 0, "verdict": "inconclusive", "conclusion": None,
        "why": f"look {at}", "decided": None, "measurements": [measured], "live": {"requests": 5, "bad": 0},
        "srm": {"p": 0.9, "mismatch": False, "why": "units fit the weights"},
    } | more  # fmt: skip


def decided() -> dict[str, Any]:
    plan = {"metrics": [{"name": "error_rate"}, {"name": "outcome:bought", "role": "goal", "margin": 0.02}]}
    looks = [analysis(at, -0.5 / (at + 1), 0.9 / (at + 1)) for at in range(5)]
    looks.append(analysis(5, 0.01, 0.09, verdict="pass", conclusion="better", decided="cut_over", why="better"))
    steps = [{"weight": 50, "hold_s": 1}]
    done = {"phase": "succeeded", "closed_at": T0.isoformat(), "conclusion": "better", "strategy": "ab_test"}
    return views.rollout(plan=plan, analyses=looks, steps=steps, weight=100.0, **done)


def test_the_effect_is_a_table_json_and_a_plot_anything_can_draw(server: Answering, mlcp: Run, tmp_path: Path) -> None:
    server.ok("GET", f"{API}/rollouts/{ROLLOUT}", decided())
    file = tmp_path / "effect.svg"
    shown = mlcp("rollouts", "effect", ROLLOUT, "--plot", str(file)).stdout
    assert "outcome:bought" in shown
    assert "cut_over" in shown
    found = json.loads(mlcp("rollouts", "effect", ROLLOUT, "--json").stdout)
    assert [point["units"] for point in found["points"]] == [200 * n for n in range(1, 7)]
    drawn = ElementTree.fromstring(file.read_text())
    assert drawn.tag.endswith("svg")
    assert len([part for part in drawn.iter() if part.tag.endswith("polygon")]) == 1
    assert "outcome:bought" in mlcp("rollouts", "effect", ROLLOUT, "--metric", "x", exits=7).stderr


def test_watching_ends_with_the_rollout_and_shows_what_it_stands_on(server: Answering, mlcp: Run) -> None:
    server.ok("GET", f"{API}/rollouts/{ROLLOUT}", decided())
    shown = mlcp("rollouts", "watch", ROLLOUT).stdout
    for part in ("Conclusion better", "cut_over. better", "units fit the weights", "outcome:bought"):
        assert part in shown, shown


def test_why_tells_the_decisions_with_their_numbers(server: Answering, mlcp: Run) -> None:
    server.ok("GET", f"{API}/rollouts/{ROLLOUT}", decided())
    server.ok("GET", f"{API}/audit", views.page())
    shown = mlcp("why", ROLLOUT).stdout
    assert "step 1: pass, cut_over. better" in shown
    assert "[+0.01, +0.09]" in shown


PLAN: dict[str, Any] = {
    "model": "churn", "candidate_version": "2", "stable_version": "1", "strategy": "canary", "steps": [],
    "bake_s": 0, "failure_limit": 0, "analysis": None, "reasons": [], "open": False,
    "forecast": {"seconds": 7200.0, "units_per_day": 10.0, "needs": [], "why": "About 2 hours."},
    "changes": [{"field": "strategy", "before": None, "after": "canary"}],
}  # fmt: skip


@pytest.fixture
def file(tmp_path: Path) -> str:
    written = tmp_path / "rollout.yaml"
    written.write_text(
        "kind: rollout\nmodel: churn\nversion: 2\nreason: better\nstrategy: canary\n"
        "steps: [{weight: 5, hold_s: 60}]\nanalysis: {observation_s: 30}\n"
    )
    return str(written)


def test_apply_sends_what_the_file_says_and_a_dry_run_only_asks(server: Answering, mlcp: Run, file: str) -> None:
    wanted = {
        "version": "2", "strategy": "canary", "steps": [{"weight": 5.0, "hold_s": 60.0}],
        "analysis": {"observation_s": 30},
    }  # fmt: skip
    server.ok("POST", f"{API}/models/churn/plan", PLAN)
    server.ok("POST", f"{API}/models/churn/promote/production", views.rollout())
    assert "About 2 hours." in mlcp("apply", "-f", file, "--dry-run").stdout
    assert [asked.body for asked in server.asked] == [wanted]
    assert "mlcp rollouts watch" in mlcp("apply", "-f", file).stdout
    assert server.asked[-1].body == wanted | {"reason": "better"}


def test_what_is_in_the_way_of_a_plan_is_shown_and_nothing_is_begun(server: Answering, mlcp: Run, file: str) -> None:
    server.ok("POST", f"{API}/models/churn/plan", PLAN | {"reasons": ["steps: no.", "metric: no."]})
    assert "  - steps: no." in mlcp("apply", "-f", file, "--dry-run", exits=4).stdout
    assert "metric: no." in mlcp("apply", "-f", file, exits=4).stderr
    assert {asked.path for asked in server.asked} == {f"{API}/models/churn/plan"}


def test_a_rollout_that_is_open_already_is_not_begun_again(server: Answering, mlcp: Run, file: str) -> None:
    server.ok("POST", f"{API}/models/churn/plan", PLAN | {"open": True, "changes": []})
    assert "nothing to do" in mlcp("apply", "-f", file).stdout
    assert len(server.asked) == 1


def test_a_file_that_cannot_be_used_is_refused_with_every_reason(mlcp: Run, tmp_path: Path) -> None:
    file = tmp_path / "rollout.json"
    file.write_text('{"kind": "rolout", "weigth": 5, "steps": [{"weight": 5}]}')
    said = mlcp("apply", "-f", str(file), exits=7).stderr
    for part in ("weigth: there is no such field", "kind: must be rollout", "model: is missing", "reason", "hold_s"):
        assert part in said
    file.write_text("[1")
    assert "neither JSON nor YAML" in " ".join(mlcp("apply", "-f", str(file), exits=7).stderr.split())


@pytest.mark.parametrize("effect", [0.0, 1e-9, -3e5])
def test_a_plot_of_any_scale_and_of_a_single_look_is_well_formed(effect: float) -> None:
    for points in (
        [Point(T0, 0, 9, effect, effect - 1e-9, effect + 1e-9)],
        [Point(T0, 0, 9, effect, effect, effect)] * 3,
    ):
        drawn = plot.svg(points, title="a < b & c", margin=None)
        ElementTree.fromstring(drawn)
        assert "nan" not in drawn
