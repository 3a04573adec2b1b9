"""`mlcp replay | replays`: what a candidate would have answered on logged traffic."""

import sys
import time
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from control_plane.cli import connect
from control_plane.cli.console import Json, Limit, Model, ago, moment, show, stderr, table
from control_plane.errors import ControlPlaneError, InvalidInput

if TYPE_CHECKING:
    from control_plane.domain.replay.report import Change, Interval, Report
    from control_plane.sdk import ControlPlane
    from control_plane.sdk.answers import ReplayView

_ENDED = frozenset({"succeeded", "failed", "cancelled"})
_LOOK_S = 0.5
_SHOWN = 10

Candidate = Annotated[str, typer.Option("--candidate", help="The version to try.", metavar="V")]
Baseline = Annotated[str | None, typer.Option("--baseline", help="Compare with this; else Production.", metavar="V")]
SinceText = Annotated[str, typer.Option("--since", help="How far back, such as 30d; or a time, ISO 8601.")]
Until = Annotated[str | None, typer.Option("--until", help="A time, ISO 8601; else now.")]
Sample = Annotated[float, typer.Option("--sample", help="Share of the customers, 0 to 1.")]
SegmentName = Annotated[str | None, typer.Option("--segment", help="A feature to tell apart by.")]


def register(app: typer.Typer) -> None:
    app.command()(replay)
    app.command()(replays)


def replay(
    model: Model,
    candidate: Candidate,
    since: SinceText = "7d",
    until: Until = None,
    baseline: Baseline = None,
    sample: Sample = 1.0,
    segment: SegmentName = None,
    anew: Annotated[bool, typer.Option("--anew", help="Also where it has been answered.")] = False,
    wait: Annotated[bool, typer.Option("--wait/--detach", help="Wait for it, or leave it to the worker.")] = True,
    reason: Annotated[str | None, typer.Option("--reason", help="Why; kept in the audit.", metavar="TEXT")] = None,
    as_json: Json = False,
) -> None:
    """Run a version over MODEL's logged traffic: what would have changed."""
    begin = since if since[-1:] in "mhdw" else _time("--since", since)
    end = None if until is None else _time("--until", until)
    with connect.admin() as cp:
        found = cp.replay(
            model,
            candidate,
            since=begin,
            until=end,
            baseline=baseline,
            sample=sample,
            segment=segment,
            anew=anew or None,
            reason=reason,
        )
        if wait:
            found = _ended(cp, found, quiet=as_json)
    show(found, as_json, *_lines(found))
    if wait and found.state != "succeeded":
        raise ControlPlaneError(f"The replay {found.state}: {found.error or 'no reason given'}.")


def replays(
    model: Model,
    replay_id: Annotated[str | None, typer.Argument(help="Show this one.", metavar="[ID]")] = None,
    limit: Limit = 20,
    as_json: Json = False,
) -> None:
    """Replays of MODEL, newest first; one with its report."""
    with connect.admin() as cp:
        if replay_id is not None:
            one = cp.replayed(model, replay_id)
            show(one, as_json, *_lines(one))
            return
        found = cp.replays(model, limit=limit).items
    rows = [
        (r.id, f"{r.baseline_version} -> {r.candidate_version}", r.state, _gate(r), ago(r.created_at)) for r in found
    ]
    show(found, as_json, table(["=id", "=versions", "=state", "gate", "=age"], rows))


def _time(option: str, text: str) -> datetime:
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        raise InvalidInput(f"{option}: {text} is neither a time nor a number of m, h, d or w.") from None
    return at if at.tzinfo else at.astimezone()


def _ended(cp: "ControlPlane", found: "ReplayView", *, quiet: bool) -> "ReplayView":
    """Wait for it, and say how far it is."""
    told = -1
    while found.state not in _ENDED:
        percent = int(100 * (found.fraction or 0.0))
        if not quiet and percent != told and sys.stderr.isatty():
            stderr().print(f"{percent:3d}% of the rows", end="\r")
            told = percent
        time.sleep(_LOOK_S)
        found = cp.replayed(found.model, found.id)
    return found


