"""`python -m model_servers.launch --spec FILE`: one deployment, in the environment its model needs.

`--score` makes it a filter that scores rows on stdin instead of a server; see `runtime.score`.

Native models run in this interpreter. A model with requirements of its own runs here too when they are all satisfied,
else in an environment cached under `cache_dir`. Either way this process becomes the runtime: same pid, same logs.

Exit codes: those of the runtime, and 5 when an environment cannot be built.
"""

import argparse
import logging
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

import model_servers
from model_servers import environments
from model_servers.runtime import logs, spec
from model_servers.runtime.spec import BadSpec, Spec

UNUSABLE, CANNOT_INSTALL = 4, 5
_log = logging.getLogger(__name__)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m model_servers.launch", description=__doc__)
    parser.add_argument("--spec", type=Path, required=True, help="spec file of one deployment (JSON)")
    parser.add_argument("--score", action="store_true", help="score rows from stdin, serve nobody")
    given = parser.parse_args(argv)
    path: Path = given.spec
    logs.configure("model-launch")
    signal.signal(signal.SIGTERM, _stop)
    try:
        wanted = spec.load(path)
        python, environment = interpreter(wanted)
    except BadSpec as exc:
        _log.error("the spec cannot be served: %s", exc)
        return UNUSABLE
    except environments.CannotInstall as exc:
        _log.error("the model's requirements cannot be installed: %s", exc)
        return CANNOT_INSTALL
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    module = "model_servers.runtime.score" if given.score else "model_servers.runtime"
    arguments = [python, "-m", module, "--spec", str(path.absolute())]
    # Settings of package indexes may hold passwords: what was needed to install a model is not the model's to read.
    told = {name: value for name, value in os.environ.items() if not name.startswith(("PIP_", "UV_"))}
    return _become(python, arguments, told | environment)


def _become(python: str, arguments: list[str], environment: dict[str, str]) -> NoReturn:
    sys.stderr.flush()
    os.execve(python, arguments, environment)  # noqa: S606  (our own interpreter, no shell)


def _stop(number: int, frame: object) -> NoReturn:
    """SIGTERM while an environment is built: leave by an exception, so that a running uv is ended too."""
    sys.exit(128 + number)


def interpreter(wanted: Spec) -> tuple[str, dict[str, str]]:
    """The interpreter to serve with, and what to add to its environment.

    Raises BadSpec without a `cache_dir` to build in, CannotInstall when building fails.
    """
    needed = wanted.requirements
    if needed is None and wanted.runtime == "pyfunc":
        needed = environments.of_artifact(Path(wanted.artifact))
    if not needed:
        return sys.executable, {}
    missing = environments.unmet(needed)
    if not missing:
        return sys.executable, {}
    if wanted.cache_dir is None:
        raise BadSpec(f"cache_dir: needed to install {', '.join(missing[:5])}")
    _log.info("the model needs an environment of its own", extra={"model": wanted.model, "unmet": missing[:20]})
    cache = Path(wanted.cache_dir).absolute()
    requirements = environments.with_runtime(needed)
    constraints = Path(wanted.artifact) / "constraints.txt"
    python = environments.prepare(requirements, cache, constraints=constraints)
    return str(python), {"PYTHONPATH": str(_package_alone(cache))}


def _package_alone(folder: Path) -> Path:
    """A folder that holds this package and nothing beside it, so that no library of ours reaches the model's own."""
    package = Path(model_servers.__file__).parent.resolve()
    shim = folder / f"runtime-{environments.key([str(package)])}"
    shim.mkdir(parents=True, exist_ok=True)
    link = shim / package.name
    if not link.exists():
        scratch = shim / f".{os.getpid()}"
        scratch.symlink_to(package)
        scratch.replace(link)
    return shim


if __name__ == "__main__":
    sys.exit(main())
