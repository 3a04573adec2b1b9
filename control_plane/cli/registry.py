"""`mlcp models | versions | timeline | performance`: what is registered, and who answers customers."""

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from control_plane.cli import connect
from control_plane.cli.console import Json, Limit, Model, ago, moment, show, table
from control_plane.errors import InvalidInput

if TYPE_CHECKING:
    from rich.console import RenderableType

    from control_plane.sdk.answers import VersionView

AsOf = Annotated[str | None, typer.Option("--as-of", help="A moment, ISO 8601; no zone means UTC.", metavar="TIME")]


def register(app: typer.Typer) -> None:
    app.command()(models)
    app.command()(versions)
    app.command()(timeline)
    app.command()(performance)


def models(as_json: Json = False) -> None:
    """Registered models and who is Production of each."""
    from control_plane.sdk import every

    with connect.admin() as cp:
        found = list(every(cp.models))
    columns = ["model", "=problem", "=production", "=previous", "=staging", "=newest", "=rollout"]
    rows = [
        (
            model.name,
            model.problem,
            model.production_version,
            model.previous_version,
            model.staging_version,
            model.newest_version,
            "open" if model.open_rollout else None,
        )
        for model in found
    ]
    show(found, as_json, table(columns, rows))


def versions(model: Model, limit: Limit = 50, as_json: Json = False) -> None:
    """Versions of MODEL, newest first."""
    with connect.admin() as cp:
        found = cp.versions(model, limit=limit).items
    columns = ["=version", "=stage", "=since", "semver", "metric", "=server"]
    show(found, as_json, table(columns, (_version(version) for version in found)))


def timeline(model: Model, as_of: AsOf = None, as_json: Json = False) -> None:
    """Who was Production of MODEL, when, by whom and why."""
    with connect.admin() as cp:
        found = cp.timeline(model, as_of=None if as_of is None else _moment(as_of))
    production = found.production_version or "no version"
    columns = ["=at (UTC)", "=version", "=to", "by", "why"]
    rows = [(moment(e.at), e.version, e.to_stage, e.actor, e.reason) for e in found.events]
    head = f"At {moment(found.as_of)} UTC {production} was Production of {model}."
    show(found, as_json, head, "", table(columns, rows))


def performance(
    model: Model,
    period: Annotated[str, typer.Option("--period", help="How far back: 15m, 24h, 7d.")] = "24h",
    as_json: Json = False,
) -> None:
    """How the versions of MODEL did: requests, latency, and quality where the truth is known."""
    with connect.admin() as cp:
        found = cp.performance(model, period=period)
    columns = ["version", "#requests", "#failed", "#p95 ms", "#labelled", "#accuracy", "#precision", "#recall"]
    rows = [
        (v.version, v.predictions, v.failures, v.latency_ms_p95, v.labelled, v.accuracy, v.precision, v.recall)
        for v in found.versions
    ]
    parts: list[RenderableType] = [table(columns, rows)]
    measured = [
        (v.version, name, m.value, "-" if m.low is None or m.high is None else f"{m.low:.4g} - {m.high:.4g}", m.n)
        for v in found.versions
        for name, m in v.metrics.items()
    ]
    parts += ["", table(["version", "metric", "#value", "#95 %", "#of"], measured)] if measured else []
    if (available := found.availability) and available.share is not None:
        aim = "" if available.objective is None else f", objective {available.objective:.4%}"
        parts.append(f"Answered {available.answered} of {available.asked}: {available.share:.4%}{aim}.")
    if found.business:
        figures = [(f.name, f.version, f.predictions, round(f.total, 2), f.unit) for f in found.business]
        parts.append(table(["figure", "version", "#predictions", "#total", "=unit"], figures))
    show(found, as_json, *parts, *([f"Note: {found.note}"] if found.note else []))


def _version(version: "VersionView") -> tuple[object, ...]:
    metric = None if version.metric_value is None else f"{version.metric} {version.metric_value:.4g}"
    return (
        version.version,
        "gone" if version.deleted_at else version.stage,
        ago(version.stage_since),
        version.semver,
        metric,
        version.deployment.state if version.deployment else "asleep" if version.stage == "Staging" else None,
    )


def _moment(text: str) -> datetime:
    try:
        at = datetime.fromisoformat(text)
    except ValueError as exc:
        raise InvalidInput(f"{text!r} is no time such as 2026-11-20T14:00 or 2026-11-20T14:00+01:00.") from exc
    return at if at.tzinfo else at.replace(tzinfo=UTC)