def _gate(found: "ReplayView") -> str | None:
    if found.gate is None:
        return None
    return "passes" if not found.gate else f"{len(found.gate)} against"


def _lines(found: "ReplayView") -> list[Any]:
    versions = f"version {found.candidate_version} in place of {found.baseline_version}"
    lines: list[Any] = [f"{found.model}: {versions}, {moment(found.since)} to {moment(found.until)} UTC."]
    lines.append(f"Replay {found.id}, {found.state}, asked for by {found.created_by} {ago(found.created_at)} ago.")
    if found.error:
        lines.append(f"Error: {found.error}")
    report = found.report
    if report is None:
        return lines
    left = ", ".join(f"{count:,} {why}" for why, count in report.left_out.items())
    lines.append(f"{report.rows:,} rows of about {report.units:,} customers{f'; left out: {left}' if left else ''}.")
    lines += ["", *found.summary]
    if found.gate is not None:
        lines += ["", "The gate lets it pass." if not found.gate else "The gate does not let it pass:"]
        lines += [f"  - {reason}" for reason in found.gate]
    return [*lines, *_tables(report)]


def _tables(report: "Report") -> list[Any]:
    made: list[Any] = []
    rows: list[tuple[object, ...]]
    if report.metrics:
        rows = [(one.name, one.baseline, one.candidate, _range(one.difference), _bounds(one)) for one in report.metrics]
        made += ["", table(["=metric", "#before", "#after", "=difference (95 %)", "bounds"], rows)]
    if report.shift is not None:
        cells = [
            (f"{cell.low:.4g} .. {cell.high:.4g}", f"{cell.baseline:.1%}", f"{cell.candidate:.1%}")
            for cell in report.shift.cells
        ]
        made += ["", table(["=score", "#before", "#after"], cells)]
    if report.segments:
        rows = [(one.name, one.rows, _range(one.difference), _share(one.flip_rate)) for one in report.segments[:_SHOWN]]
        made += ["", table([str(report.segment), "#rows", "=score moves", "=decisions differ"], rows)]
    if report.flips is not None and report.flips.examples:
        rows = [
            (f"{one.before} -> {one.after}", one.baseline_score, one.candidate_score, _features(one.features))
            for one in report.flips.examples[:_SHOWN]
        ]
        made += ["", table(["=decided", "#before", "#after", "features"], rows)]
    if report.refusals:
        rows = [(one.feature or "the row", one.reason, one.rows) for one in report.refusals[:_SHOWN]]
        made += ["", table(["refused for", "reason", "#rows"], rows)]
    times = [
        (name, kind, q.p50, q.p95, q.p99)
        for name, latency in report.latency.items()
        for kind, q in (("batch", latency.batch), ("single", latency.single))
        if q is not None
    ]
    made += ["", table(["=microseconds a row", "=calls", "#p50", "#p95", "#p99"], times)]
    made += [f"Note: {note}" for note in report.notes]
    return [*made, f"{report.rows_per_s:,.0f} rows/s, {report.took_s:.1f} s."]


def _range(found: "Interval | None") -> str | None:
    if found is None:
        return None
    if found.low is None or found.high is None:
        return f"{found.value:+.4g}"
    return f"{found.value:+.4g} [{found.low:+.4g}, {found.high:+.4g}]"


def _share(found: "Interval | None") -> str | None:
    if found is None:
        return None
    if found.low is None or found.high is None:
        return f"{found.value:.2%}"
    return f"{found.value:.2%} [{found.low:.2%}, {found.high:.2%}]"


def _bounds(change: "Change") -> str | None:
    return None if change.bounds is None else f"{change.bounds[0]:+.4g} .. {change.bounds[1]:+.4g}"


def _features(features: dict[str, Any]) -> str:
    return ", ".join(f"{name}={value}" for name, value in features.items())
