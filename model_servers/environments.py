"""Python environments of models that bring their own requirements: one per set of requirements, built once, shared.

An environment is built in a temporary folder under a lock and renamed into place, so that one that exists is complete.
"""

import fcntl
import hashlib
import importlib.metadata
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from model_servers import indexes

RUNTIME: Final = (  # what the runtime itself imports to serve a pyfunc
    "httptools>=0.7,<0.10",
    "msgspec>=0.21,<0.23",
    "numpy",
    "prometheus-client>=0.23,<0.27",
    "uvloop>=0.21,<0.24",
)
_MLFLOW: Final = "mlflow"  # added where the model's own requirements do not say which
_SAME: Final = {"xgboost": "xgboost-cpu"}  # another distribution of the same modules
_LAST_LINES: Final = 12
_TIMEOUT_S: Final = 1_800


class CannotInstall(Exception):
    """uv could not build the environment; the text holds its last lines."""


def of_artifact(artifact: Path) -> tuple[str, ...]:
    """What the version needs, as MLflow logged it. Options (-r, --index-url) are not for a stranger to set."""
    try:
        lines = [line.partition(" #")[0].strip() for line in (artifact / "requirements.txt").read_text().splitlines()]
    except OSError:
        return ()
    return tuple(line for line in lines if line and line[0] not in "#-")


def unmet(requirements: Iterable[str]) -> list[str]:
    """The requirements this interpreter does not satisfy, as written; [] when it can serve the model as it is.

    A line that is no plain requirement (an option, a URL, a file) is never satisfied.
    """
    return [line for line in requirements if line.strip() and not _satisfied(line)]


def _satisfied(line: str) -> bool:
    try:
        wanted = Requirement(line.partition(" #")[0])
    except InvalidRequirement:
        return False
    if wanted.marker and not wanted.marker.evaluate():
        return True
    if wanted.url or wanted.extras:  # what an extra brings is not checked here
        return False
    name = canonicalize_name(wanted.name)
    for candidate in (name, _SAME.get(name)):
        try:
            found = importlib.metadata.version(candidate) if candidate else None
        except importlib.metadata.PackageNotFoundError:
            continue
        if found and wanted.specifier.contains(found, prereleases=True):
            return True
    return False


def key(requirements: Sequence[str]) -> str:
    """16 hex digits that name the environment: requirements (in any order), Python and platform."""
    python = f"{platform.python_implementation()}-{sys.version_info.major}.{sys.version_info.minor}"
    lines = sorted({line.strip() for line in requirements if line.strip()})
    text = "\n".join([python, sys.platform, platform.machine(), *lines])
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def with_runtime(requirements: Sequence[str]) -> list[str]:
    """The model's requirements, then the runtime's, whose ranges both have to meet."""
    named = {canonicalize_name(line) for line in map(_name, requirements) if line}
    own = [] if named & {"mlflow", "mlflow-skinny"} else [_MLFLOW]
    return [*requirements, *own, *RUNTIME]


def _name(line: str) -> str:
    try:
        return Requirement(line.partition(" #")[0]).name
    except InvalidRequirement:
        return ""


def prepare(requirements: Sequence[str], folder: Path, *, constraints: Path | None = None) -> Path:
    """The interpreter of the environment in `folder` that has `requirements`; built when it is not there yet.

    `constraints`: a file named constraints.txt that a `-c constraints.txt` among the requirements means.
    Raises CannotInstall.
    """
    folder.mkdir(parents=True, exist_ok=True)
    home = folder / key(requirements)
    python = home / "bin" / "python"
    with (folder / f"{home.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # released when the file is closed, or when we die
        if not python.exists():
            shutil.rmtree(home, ignore_errors=True)  # its base interpreter has gone
            _build(requirements, home, constraints)
    return python


def _build(requirements: Sequence[str], home: Path, constraints: Path | None) -> None:
    uv = shutil.which("uv") or shutil.which("uv", path=str(Path(sys.executable).parent))
    if uv is None:
        raise CannotInstall("uv is not installed: a model with its own requirements needs it (extra `embedded`)")
    with tempfile.TemporaryDirectory(prefix=".building-", dir=home.parent) as scratch:
        made, wanted = Path(scratch) / "env", Path(scratch) / "requirements.txt"
        wanted.write_text("\n".join(requirements) + "\n")
        if constraints and constraints.is_file():
            shutil.copy(constraints, Path(scratch) / "constraints.txt")
        _run([uv, "venv", "--quiet", "--relocatable", "--python", sys.executable, str(made)])
        _run([uv, "pip", "install", "--quiet", "--python", str(made / "bin" / "python"), "-r", str(wanted)])
        made.rename(home)


def _run(argv: Sequence[str]) -> None:
    environment = indexes.environment()
    environment.pop("PYTHONPATH", None)
    try:
        subprocess.run(  # noqa: S603  (an argument list, no shell: installing what the model asks for is the purpose)
            argv,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=True,
            timeout=_TIMEOUT_S,
        )
    except subprocess.CalledProcessError as exc:
        last = "\n".join((exc.stdout + exc.stderr).strip().splitlines()[-_LAST_LINES:])
        raise CannotInstall(last or f"uv ended with {exc.returncode}") from exc
    except (OSError, subprocess.TimeoutExpired) as exc:
        raise CannotInstall(str(exc)) from exc
