"""Work that needs more than the base install, done by a process of its own.

Training, the generator, simulation and offline drift bring libraries the SDK must not import. They are commands of
this distribution; here the extra is checked for, the command started, and what it says is read.
"""

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from importlib.util import find_spec
from typing import IO, Any, cast

from control_plane.errors import ControlPlaneError, Unavailable
from control_plane.sdk import problems

# Modules only that extra brings; looked for without being imported.
_NEEDS = {
    "server": ("psycopg", "pyarrow", "sqlalchemy"),
    "training": ("mlflow", "pandas", "sklearn"),
    "serving": ("jinja2", "msgspec", "numpy", "pyarrow", "scipy"),
    "distributed": ("dask", "distributed"),
}
_LAST_WORDS = 5  # lines of stderr in the text of a failure


def workers(local: int | None, scheduler: str | None) -> list[str]:
    """Options for work on Dask workers, none where neither is given. Raises Unavailable without that extra."""
    if local is None and scheduler is None:
        return []
    _require("distributed")
    options = [] if local is None else [f"--workers={local}"]
    return options if scheduler is None else [*options, f"--scheduler={scheduler}"]


def events(
    extra: str, module: str, *arguments: str, environment: Mapping[str, str] | None = None
) -> Iterator[dict[str, Any]]:
    """Run `python -m module arguments` and yield each JSON object it writes to stdout, one per line.

    Leaving the iterator early ends the command.

    Raises:
        Unavailable: `extra` is not installed.
        ControlPlaneError: the command failed: what the problem document it wrote last says, else its last words.
    """
    _require(extra)
    argv = _argv(module, arguments)
    with (
        tempfile.TemporaryFile("w+") as words,
        subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=words, text=True, env=environment) as child,  # noqa: S603
    ):
        assert child.stdout is not None
        last: dict[str, Any] = {}
        try:
            for line in child.stdout:
                if found := _object(line):
                    last = found
                    yield found
            status = child.wait()
        finally:
            if child.poll() is None:
                child.terminate()
        if status:
            raise _failure(f"python -m {module}", status, last, words)


def run(extra: str, module: str, *arguments: str) -> int:
    """Run `python -m module arguments` on this terminal and return its exit status. Raises Unavailable as `events`."""
    _require(extra)
    return subprocess.run(_argv(module, arguments), check=False).returncode  # noqa: S603


def _argv(module: str, arguments: Sequence[str]) -> list[str]:
    # -P: a folder `training` where the user happens to be is not ours.
    return [sys.executable, "-P", "-m", module, *arguments]


def _require(extra: str) -> None:
    missing = [module for module in _NEEDS[extra] if find_spec(module) is None]
    if missing:
        raise Unavailable(f"This needs {', '.join(missing)}; pip install 'mlcp[{extra}]' brings them.")


def _failure(command: str, status: int, last: Mapping[str, Any], words: IO[str]) -> ControlPlaneError:
    words.seek(0)
    said = words.read().rstrip().splitlines()
    written = [last, *map(_object, reversed(said))]
    document = next((found for found in written if {"type", "detail"} <= found.keys()), dict[str, Any]())
    silent = "\n".join([f"{command} ended with status {status}.", *said[-_LAST_WORDS:]])
    return problems.from_document(document, silent)


def _object(line: str) -> dict[str, Any]:
    try:
        found = json.loads(line)
    except ValueError:
        return {}
    return cast(dict[str, Any], found) if isinstance(found, dict) else {}
