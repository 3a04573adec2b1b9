"""Dashboards are whole: they fit 24 columns, nothing overlaps, every axis has a unit, every variable is defined."""

import json
import re
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import yaml

from control_plane.telemetry import Metric
from infra.monitoring import grafana
from infra.monitoring.__main__ import BOARDS, files
from infra.monitoring.grafana import Dashboard, Panel, Query, Row

GRAFANA = Path(grafana.__file__).parents[1] / "grafana"
UNITS = {"none", "short", "s", "bytes", "reqps", "percentunit"}  # of Grafana's own list
DOCUMENTS = [json.loads(text) for path, text in files().items() if path.suffix == ".json"]
BUILT_IN = {"__rate_interval", "datasource"}


def boxes(board: dict[str, Any]) -> list[tuple[str, int, int, int, int]]:
    places = [(panel["title"], panel["gridPos"]) for panel in board["panels"]]
    return [(title, at["x"], at["y"], at["x"] + at["w"], at["y"] + at["h"]) for title, at in places]


@pytest.mark.parametrize("board", DOCUMENTS, ids=lambda board: board["uid"])
def test_panels_fill_their_lines_and_do_not_overlap(board: dict[str, Any]) -> None:
    placed = boxes(board)
    assert all(0 <= left < right <= grafana.COLUMNS for _, left, _, right, _ in placed)
    for a, b in combinations(placed, 2):
        assert a[3] <= b[1] or b[3] <= a[1] or a[4] <= b[2] or b[4] <= a[2], (a, b)
    bottom = max(box[4] for box in placed)
    covered = sum((right - left) * (low - top) for _, left, top, right, low in placed)
    assert covered == grafana.COLUMNS * bottom, "no holes"


@pytest.mark.parametrize("board", DOCUMENTS, ids=lambda board: board["uid"])
def test_every_panel_has_a_unit_a_source_and_only_variables_that_are_defined(board: dict[str, Any]) -> None:
    names = [variable["name"] for variable in board["templating"]["list"]]
    ids = [panel["id"] for panel in board["panels"]]
    assert len(set(ids)) == len(ids)
    for panel in board["panels"]:
        if panel["type"] in {"row", "alertlist"}:
            continue
        assert panel["fieldConfig"]["defaults"]["unit"] in UNITS, panel["title"]
        assert panel["targets"], panel["title"]
        used = set(re.findall(r"\$\{?(\w+)", json.dumps(panel)))
        assert used <= {*names, *BUILT_IN}, panel["title"]
        for target in panel["targets"]:
            assert target["datasource"]["uid"] == "${datasource}"
    if "model" in names:
        assert "$model" in json.dumps(board["panels"])


def test_dashboards_read_only_metrics_that_are_shown() -> None:
    known = {value for name, value in vars(Metric).items() if name.isupper()}
    for board in DOCUMENTS:
        for panel in board["panels"]:
            for target in panel.get("targets", ()):
                bare = re.sub(r'"[^"]*"', "", target["expr"])
                named = {
                    re.sub("_(bucket|count|sum)$", "", one) for one in re.findall(r"\b(?:model|mlcp|mlflow)_\w+", bare)
                }
                assert named <= known | {"model_name", "model_type"}, panel["title"]


def test_uids_are_one_each_and_all_are_provisioned_and_committed() -> None:
    assert len({board.uid for board in BOARDS}) == len(BOARDS) == 7
    assert {path.name for path in (GRAFANA / "dashboards").iterdir()} == {
        path.name for path in files() if path.suffix == ".json"
    }
    source = yaml.safe_load((GRAFANA / "provisioning/datasources/prometheus.yaml").read_text())
    assert [one["type"] for one in source["datasources"]] == ["prometheus"]
    provider = yaml.safe_load((GRAFANA / "provisioning/dashboards/mlcp.yaml").read_text())
    assert [one["type"] for one in provider["providers"]] == ["file"]


@pytest.mark.parametrize("widths", [(12, 8), (16, 12)])
def test_a_row_that_leaves_a_hole_or_overflows_is_refused(widths: tuple[int, ...]) -> None:
    made = [Panel(f"p{width}", [Query("up")], "short", width) for width in widths]
    with pytest.raises(ValueError, match="row"):
        grafana.document(Dashboard("u", "t", "w", (Row("row", made),)))
