"""`python -m infra.monitoring.preview URL --out FOLDER`: pictures of the dashboards over a Prometheus, without Grafana.

Places, titles, units and data are those Grafana would show; colours and fonts are not. Needs matplotlib.
"""

import argparse
import json
import re
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import httpx

from infra.monitoring import grafana
from infra.monitoring.__main__ import BOARDS
from infra.monitoring.grafana import Dashboard

_POINTS: Final = 240
_INCHES: Final = 0.62  # width of a column
_UNITS: Final = {"s": " s", "reqps": " req/s", "bytes": " B", "percentunit": "", "short": "", "none": ""}
Series = list[tuple[str, list[float], list[float]]]  # legend, Unix seconds, values


def draw(board: Dashboard, url: str, out: Path, *, minutes: float) -> Path:
    """Draw `board` over the last `minutes` into out/<name>.png."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt
    from matplotlib.gridspec import GridSpec

    document = grafana.document(board)
    bottom = max(panel["gridPos"]["y"] + panel["gridPos"]["h"] for panel in document["panels"])
    figure = plt.figure(figsize=(grafana.COLUMNS * _INCHES, bottom * 0.42), dpi=70)
    grid = GridSpec(bottom, grafana.COLUMNS, figure=figure, left=0.03, right=0.99, top=0.97, bottom=0.01, hspace=0.9)
    figure.suptitle(board.title, x=0.03, y=0.995, ha="left", fontweight="bold")
    for panel in document["panels"]:
        at = panel["gridPos"]
        axes = figure.add_subplot(grid[at["y"] : at["y"] + max(1, at["h"] - 1), at["x"] : at["x"] + at["w"]])
        if panel["type"] == "row":
            axes.set_axis_off()
            axes.text(0, 0, panel["title"], fontsize=11, fontweight="bold", color="#345")
            continue
        axes.set_title(panel["title"], fontsize=8, loc="left")
        found = [one for target in panel.get("targets", ()) for one in _ask(url, target, minutes)]
        if panel["type"] in {"timeseries", "state-timeline"}:
            _lines(axes, panel, found)
        else:
            _words(axes, panel, found)
    out.mkdir(parents=True, exist_ok=True)
    path = out / f"{board.uid.removeprefix('mlcp-')}.png"
    figure.savefig(path)
    plt.close(figure)
    return path


def _ask(url: str, target: dict[str, Any], minutes: float) -> Series:
    expr = target["expr"].replace("$model", ".*").replace("$__rate_interval", "30s")
    now = time.time()
    given = {"query": expr, "start": now - minutes * 60, "end": now, "step": max(1.0, minutes * 60 / _POINTS)}
    answer = httpx.get(f"{url}/api/v1/query_range", params=given, timeout=60).raise_for_status().json()
    found: Series = []
    for series in answer["data"]["result"]:
        legend = target["legendFormat"]
        for name, value in series["metric"].items():
            legend = legend.replace("{{" + name + "}}", value)
        legend = re.sub(r" *\{\{\w+\}\}", "", legend)  # labels this series does not have
        found.append((legend, [at for at, _ in series["values"]], [float(value) for _, value in series["values"]]))
    return found


def _lines(axes: Any, panel: dict[str, Any], found: Series) -> None:
    for legend, times, values in found:
        drawn = "steps-post" if panel["type"] == "state-timeline" else "default"
        axes.plot([datetime.fromtimestamp(at, UTC) for at in times], values, label=legend, lw=1, drawstyle=drawn)
    axes.tick_params(labelsize=6)
    axes.grid(visible=True, lw=0.3)
    axes.set_ylabel(_UNITS[panel["fieldConfig"]["defaults"]["unit"]].strip(), fontsize=6)
    if found:
        axes.legend(fontsize=5, ncols=2, loc="upper left", framealpha=0.6)


def _words(axes: Any, panel: dict[str, Any], found: Series) -> None:
    axes.set_xticks([])
    axes.set_yticks([])
    unit = _UNITS[panel.get("fieldConfig", {}).get("defaults", {}).get("unit", "none")]
    lines = [f"{legend}: {values[-1]:.4g}{unit}" for legend, _, values in found if values]
    axes.text(0.03, 0.92, "\n".join(lines[:12]), fontsize=7, va="top", transform=axes.transAxes)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m infra.monitoring.preview", description=__doc__)
    parser.add_argument("url", help="of Prometheus, such as http://127.0.0.1:9090")
    parser.add_argument("--out", type=Path, required=True, help="folder of the pictures")
    parser.add_argument("--minutes", type=float, default=60.0, help="how far back")
    arguments = parser.parse_args(argv)
    made = [str(draw(board, arguments.url, arguments.out, minutes=arguments.minutes)) for board in BOARDS]
    sys.stdout.write(json.dumps(made) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
