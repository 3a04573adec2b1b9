"""Grafana's JSON from a few words per panel: rows of panels on 24 columns, packed from left to right.

Source: Grafana's dashboard JSON model, schema 39 (Grafana 10.4 and later read it).
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

COLUMNS: Final = 24
_SOURCE: Final = {"type": "prometheus", "uid": "${datasource}"}
_HEIGHTS: Final = {"stat": 4, "timeseries": 8, "bargauge": 8, "table": 8, "state-timeline": 8, "alertlist": 8}
_STEP_COLOURS: Final = ("green", "orange", "red")
MODELS: Final = "label_values(model_predictions_total, model_name)"


@dataclass(frozen=True, slots=True)
class Query:
    """`legend` in Grafana's own template, e.g. {{model_name}}."""

    expr: str
    legend: str = "{{model_name}}"


@dataclass(frozen=True, slots=True)
class Panel:
    """`unit`: one of Grafana's ids (s, bytes, reqps, percentunit, ...). `limits`: where orange and red begin.

    `words`: what numbers mean, for panels that show states.
    """

    title: str
    queries: Sequence[Query]
    unit: str
    width: int
    what: str = ""
    kind: str = "timeseries"
    limits: tuple[float, ...] = ()
    words: tuple[tuple[float, str, str], ...] = ()  # value, text, colour
    least: float | None = 0
    most: float | None = None
    stacked: bool = False


@dataclass(frozen=True, slots=True)
class Row:
    title: str
    panels: Sequence[Panel]


@dataclass(frozen=True, slots=True)
class Dashboard:
    """`models`: has the variable `model`, one or many or all of them."""

    uid: str
    title: str
    what: str
    rows: Sequence[Row]
    models: bool = True
    tags: Sequence[str] = field(default=("mlcp",))


def rate(by: str, metric: str) -> str:
    """PromQL: how fast a counter grows, a second, by these labels."""
    return f"sum by ({by}) (rate({metric}[$__rate_interval]))"


def document(board: Dashboard) -> dict[str, Any]:
    """The dashboard as Grafana imports it. ValueError for a row that does not fill its 24 columns."""
    panels: list[dict[str, Any]] = []
    y = 0
    for row in board.rows:
        panels.append(
            {"id": len(panels) + 1, "type": "row", "title": row.title, "collapsed": False, "panels": []}
            | {"gridPos": {"x": 0, "y": y, "w": COLUMNS, "h": 1}}
        )
        y, x, height = y + 1, 0, 0
        for panel in row.panels:
            if x + panel.width > COLUMNS:
                raise ValueError(f"{board.title}: {row.title}: {panel.title} does not fit its line")
            height = max(height, _HEIGHTS[panel.kind])
            panels.append(_panel(len(panels) + 1, panel, x, y))
            x += panel.width
            if x == COLUMNS:
                x, y, height = 0, y + height, 0
        if x:
            raise ValueError(f"{board.title}: {row.title} leaves {COLUMNS - x} columns empty")
    return {
        "uid": board.uid,
        "title": board.title,
        "description": board.what,
        "tags": list(board.tags),
        "schemaVersion": 39,
        "version": 1,
        "editable": False,
        "graphTooltip": 1,
        "refresh": "30s",
        "timezone": "utc",
        "time": {"from": "now-6h", "to": "now"},
        "links": [{"type": "dashboards", "tags": ["mlcp"], "title": "mlcp", "asDropdown": True, "keepTime": True}],
        "annotations": {"list": []},
        "templating": {"list": _variables(board)},
        "panels": panels,
    }


def _variables(board: Dashboard) -> list[dict[str, Any]]:
    source = {"name": "datasource", "type": "datasource", "label": "Prometheus", "query": "prometheus"}
    if not board.models:
        return [source]
    model = {
        "name": "model",
        "type": "query",
        "label": "Model",
        "datasource": _SOURCE,
        "query": {"query": MODELS, "refId": "models"},
        "definition": MODELS,
        "refresh": 2,
        "sort": 1,
        "multi": True,
        "includeAll": True,
        "allValue": ".*",
        "current": {"text": ["All"], "value": ["$__all"]},
    }
    return [source, model]


