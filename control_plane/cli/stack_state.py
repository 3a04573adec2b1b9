"""What the CLI knows of the embedded stack: the files its supervisor leaves under MLCP_HOME, and nothing imported."""

import json
import os
import time
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

_FRESH_S = 10.0  # the supervisor writes its status every 2 s


@dataclass(frozen=True, slots=True)
class Status:
    """`run/status.json`, and whether the supervisor that wrote it is alive."""

    document: Mapping[str, Any]
    alive: bool

    @property
    def state(self) -> str:
        return str(self.document.get("state", "stopped")) if self.alive else "stopped"

    @property
    def processes(self) -> list[Mapping[str, Any]]:
        return list(self.document.get("processes") or ())

    @property
    def silent_s(self) -> float:
        """Seconds since the supervisor last wrote."""
        return max(0.0, time.time() - float(self.document.get("at") or 0))

    @property
    def hangs(self) -> bool:
        return self.alive and self.silent_s > _FRESH_S


def read(home: Path) -> Status:
    """A stack that never ran reads as an empty document that is not alive."""
    try:
        document = cast("Mapping[str, Any]", json.loads((home / "run" / "status.json").read_bytes()))
    except (OSError, ValueError):
        return Status({}, alive=False)
    pid = document.get("supervisor_pid")
    return Status(document, alive=isinstance(pid, int) and _runs(pid, home))


def setting(home: Path, name: str, default: str) -> str:
    """A setting of the embedded stack: environment > mlcp.toml > default. An unreadable file counts as none here."""
    if given := os.environ.get(f"MLCP_{name.upper()}"):
        return given
    try:
        return str(tomllib.loads((home / "mlcp.toml").read_text()).get(name, default))
    except (OSError, tomllib.TOMLDecodeError):
        return default


def _runs(pid: int, home: Path) -> bool:
    """The pid in the lock file is the supervisor's as long as it lives; a stale status names one that is gone."""
    try:
        if int((home / "run" / "supervisor.lock").read_text().strip() or 0) != pid:
            return False
        os.kill(pid, 0)
    except PermissionError:
        return True  # somebody else's: it is there
    except (OSError, ValueError):
        return False
    try:  # a pid used again after a reboot: where /proc tells, believe it
        command = Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return not Path("/proc/self").exists()
    return b"embedded" in command
