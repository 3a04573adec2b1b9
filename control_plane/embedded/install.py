"""Makes `.venv` on a machine that has only Python 3.11 or newer: `python3 control_plane/embedded/install.py [--dev]`.

Standard library only, here and in what it imports: it runs before anything is installed. uv comes from PATH, else from
the package index by pip. Everything installed is pinned and verified by hash, and comes as a wheel: no compiler.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
VENV = ROOT / ".venv"
BOOT = ROOT / ".venv-boot"
_OLDEST_UV = (0, 9)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dev", action="store_true", help="also what tests and checks need")
    requirements = ROOT / ("requirements-dev.txt" if parser.parse_args().dev else "requirements.txt")
    try:
        uv = _uv()
        environment = _environment()
        if not _works(VENV / "bin" / "python"):
            _run([uv, "venv", "--quiet", "--clear", "--python", sys.executable, str(VENV)], environment)
        into = ["--quiet", "--python", str(VENV / "bin" / "python")]
        _say(f"installing {requirements.name} into .venv")
        wheels = ["--require-hashes", "--only-binary", ":all:", "-r", str(requirements)]
        _run([uv, "pip", "install", *into, *wheels], environment)
        _run([uv, "pip", "install", *into, "--no-deps", "--no-build-isolation", "--editable", str(ROOT)], environment)
    except subprocess.CalledProcessError as error:
        _say(f"failed: {' '.join(map(str, error.cmd[:4]))} ... ended with {error.returncode}")
        return 1
    return 0


def _uv() -> str:
    """Path of a uv that is new enough."""
    for candidate in (shutil.which("uv"), str(BOOT / "bin" / "uv")):
        if candidate and _version(candidate) >= _OLDEST_UV:
            return candidate
    _say("getting uv with pip")
    shutil.rmtree(BOOT, ignore_errors=True)
    pinned = BOOT.with_suffix(".txt")
    pinned.write_text(_pin_of_uv())
    options = ["install", "--quiet", "--disable-pip-version-check", "--require-hashes", "--only-binary", ":all:"]
    options += ["-r", str(pinned)]
    quiet = os.environ | {"PIP_ROOT_USER_ACTION": "ignore"}
    try:
        if _succeeds([sys.executable, "-m", "venv", str(BOOT)]):
            _run([str(BOOT / "bin" / "python"), "-m", "pip", *options], quiet)
        elif _succeeds([sys.executable, "-m", "pip", "--version"]):  # Debian without python3-venv
            shutil.rmtree(BOOT, ignore_errors=True)
            _run([sys.executable, "-m", "pip", *options, "--target", str(BOOT)], quiet)
        else:
            sys.exit(
                f"mlcp: {sys.executable} has neither venv nor pip: install your system's python3-venv or python3-pip "
                "package, or put uv on PATH"
            )
    finally:
        pinned.unlink()
    return str(BOOT / "bin" / "uv")


def _pin_of_uv() -> str:
    """The entry of uv in requirements.txt, hashes included."""
    text = (ROOT / "requirements.txt").read_text()
    found = re.search(r"^uv==.*?(?=^\S)", text + "\nend", re.MULTILINE | re.DOTALL)
    if found is None:
        sys.exit("mlcp: requirements.txt names no uv: run `make requirements`")
    return found.group()


def _environment() -> Mapping[str, str]:
    if str(ROOT) not in sys.path:  # this file is run by its path
        sys.path.append(str(ROOT))
    from model_servers import indexes

    return indexes.environment()


def _version(uv: str) -> tuple[int, ...]:
    if not Path(uv).exists():
        return ()
    shown = subprocess.run([uv, "--version"], capture_output=True, text=True, check=False).stdout  # noqa: S603
    found = re.search(r"(\d+)\.(\d+)", shown)
    return tuple(int(part) for part in found.groups()) if found else ()


def _works(python: Path) -> bool:
    """A .venv whose Python was removed or upgraded away is made anew."""
    code = f"import sys; sys.exit(sys.version_info[:2] != {sys.version_info[:2]!r})"
    return python.exists() and _succeeds([str(python), "-c", code])


def _succeeds(command: list[str]) -> bool:
    return subprocess.run(command, capture_output=True, check=False).returncode == 0  # noqa: S603


def _run(command: list[str], environment: Mapping[str, str]) -> None:
    subprocess.run(command, env=dict(environment), stdin=subprocess.DEVNULL, check=True)  # noqa: S603


def _say(sentence: str) -> None:
    sys.stderr.write(f"mlcp: {sentence}\n")


if __name__ == "__main__":
    sys.exit(main())
