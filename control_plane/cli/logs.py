"""`mlcp logs`: the log of one process of the embedded stack, in words."""

import json
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Annotated, Any, cast

import typer

from control_plane.cli.console import Json, stdout
from control_plane.errors import InvalidInput, NotFound

_COLOURS = {"error": "red", "critical": "red", "warning": "yellow"}


def register(app: typer.Typer) -> None:
    app.command()(logs)


def logs(
    name: Annotated[str, typer.Argument(help="A process as `mlcp status` names it, e.g. router or churn-3-1a2b.")],
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on as lines come, until interrupted.")] = False,
    lines: Annotated[int, typer.Option("--lines", "-n", help="Newest so many first.", min=0)] = 50,
    as_json: Json = False,
) -> None:
    """The log of one process of the embedded stack."""
    file = _file(name)
    console = stdout()
    with file.open(errors="replace") as log:
        for line in deque(log, maxlen=lines):
            _print(line, as_json, console)
        if follow:
            try:
                for line in _new_lines(log, file):
                    _print(line, as_json, console)
            except KeyboardInterrupt:
                return


def _file(name: str) -> Path:
    from control_plane.sdk import config

    if "/" in name or name.startswith("."):
        raise InvalidInput(f"{name!r} is not a process's name.")
    folder = config.home() / "logs"
    file = folder / f"{name}.log"
    if file.is_file():
        return file
    known = sorted(path.stem for path in folder.glob("*.log"))
    starting = [process for process in known if process.startswith(name)]
    if len(starting) == 1:  # `mlcp logs churn` while one version runs
        return folder / f"{starting[0]}.log"
    reasons = [f"there is {process}" for process in starting or known]
    raise NotFound(f"There is no log {file}.", reasons=reasons)


def _new_lines(log: IO[str], file: Path) -> Iterator[str]:
    """Lines as they are written; begins anew when the file was cut."""
    part = ""
    while True:
        if chunk := log.readline():
            part += chunk
            if part.endswith("\n"):
                yield part
                part = ""
            continue
        if file.stat().st_size < log.tell():
            log.seek(0)
        time.sleep(0.2)


def _print(line: str, as_json: bool, console: Any) -> None:
    from rich.text import Text

    line = line.rstrip("\n")
    try:
        event = json.loads(line)
    except ValueError:
        event = None
    if not isinstance(event, dict):  # a library that does not log as we do
        console.out(json.dumps({"event": line}) if as_json else line, highlight=False)
    elif as_json:
        console.out(line, highlight=False)
    else:
        console.print(Text.assemble(*_words(cast(dict[str, Any], event))), soft_wrap=True)


def _words(event: dict[str, Any]) -> list[tuple[str, str]]:
    """`12:03:44 warning what happened  name=value ...`"""
    at = str(event.pop("timestamp", event.pop("at", "")))
    level = str(event.pop("level", "info")).lower()
    what = str(event.pop("event", event.pop("message", "")))
    event.pop("process", None)
    rest = "  ".join(f"{name}={value}" for name, value in event.items() if value not in (None, ""))
    time_of_day = at[11:19] if len(at) >= 19 else at
    return [(f"{time_of_day} ", "dim"), (f"{level:<8}", _COLOURS.get(level, "dim")), (what, "bold"), (f"  {rest}", "")]
