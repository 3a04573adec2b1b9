"""`mlcp backup | restore`: databases and objects of this installation, by a process of their own."""

from typing import Annotated, Any

import typer

from control_plane.cli.console import Json, show, table

Folder = Annotated[str, typer.Argument(help="Of this backup alone.", metavar="FOLDER")]

_MODULE = "control_plane.embedded.backup"


def register(app: typer.Typer) -> None:
    app.command()(backup)
    app.command()(restore)


def backup(folder: Folder, as_json: Json = False) -> None:
    """Save the databases, the archive and the artifacts of models into FOLDER."""
    _tell(_done("save", folder), as_json)


def restore(
    folder: Folder,
    replace: Annotated[bool, typer.Option("--replace", help="Over databases that hold something.")] = False,
    as_json: Json = False,
) -> None:
    """Bring back what a backup holds; checked first, whole or not at all per database."""
    _tell(_done("restore", folder, *(["--replace"] if replace else [])), as_json)


def _done(*arguments: str) -> dict[str, Any]:
    from control_plane.sdk import subprocesses

    said: dict[str, Any] = {}
    for said in subprocesses.events("server", _MODULE, *arguments):  # noqa: B007  (the last one counts)
        pass
    return said


def _tell(done: dict[str, Any], as_json: bool) -> None:
    rows = [(name, f"database, {_size(entry['bytes'])}") for name, entry in done["databases"].items()]
    rows += [(name, f"{entry['files']} files, {_size(entry['bytes'])}") for name, entry in done["objects"].items()]
    show(done, as_json, table(["=", done["at"]], rows))


def _size(amount: int) -> str:
    return f"{amount / 2**20:.1f} MB"
