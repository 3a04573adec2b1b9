"""`mlcp reports`: what was documented of each release, and documents asked for by hand."""

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from control_plane.cli import connect
from control_plane.cli.console import Commands, Json, Limit, Model, OfModel, Reason, ago, say, show, table
from control_plane.errors import ControlPlaneError, InvalidInput

if TYPE_CHECKING:
    from control_plane.sdk.answers import JobView

ReportId = Annotated[str, typer.Argument(help="The report's id.", metavar="ID")]
Kind = Annotated[
    str, typer.Argument(help="deployment, rollback, retraining, drift, incident or monthly.", metavar="KIND")
]
_ENDED = frozenset({"succeeded", "failed", "cancelled"})
_POLL_S = 0.5


def register(app: typer.Typer) -> None:
    group = typer.Typer(cls=Commands, no_args_is_help=True, help="Reports on releases, drift and incidents.")
    group.command(name="list")(list_reports)
    group.command()(make)
    group.command()(get)
    app.add_typer(group, name="reports")


def list_reports(
    model: OfModel = None,
    kind: Annotated[str | None, typer.Option("--kind", help="Of this kind only.")] = None,
    limit: Limit = 20,
    as_json: Json = False,
) -> None:
    """Reports, newest first."""
    with connect.admin() as cp:
        found = cp.reports(model=model, kind=kind, limit=limit).items
    rows = [(str(report.id), ago(report.made_at), report.title) for report in found]
    show(found, as_json, table(["=id", "=made", "title"], rows))


def make(
    model: Model,
    kind: Kind,
    reason: Reason,
    version: Annotated[str | None, typer.Option("--version", help="Of a retraining; default: the newest.")] = None,
    rollout: Annotated[str | None, typer.Option("--rollout", help="Of a release; default: the newest.")] = None,
    month: Annotated[str | None, typer.Option("--month", help="Such as 2026-10; default: the last 30 days.")] = None,
    wait: Annotated[bool, typer.Option("--wait", help="Return when it is made.")] = False,
    as_json: Json = False,
) -> None:
    """Have a report made."""
    with connect.admin() as cp:
        job: JobView = cp.make_report(model, kind, version=version, rollout_id=rollout, month=month, reason=reason)
        while wait and job.state not in _ENDED:
            time.sleep(_POLL_S)
            job = cp.job(job.id)
    if wait and job.state != "succeeded":
        raise ControlPlaneError(f"The report was not made: {job.error or job.state}")
    show(job, as_json, f"Report {job.id}", "is made." if wait else f"is being made: mlcp reports get {job.id}")


def get(
    report: ReportId,
    to: Annotated[
        Path | None, typer.Option("--to", help="Write the document here: FILE.json or FILE.pdf.", metavar="FILE")
    ] = None,
    as_json: Json = False,
) -> None:
    """Show a report's summary, or write its document to a file."""
    with connect.admin() as cp:
        if to is None:
            found = cp.report(report)
            show(found, as_json, found.title, "", *found.summary)
            return
        forms = {".json": cp.report_json, ".pdf": cp.report_pdf}
        if to.suffix not in forms:
            raise InvalidInput(f"{to} says neither .json nor .pdf.", reasons=["--to: end it with .json or .pdf"])
        part = to.with_name(f"{to.name}.part")
        try:
            with part.open("wb") as out:
                forms[to.suffix](out.write, report)
            part.replace(to)
        except OSError as exc:
            raise InvalidInput(f"{to} cannot be written: {exc.strerror}.") from exc
        finally:
            part.unlink(missing_ok=True)
    say(f"{to}: {to.stat().st_size} bytes.")
