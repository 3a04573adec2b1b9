"""pip's settings as uv's: uv does not read them, and a machine set up for pip must work all the same.

Standard library only: it is needed before anything is installed.
"""

import ast
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

_BOOT = Path(__file__).resolve().parents[1] / ".venv-boot" / "bin" / "python"  # has pip where the system has none
_PIP_TO_UV = {
    "index-url": "UV_DEFAULT_INDEX",
    "extra-index-url": "UV_INDEX",
    "find-links": "UV_FIND_LINKS",
    "cert": "SSL_CERT_FILE",
}


def environment() -> dict[str, str]:
    """This process's environment for uv, which then installs from where pip would."""
    found = dict(os.environ)
    configured = pip_settings()
    for pip, uv in _PIP_TO_UV.items():
        if value := os.environ.get(f"PIP_{pip.upper().replace('-', '_')}") or configured.get(pip):
            found.setdefault(uv, value)
    found.setdefault("UV_SYSTEM_CERTS", "true")
    # As pip does: a version may come from any index.
    found.setdefault("UV_INDEX_STRATEGY", "unsafe-best-match")
    found.pop("VIRTUAL_ENV", None)
    return found


def pip_settings() -> Mapping[str, str]:
    """What pip's own configuration files say, a line of text each; nothing if there is no pip."""
    found: dict[str, str] = {}
    for line in _config_list():
        section_and_name, _, value = line.partition("=")
        section, _, name = section_and_name.partition(".")
        if section in ("global", "install"):
            found[name] = " ".join(str(ast.literal_eval(value)).split())
    return found


def _config_list() -> list[str]:
    """From the first Python that has pip: environments made by uv have none, so ours, then the one it is made of."""
    base = Path(sys.base_prefix) / "bin" / f"python{sys.version_info.major}.{sys.version_info.minor}"
    for python in (_BOOT, Path(sys.executable), base):
        if python.exists():
            command = [str(python), "-m", "pip", "config", "list"]
            done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
            if done.returncode == 0:
                return done.stdout.splitlines()
    return []
