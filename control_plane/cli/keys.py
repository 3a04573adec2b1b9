"""`mlcp keys`: who may act. The audit's commands are in `audit`."""

from datetime import UTC, datetime
from typing import Annotated

import typer

from control_plane.cli import connect
from control_plane.cli.console import Commands, Json, Reason, show, table

KeyId = Annotated[str, typer.Argument(help="The key's id.", metavar="ID")]


def register(app: typer.Typer) -> None:
    keys = typer.Typer(cls=Commands, no_args_is_help=True, help="API keys: by person and role.")
    keys.command(name="list")(list_keys)
    keys.command()(create)
    keys.command()(revoke)
    keys.command()(rotate)
    app.add_typer(keys, name="keys")


def list_keys(as_json: Json = False) -> None:
    """Keys, never their secrets."""
    from control_plane.sdk import every

    with connect.admin() as cp:
        found = list(every(cp.keys))
    columns = ["=id", "=prefix", "who", "=state"]
    rows = [
        (
            key.id,
            key.prefix,
            f"{key.person}: {key.role} of {', '.join(key.models)}",
            "revoked" if key.revoked_at else "expired" if _over(key.expires_at) else "valid",
        )
        for key in found
    ]
    show(found, as_json, table(columns, rows))


def create(
    person: Annotated[str, typer.Argument(help="A person, or a product service.")],
    role: Annotated[str, typer.Option("--role", help="viewer, operator, approver, admin, auditor or predictor.")],
    reason: Reason,
    models: Annotated[list[str] | None, typer.Option("--models", help="Pattern of models; repeatable.")] = None,
    scopes: Annotated[
        list[str] | None, typer.Option("--scope", help="predict, predict:pin, alert, track; repeatable.")
    ] = None,
    days: Annotated[int | None, typer.Option("--days", help="Valid for so many days.", min=1)] = None,
    rate_limit: Annotated[
        float | None, typer.Option("--rate-limit", help="Predictions a second, over all models and routers.")
    ] = None,
    automated: Annotated[
        bool, typer.Option("--automated", help="For a program: bound by approvals, approves nothing.")
    ] = False,
    as_json: Json = False,
) -> None:
    """A new key. Its secret is shown this once."""
    expires = None if days is None else days * 86_400
    with connect.admin() as cp:
        made = cp.create_key(
            person,
            role,
            models=models or ["*"],
            scopes=scopes or [],
            expires_in_s=expires,
            rate_limit_rps=rate_limit,
            automated=automated or None,
            reason=reason,
        )
    show(made, as_json, f"Key {made.id}", f"of {made.person}, {made.role}; shown this once:", made.secret)


def revoke(key: KeyId, reason: Reason, as_json: Json = False) -> None:
    """Make a key useless."""
    with connect.admin() as cp:
        gone = cp.revoke_key(key, reason=reason)
    show(gone, as_json, f"The key {gone.prefix}... of {gone.person} is revoked.")


def rotate(key: KeyId, reason: Reason, as_json: Json = False) -> None:
    """A new key in place of an old one. Its secret is shown this once."""
    with connect.admin() as cp:
        made = cp.rotate_key(key, reason=reason)
    show(made, as_json, f"Key {made.id}", f"of {made.person}, {made.role}; shown this once:", made.secret)


def _over(expires_at: datetime | None) -> bool:
    return expires_at is not None and expires_at <= datetime.now(UTC)
