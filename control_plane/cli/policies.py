"""`mlcp policies`: what is decided without a person, and the switch that ends it."""

from typing import TYPE_CHECKING, Annotated

import typer

from control_plane.cli import connect
from control_plane.cli.console import Commands, Json, Limit, OfModel, Reason, ago, moment, show, table, to_json

if TYPE_CHECKING:
    from rich.console import RenderableType

    from control_plane.sdk.answers import DecisionView, PolicyView


def register(app: typer.Typer) -> None:
    group = typer.Typer(cls=Commands, no_args_is_help=True, help="What is decided without a person.")
    group.command(name="list")(list_policies)
    group.command(name="show")(show_policy)
    group.command()(halt)
    group.command()(resume)
    group.command(name="try")(try_signal)
    group.command()(decisions)
    app.add_typer(group, name="policies")


def list_policies(limit: Limit = 20, as_json: Json = False) -> None:
    """Policies that were applied, newest first."""
    with connect.admin() as cp:
        found = cp.policies(limit=limit).items
    rows = [(p.version, p.name, p.applied_by, moment(p.applied_at), p.reason) for p in found]
    show(found, as_json, table(["#version", "name", "by", "=at (UTC)", "why"], rows))


def show_policy(
    name: Annotated[str, typer.Argument(help="current, a version, or a template: dev, prod.")] = "current",
    as_json: Json = False,
) -> None:
    """A policy as a file for `mlcp apply -f`."""
    with connect.admin() as cp:
        found = cp.policy(name)
    show(found, as_json, *_described(found))


def halt(reason: Reason, as_json: Json = False) -> None:
    """Nothing happens by itself any more; people are told, and may act."""
    with connect.admin() as cp:
        found = cp.halt(reason=reason)
    show(found, as_json, "Halted. mlcp policies resume ends it.")


def resume(reason: Reason, as_json: Json = False) -> None:
    """End the halt; what was held is not made up for."""
    with connect.admin() as cp:
        found = cp.resume_policies(reason=reason)
    show(found, as_json, f"Going on; it was halted by {found.by} {ago(found.at)} ago: {found.reason}")


def try_signal(
    name: Annotated[str, typer.Argument(help="Such as an alert's name.")],
    model: Annotated[str | None, typer.Option("--model", help="The model it is about.")] = None,
    source: Annotated[
        str, typer.Option("--source", help="alert, drift, performance, slo, rollout, schedule or human.")
    ] = "alert",
    severity: Annotated[str, typer.Option("--severity", help="info, warning or critical.")] = "warning",
    as_json: Json = False,
) -> None:
    """What would be done about a signal now, and why. Nothing is."""
    with connect.admin() as cp:
        found = cp.try_signal(name, model=model, source=source, severity=severity)
    show(found, as_json, *_told(found))


def decisions(
    model: OfModel = None,
    limit: Limit = 10,
    as_json: Json = False,
) -> None:
    """What was noticed, what followed, and whether it helped; newest first."""
    with connect.admin() as cp:
        found = cp.decisions(model=model, limit=limit).items
    lines: list[RenderableType] = []
    for decision in found:
        lines += [f"{moment(decision.at)} UTC", *_told(decision), ""]
    show(found, as_json, *(lines or ["Nothing yet."]))


def _told(decision: "DecisionView") -> "list[RenderableType]":
    lines: list[RenderableType] = [
        decision.text.split(f" {decision.acts[0].operation}: ")[0] if decision.acts else decision.text
    ]
    for act in decision.acts:
        state = f" ({act.state})" if act.state else ""
        effect = f"; it was {act.effect} afterwards" if act.effect else ""
        lines.append(f"  {act.operation}: {act.outcome}{state}, {act.why}{effect}")
        lines += [f"    {name} {value}" for name, value in (act.result or {}).items()]
    return lines


def _described(policy: "PolicyView") -> "list[RenderableType]":
    head = f"# version {policy.version} of {moment(policy.applied_at)} UTC" if policy.version else "# a template"
    lines: list[RenderableType] = [head]
    if policy.halted:
        lines.append(f"# HALTED {ago(policy.halted.at)} ago by {policy.halted.by}: {policy.halted.reason}")
    try:
        import yaml
    except ImportError:
        return [*lines, to_json(policy.document)]
    return [*lines, yaml.safe_dump(policy.document, sort_keys=False, width=76).rstrip()]
