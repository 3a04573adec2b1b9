"""Break glass: files in one folder that send all traffic of a model to one version, with everything else dead.

`mlcp router pin` writes them on the data-plane host, `mlcp router release` removes them. They outlive restarts and
snapshots: until released, nothing overwrites them.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import msgspec
import structlog

JOURNAL: Final = 50  # newest entries that are reported
_TAIL: Final = 64 * 1024  # bytes read from the journal's end
_log: structlog.stdlib.BoundLogger = structlog.get_logger()


class Pin(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """All traffic of `model` goes to `target`, a deployment's id in the snapshot."""

    model: str
    target: str
    version: str
    person: str = ""
    reason: str = ""
    at: str | float | None = None


class Folder:
    """The pins in `folder`; a missing folder holds none."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._seen: dict[Path, tuple[int, int]] = {}  # path -> modification time and size, ns and bytes
        self.pins: Mapping[str, Pin] = {}

    def look(self) -> bool:
        """Read what has changed; True if the pins are others than before. A file that cannot be read is no pin."""
        try:
            stats = {path: path.stat() for path in self._folder.glob("*.json")}
        except OSError:  # a file went away in between: the next look sees it
            return False
        seen = {path: (stat.st_mtime_ns, stat.st_size) for path, stat in stats.items()}
        if seen == self._seen:
            return False
        self._seen = seen
        before, self.pins = self.pins, {pin.model: pin for path in sorted(seen) if (pin := _read(path)) is not None}
        return self.pins != before


def journal(folder: Path) -> list[dict[str, Any]]:
    """What was pinned and released on this host, oldest first, the newest entries only; `mlcp router` writes it.

    Reported until audited: a pin that came and went while nobody could audit it is told of afterwards.
    """
    try:
        with (folder / "pins.ndjson").open("rb") as file:
            size = file.seek(0, 2)
            file.seek(max(0, size - _TAIL))
            lines = file.read().splitlines()[1 if size > _TAIL else 0 :]
    except OSError:
        return []
    entries: list[dict[str, Any]] = []
    for line in lines[-JOURNAL:]:
        try:
            entries.append(msgspec.json.decode(line, type=dict[str, Any]))
        except msgspec.MsgspecError:  # a torn line
            continue
    return entries


def _read(path: Path) -> Pin | None:
    try:
        return msgspec.json.decode(path.read_bytes(), type=Pin)
    except (OSError, msgspec.MsgspecError) as exc:
        _log.error("pin.unreadable", path=str(path), error=str(exc))
        return None
