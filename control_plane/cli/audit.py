"""`mlcp audit`: what was done, by whom, and the proof that the record was not edited."""

from pathlib import Path
from typing import Annotated

import typer

from control_plane.cli import connect
from control_plane.cli.console import Commands, Json, Limit, moment, say, show, table
from control_plane.errors import ControlPlaneError, InvalidInput, NotFound


def register(app: typer.Typer) -> None:
    group = typer.Typer(cls=Commands, no_args_is_help=True, help="The audit chain.")
    group.command(name="list")(list_audit)
    group.command()(verify)
    group.command()(export)
    app.add_typer(group, name="audit")


def list_audit(
    object: Annotated[str | None, typer.Option("--object", help="Only what was done to this.")] = None,
    action: Annotated[str | None, typer.Option("--action", help="Only this action.")] = None,
    limit: Limit = 20,
    as_json: Json = False,
) -> None:
    """Links of the chain, newest first."""
    with connect.admin() as cp:
        found = cp.audit(object=object, action=action, limit=limit).items
    rows = [(r.seq, moment(r.at), r.actor.person, "\n".join([f"{r.action} {r.object}", *r.reasons])) for r in found]
    show(found, as_json, table(["#seq", "=at (UTC)", "who", "what and why"], rows))


def verify(
    exported: Annotated[
        Path | None, typer.Option("--export", help="Verify this export instead; asks nobody.", metavar="FILE")
    ] = None,
    public_key: Annotated[
        Path | None, typer.Option("--public-key", help="PEM with the keys you trust; with --export.", metavar="FILE")
    ] = None,
    as_json: Json = False,
) -> None:
    """Walk the whole chain: every hash, and every checkpoint that was signed."""
    from control_plane.contracts.audit import AuditVerification, verdict

    found: AuditVerification
    if exported is not None:
        if public_key is None:
            raise InvalidInput("--export needs --public-key: a file that came with the export would prove nothing.")
        from control_plane.domain import audit_export, ed25519

        keys = {ed25519.key_id(key): key for key in _keys(public_key)}
        try:
            with exported.open("rb") as file:
                seen = audit_export.verify(file, keys, ed25519.verify)
        except OSError as exc:
            raise NotFound(f"{exported} cannot be read: {exc.strerror}.") from exc
        found = verdict(seen.walked, seen.trusted)
    elif public_key is not None:
        raise InvalidInput("--public-key goes with --export; the API holds its own copy of the key.")
    else:
        with connect.admin() as cp:
            found = cp.verify_audit()
    signed = f"signed up to link {found.signed_to}" if found.signed_to else "nothing of it is signed yet"
    lines = [
        f"{found.links} links, each follows the one before it; {signed}.",
        f"Head: {found.head_seq} {found.head_hash}",
    ]
    if found.exported_to is not None:
        lines.append(f"Outside of the database: signed up to link {found.exported_to}.")
    show(found, as_json, *(lines if found.ok else found.reasons), *found.notes)
    if not found.ok:
        named = (
            f"link {found.first_bad} is the first bad one" if found.first_bad is not None else " ".join(found.reasons)
        )
        raise ControlPlaneError(f"The audit does not hold: {named}")


def export(
    file: Annotated[Path, typer.Argument(help="Written as JSON lines.", metavar="FILE")],
) -> None:
    """Write the whole audit to a file that anybody can verify with the public key."""
    part = file.with_name(f"{file.name}.part")
    try:
        with connect.admin() as cp, part.open("wb") as out:
            cp.export_audit(out.write)
        part.replace(file)
    except OSError as exc:
        raise InvalidInput(f"{file} cannot be written: {exc.strerror}.") from exc
    finally:
        part.unlink(missing_ok=True)
    say(f"{file}: {file.stat().st_size} bytes. Verify it with --export {file} and the public key you trust.")


def _keys(file: Path) -> tuple[bytes, ...]:
    from control_plane.domain import ed25519

    try:
        return ed25519.from_pem(file.read_text())
    except OSError as exc:
        raise NotFound(f"{file} cannot be read: {exc.strerror}.") from exc
    except ValueError as exc:
        raise InvalidInput(f"{file} holds no public key that can be used: {exc}.") from exc
