"""`mlcp drift`: a model's live traffic against what it was trained on, or one file against another."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from control_plane.cli import connect, sparks
from control_plane.cli.console import Json, Scheduler, Workers, ago, moment, show, stderr, table
from control_plane.errors import InvalidInput

if TYPE_CHECKING:
    from control_plane.sdk.answers import DriftView
    from control_plane.sdk.drift import DriftReport

_SHOWN = 15  # features in the table; --json and --html have all
_WIDTH = 14

Name = Annotated[str | None, typer.Argument(help="Name of a model in Production.", metavar="[MODEL]")]
File = Annotated[
    Path | None,
    typer.Option(help="CSV, Parquet, NDJSON or a folder of Parquet; a profile.json as --reference.", metavar="FILE"),
]
Html = Annotated[
    Path | None, typer.Option("--html", help="Write a report with pictures; aggregates only.", metavar="FILE")
]
Days = Annotated[int, typer.Option("--days", help="How far back the history goes.", min=1, max=100)]
Psi = Annotated[float, typer.Option("--psi", help="Files: practical threshold per column.")]


def register(app: typer.Typer) -> None:
    app.command()(drift)


def drift(
    model: Name = None,
    reference: File = None,
    current: File = None,
    days: Days = 7,
    psi: Psi = 0.1,
    html: Html = None,
    workers: Workers = None,
    scheduler: Scheduler = None,
    as_json: Json = False,
) -> None:
    """Drift of MODEL's traffic now, or of the rows of --current against those of --reference."""
    if model is not None and (workers is not None or scheduler is not None):
        raise InvalidInput("--workers and --scheduler are for two files: a model's traffic is counted as it comes.")
    if model is not None and reference is None and current is None:
        with connect.admin() as cp:
            view = cp.drift(model, days=days)
        _write(html, view.model_dump(mode="json"), f"Drift of {model}")
        show(view, as_json, *_lines(view))
        return
    if model is not None or reference is None or current is None:
        raise InvalidInput("Give either MODEL, or --reference FILE and --current FILE.")
    from control_plane.sdk.drift import DriftDetector

    detector = DriftDetector(reference, psi=psi, histograms=html is not None, workers=workers, scheduler=scheduler)
    report = detector.detect_drift(current)
    _write(html, report.model_dump(mode="json"), f"{current.name} against {reference.name}")
    show(report, as_json, *_of_files(report))


def _write(html: Path | None, document: dict[str, Any], title: str) -> None:
    if html is None:
        return
    from control_plane.cli import drift_html

    try:
        html.write_text(drift_html.page(document, title), encoding="utf-8")
    except OSError as exc:
        raise InvalidInput(f"{html} cannot be written: {exc.strerror}.") from exc

    stderr().print(f"Report written to {html}")


def _lines(view: "DriftView") -> list[Any]:
    if view.looked_at is None or view.window is None or view.reference is None:
        return [view.note or "Nothing is known yet."]
    window, source = view.window, view.reference.source.replace("_", " ")
    head = f"{view.model} version {view.version}, looked at {ago(view.looked_at)} ago: {window.rows:,} answers"
    lines: list[Any] = [
        f"{head} to {window.blocks:,} customers since {moment(window.since)} UTC.",
        f"Reference: {source}, {view.reference.rows:,} rows. Usual: {view.basis}.",
    ]
    incident = next((i for i in view.incidents if i.closed_at is None), None)
    if incident is not None:
        what = ", ".join(incident.features) or ", ".join(incident.kinds)
        lines.append(f"ALARM ({incident.severity}) since {moment(incident.opened_at)} UTC: {what}.")
    if view.note:
        lines.append(f"Note: {view.note}")
    history = view.history
    kinds = [
        (r.kind, r.verdict.upper(), r.score, sparks.line([p.scores.get(r.kind) for p in history], width=_WIDTH), r.why)
        for r in view.readings
    ]
    lines += ["", table(["=drift", "=verdict", "#score", "=history", "why"], kinds)]
    rows: list[tuple[object, ...]] = []
    for feature in view.features[:_SHOWN]:
        shown = feature.histogram
        pair = "\n".join(sparks.pair(shown.reference, shown.current, width=18)) if shown else None
        past = sparks.line([point.psi.get(feature.name) for point in history], width=10, top=feature.limit)
        rows.append((feature.name, feature.verdict.upper(), feature.psi, feature.share, past, pair))
    columns = ["feature", "=verdict", "#PSI", "#share", "=history", "=reference / now"]
    lines += ["", table(columns, rows)]
    if len(view.features) > _SHOWN:
        lines.append(f"... and {len(view.features) - _SHOWN} more; --html FILE shows all.")
    return lines


def _of_files(report: "DriftReport") -> list[Any]:
    head = f"{report.why} {report.reference_rows:,} rows against {report.current_rows:,}."
    rows = [(f.name, f.verdict.upper(), f.psi, f.ks, f.why) for f in report.features[:_SHOWN]]
    lines: list[Any] = [head, "", table(["column", "=verdict", "#PSI", "#KS", "why"], rows)]
    if len(report.features) > _SHOWN:
        lines.append(f"... and {len(report.features) - _SHOWN} more; --json or --html FILE shows all.")
    if report.left_out:
        lines.append(f"Left out, neither numbers, true and false, nor text: {', '.join(report.left_out)}.")
    return lines
