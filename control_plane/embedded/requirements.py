"""Writes requirements*.txt: every version pinned, every file by hash, no host in them.

requirements.txt runs everything, requirements-dev.txt tests. The others are for images: -serving of model servers,
-server of the control plane, -router of the data plane, -training of trainings, -registry of MLflow.
One resolution serves Python 3.11 to 3.13 and every platform. The files of `--dev` pin what requirements.txt pins.
"""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
_RUN = ("server", "serving", "training", "embedded", "otel")
_DEV = (*_RUN, "lightgbm", "distributed", "dev")
_IMAGES = {
    "serving": ("serving", "otel"),
    "server": ("server", "otel"),
    "router": ("router", "otel"),
    "training": ("training", "distributed"),
    "registry": ("registry",),
}
_BUILD = "hatchling\neditables\n"  # builds this project itself, without fetching anything then


def main() -> int:
    upgrade = [argument for argument in sys.argv[1:] if argument.startswith("--upgrade")]
    _compile(ROOT / "requirements.txt", _RUN, upgrade)
    pinned = ["--constraint", str(ROOT / "requirements.txt")]
    for name, extras in _IMAGES.items():
        _compile(ROOT / f"requirements-{name}.txt", extras, pinned)
    _compile(ROOT / "requirements-dev.txt", _DEV, [*upgrade, *pinned])
    return 0


def _compile(target: Path, extras: tuple[str, ...], options: list[str]) -> None:
    command = [str(Path(sys.executable).with_name("uv")), "pip", "compile", "--quiet", "--universal"]
    command += ["--python-version", "3.11", "--generate-hashes", "--no-annotate", "--no-header"]
    command += ["--no-emit-index-url", "--no-emit-find-links", "--output-file", str(target), *options]
    command += [part for extra in extras for part in ("--extra", extra)]
    subprocess.run([*command, "pyproject.toml", "-"], input=_BUILD, text=True, cwd=ROOT, check=True)  # noqa: S603
    if found := re.search(r"^.*(://|^--(?!hash)).*$", target.read_text(), re.MULTILINE):
        sys.exit(f"{target.name} names a place: {found.group()}")


if __name__ == "__main__":
    sys.exit(main())