def _panel(number: int, panel: Panel, x: int, y: int) -> dict[str, Any]:
    made: dict[str, Any] = {
        "id": number,
        "type": panel.kind,
        "title": panel.title,
        "description": panel.what,
        "gridPos": {"x": x, "y": y, "w": panel.width, "h": _HEIGHTS[panel.kind]},
        "datasource": _SOURCE,
    }
    if panel.kind == "alertlist":
        return made | {"options": {"alertInstanceLabelFilter": "", "groupMode": "default", "viewMode": "list"}}
    made["targets"] = [_target(panel, at, query) for at, query in enumerate(panel.queries)]
    made["fieldConfig"] = {"defaults": _defaults(panel), "overrides": []}
    return made | {"options": _options(panel)} | _transformed(panel)


def _target(panel: Panel, at: int, query: Query) -> dict[str, Any]:
    target = {"refId": chr(ord("A") + at), "datasource": _SOURCE, "expr": query.expr, "legendFormat": query.legend}
    instant = panel.kind in {"stat", "bargauge", "table"}
    return target | {"instant": instant, "range": not instant} | ({"format": "table"} if panel.kind == "table" else {})


def _defaults(panel: Panel) -> dict[str, Any]:
    steps: list[dict[str, Any]] = [{"color": _STEP_COLOURS[0] if panel.limits else "text", "value": None}]
    steps += [{"color": colour, "value": at} for colour, at in zip(_STEP_COLOURS[1:], panel.limits, strict=False)]
    made: dict[str, Any] = {"unit": panel.unit, "thresholds": {"mode": "absolute", "steps": steps}}
    if panel.least is not None:
        made["min"] = panel.least
    if panel.most is not None:
        made["max"] = panel.most
    if panel.kind == "timeseries":
        drawn = {"lineWidth": 1, "fillOpacity": 30 if panel.stacked else 5, "showPoints": "never", "spanNulls": 120_000}
        made["custom"] = drawn | {"stacking": {"mode": "normal" if panel.stacked else "none"}}
        made["custom"]["thresholdsStyle"] = {"mode": "line" if panel.limits else "off"}
        made["color"] = {"mode": "palette-classic"}
    else:
        made["color"] = {"mode": "thresholds"}
    if panel.words:
        words = {f"{value:g}": {"text": text, "color": colour} for value, text, colour in panel.words}
        made["mappings"] = [{"type": "value", "options": words}]
    return made


def _options(panel: Panel) -> dict[str, Any]:
    last: dict[str, Any] = {"calcs": ["lastNotNull"], "fields": "", "values": False}
    match panel.kind:
        case "stat":
            return {"reduceOptions": last, "colorMode": "value", "graphMode": "none", "textMode": "value_and_name"}
        case "bargauge":
            return {"reduceOptions": last, "displayMode": "basic", "orientation": "horizontal"}
        case "table":
            return {"showHeader": True, "cellHeight": "sm"}
        case "state-timeline":
            return {"mergeValues": True, "showValue": "auto", "legend": {"showLegend": False}}
        case _:
            legend = {"displayMode": "table", "placement": "bottom", "calcs": ["lastNotNull", "max"]}
            return {"legend": legend | {"showLegend": True}, "tooltip": {"mode": "multi", "sort": "desc"}}


def _transformed(panel: Panel) -> dict[str, Any]:
    """Tables of instant vectors without the columns nobody asked for."""
    if panel.kind != "table":
        return {}
    hidden = dict.fromkeys(("Time", "__name__", "instance", "job"), True)
    return {"transformations": [{"id": "organize", "options": {"excludeByName": hidden, "indexByName": {}}}]}
