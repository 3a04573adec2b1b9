"""`mlcp retrain | erase | jobs`: work the worker does in the background."""

import json
import re
import sys
import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated

import typer

from control_plane.cli import approvals, connect
from control_plane.cli.console import Commands, Json, Limit, Model, OfModel, Reason, ago, say, show, table
from control_plane.errors import ControlPlaneError, InvalidInput

if TYPE_CHECKING:
    from control_plane.sdk import ControlPlane
    from control_plane.sdk.answers import JobView

JobId = Annotated[str, typer.Argument(help="The job's id.", metavar="ID")]
_ENDED = frozenset({"succeeded", "failed", "cancelled"})


def register(app: typer.Typer) -> None:
    app.command()(retrain)
    app.command()(erase)
    group = typer.Typer(cls=Commands, no_args_is_help=True, help="Background jobs.")
    group.command(name="list")(list_jobs)
    group.command(name="show")(show_job)
    group.command(name="logs")(job_logs)
    group.command()(cancel)
    app.add_typer(group, name="jobs")


def retrain(
    model: Model,
    reason: Reason,
    source: Annotated[
        str | None, typer.Option("--from", help="archive, file or simulated; the log if there is no --data.")
    ] = None,
    since: Annotated[str | None, typer.Option("--since", help="Of the log: 30d, 12h, or a date.")] = None,
    rows: Annotated[int | None, typer.Option("--rows", help="Of the log: the newest so many.")] = None,
    seed: Annotated[int | None, typer.Option("--seed", help="Of everything random.")] = None,
    data: Annotated[str | None, typer.Option("--data", help="A file on the worker's host.")] = None,
    wait: Annotated[bool, typer.Option("--wait", help="Return when the job has ended.")] = False,
    as_json: Json = False,
) -> None:
    """Train MODEL on what the log knows by now; better, and it is in Staging."""
    oldest = None if since is None else _moment_of(since)
    with connect.admin() as cp:
        asked = cp.retrain(model, source=source, since=oldest, rows=rows, seed=seed, data=data, reason=reason)
        if approvals.is_one(asked):
            approvals.waits(asked, as_json)
            return
        job = _ended(cp, asked, wait)
    _show(job, wait, as_json)


def erase(
    unit: Annotated[str, typer.Argument(help="unit_id, such as a customer; - reads stdin.", metavar="UNIT")],
    reason: Reason,
    wait: Annotated[bool, typer.Option("--wait", help="Return when the job has ended.")] = False,
    as_json: Json = False,
) -> None:
    """Forget UNIT: its features and name go from the log and the archive."""
    with connect.admin() as cp:
        job = _ended(cp, cp.erase(sys.stdin.read().strip() if unit == "-" else unit, reason=reason), wait)
    _show(job, wait, as_json)


def list_jobs(
    model: OfModel = None,
    limit: Limit = 20,
    as_json: Json = False,
) -> None:
    """Jobs, newest first."""
    with connect.admin() as cp:
        found = cp.jobs(model=model, limit=limit).items
    rows = [(job.id, job.kind, job.model, job.state, job.created_by, ago(job.created_at)) for job in found]
    show(found, as_json, table(["=id", "=kind", "model", "=state", "by", "=age"], rows))


def show_job(job: JobId, as_json: Json = False) -> None:
    """One job: where it is, and what came of it."""
    with connect.admin() as cp:
        found = cp.job(job)
    show(found, as_json, *_described(found))


def job_logs(
    job: JobId,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the job has ended.")] = False,
    as_json: Json = False,
) -> None:
    """What the job wrote."""
    with connect.admin() as cp:
        if as_json:
            show(cp.job_logs(job), True)
        else:
            _print_logs(cp, job, follow)


def cancel(job: JobId, reason: Reason, as_json: Json = False) -> None:
    """Ask the worker to stop the job."""
    with connect.admin() as cp:
        found = cp.cancel_job(job, reason=reason)
    show(found, as_json, *_described(found))


def _moment_of(text: str) -> datetime:
    """A span before now (30d, 12h), or a day or moment in ISO 8601, UTC where it names no zone."""
    span = re.fullmatch(r"(\d{1,5})([dh])", text.strip())
    try:
        if span is not None:
            return datetime.now(UTC) - timedelta(**{"days" if span[2] == "d" else "hours": int(span[1])})
        found = datetime.fromisoformat(text.strip())
        return found if found.tzinfo is not None else found.replace(tzinfo=UTC)
    except (ValueError, OverflowError) as exc:
        raise InvalidInput(f"--since: {text!r} is neither a span such as 30d or 12h nor a date.") from exc


def _ended(cp: "ControlPlane", job: "JobView", wait: bool) -> "JobView":
    while wait and job.state not in _ENDED:
        time.sleep(0.5)
        job = cp.job(job.id)
    return job


def _show(job: "JobView", waited: bool, as_json: bool) -> None:
    show(job, as_json, *_described(job))
    if waited and job.state != "succeeded":
        raise ControlPlaneError(f"The job {job.state}: {job.error or 'no reason given'}.")


def _print_logs(cp: "ControlPlane", job: str, follow: bool) -> None:
    offset, part = 0, ""
    while True:
        piece = cp.job_logs(job, offset=offset)
        *lines, part = (part + piece.text).split("\n")
        for line in lines:
            say(_in_words(line))
        if not piece.text:
            if piece.complete or not follow:
                break
            time.sleep(0.5)
        offset = piece.next
    if part:
        say(_in_words(part))


def _in_words(line: str) -> str:
    """A line of progress as `62%  what is being done`, any other line as it is."""
    try:
        event = json.loads(line)
        return f"{event['fraction']:4.0%}  {event['detail']}"
    except (ValueError, TypeError, KeyError):
        return line


def _described(job: "JobView") -> list[str]:
    lines = [f"Job        {job.id}", f"What       {job.kind} {job.model or ''}, wanted by {job.created_by}"]
    lines += [f"State      {job.state}", f"Age        {ago(job.created_at)}"]
    lines += [f"Progress   {name}: {value}" for name, value in job.progress.items()]
    lines += [f"Result     {name}: {value}" for name, value in (job.result or {}).items()]
    return [*lines, f"Error      {job.error}"] if job.error else lines
