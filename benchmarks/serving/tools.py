"""Programs and environments the benchmark needs: built once in its cache folder, never in the project's own."""

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

# The same library without 470 MB of CUDA: what asks for `xgboost` is content with it.
_OVERRIDES = "xgboost; python_version < '3'\n"
XGBOOST = "xgboost-cpu==3.2.0"
_LIBRARIES = {"wrk": ["libluajit-5.1-2"]}  # what a bare machine lacks beside the program's own package


def environment(cache: Path, name: str, requirements: Sequence[str]) -> Path:
    """The interpreter of a virtual environment with exactly `requirements`; made anew only when they change.

    The same Python as ours where the peers run on it; MLServer does not run on 3.13.
    """
    python = sys._base_executable if sys.version_info < (3, 13) else "3.12"  # type: ignore[attr-defined]
    mark = hashlib.sha256("\n".join([python, *requirements]).encode()).hexdigest()[:12]
    folder = cache / "environments" / f"{name}-{mark}"
    if not (folder / "complete").exists():
        shutil.rmtree(folder, ignore_errors=True)
        overrides = cache / "overrides.txt"
        cache.mkdir(parents=True, exist_ok=True)
        overrides.write_text(_OVERRIDES)
        uv = _uv()
        quiet = {"check": True, "stdin": subprocess.DEVNULL}
        subprocess.run([uv, "venv", "-q", "--python", python, str(folder)], **quiet)
        into = ["--python", str(folder / "bin" / "python"), "--override", str(overrides)]
        subprocess.run([uv, "pip", "install", "-q", *into, *requirements], **quiet)
        (folder / "complete").touch()
    return folder / "bin" / "python"


def versions(python: Path, packages: Sequence[str]) -> dict[str, str]:
    """Installed versions of `packages`."""
    code = "import sys; from importlib.metadata import version; [print(p, version(p)) for p in sys.argv[1:]]"
    done = subprocess.run([str(python), "-c", code, *packages], check=True, capture_output=True, text=True)
    return dict(line.split() for line in done.stdout.splitlines())


def program(cache: Path, name: str) -> Path:
    """wrk or nginx: the one on PATH, else Debian's package, unpacked in the cache without installing it.

    Raises:
        RuntimeError: neither is possible here; the text says what to do.
    """
    path = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/usr/local/sbin"])
    if found := shutil.which(name, path=path):
        return Path(found)
    folder = cache / "programs" / name
    known = [folder / "usr" / part / name for part in ("bin", "sbin")]
    if not any(one.exists() for one in known):
        _unpack(folder, [name, *_LIBRARIES.get(name, ())])
    for one in known:
        if one.exists():
            return _with_libraries(folder, one)
    raise RuntimeError(f"{name} is missing: install it (apt-get install {name}) or leave out what needs it")


def said_version(binary: Path, flag: str) -> str:
    """The last word of what a program says about its version, on whichever stream."""
    done = subprocess.run([str(binary), flag], capture_output=True, text=True)
    words = (done.stdout + done.stderr).split("\n", 1)[0].split()
    return words[-1] if words else "unknown"


def _with_libraries(folder: Path, binary: Path) -> Path:
    """What starts the program so that it finds the libraries unpacked beside it."""
    libraries = sorted({str(path.parent) for path in folder.glob("usr/lib/**/*.so.*")})
    if not libraries:
        return binary
    start = folder / binary.name
    start.write_text(f'#!/bin/sh\nLD_LIBRARY_PATH={":".join(libraries)} exec {binary} "$@"\n')
    start.chmod(0o755)
    return start


def _unpack(folder: Path, packages: Sequence[str]) -> None:
    name = packages[0]
    folder.mkdir(parents=True, exist_ok=True)
    try:
        subprocess.run(["apt-get", "download", "-q", *packages], cwd=folder, check=True, capture_output=True, text=True)
        for package in folder.glob("*.deb"):
            subprocess.run(["dpkg-deb", "-x", str(package), str(folder)], check=True, capture_output=True, text=True)
    except (OSError, subprocess.CalledProcessError) as exc:
        said = getattr(exc, "stderr", "") or str(exc)
        raise RuntimeError(f"{name} is missing and cannot be fetched ({said.strip()}): apt-get install {name}") from exc


def _uv() -> str:
    beside = Path(sys.executable).parent / "uv"
    found = str(beside) if beside.exists() else shutil.which("uv")
    if found is None:
        raise RuntimeError("uv is missing: install the extra mlcp[embedded]")
    return found
