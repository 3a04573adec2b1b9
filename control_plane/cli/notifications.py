"""`mlcp notifications`: what people were told, and whether it reached them."""

from typing import Annotated

import typer

from control_plane.cli import connect
from control_plane.cli.console import Commands, Json, Limit, Reason, ago, show, table


def register(app: typer.Typer) -> None:
    group = typer.Typer(cls=Commands, no_args_is_help=True, help="What people were told, and whether it reached them.")
    group.command(name="list")(list_notifications)
    group.command(name="try")(try_notification)
    app.add_typer(group, name="notifications")


def list_notifications(
    model: Annotated[str | None, typer.Argument(help="About this model only.")] = None,
    limit: Limit = 20,
    as_json: Json = False,
) -> None:
    """Deliveries, newest first: one line per receiver."""
    with connect.admin() as cp:
        found = cp.notifications(model=model, limit=limit).items
    rows = [(ago(d.at), d.receiver, d.severity, _how(d.state, d.attempts, d.error), d.title) for d in found]
    show(found, as_json, table(["=at", "receiver", "severity", "state", "title"], rows))


def try_notification(
    reason: Reason,
    severity: Annotated[str, typer.Option("--severity", help="info, warning or critical.")] = "info",
    as_json: Json = False,
) -> None:
    """Tell the receivers of a severity that this is a trial."""
    with connect.admin() as cp:
        told = cp.try_notification(severity=severity, reason=reason)
    show(told, as_json, "Told to whoever the worker's receivers name: mlcp notifications list")


def _how(state: str, attempts: int, error: str | None) -> str:
    if state == "succeeded":
        return "delivered"
    return f"{state}, {attempts} tried: {error}" if error else state
