"""Log files: one per process, appended to, of bounded size."""

import contextlib
import json
import logging
import os
import shutil
import sys
import time
from pathlib import Path
from typing import IO

LIMIT_BYTES = 20 * 2**20
KEPT = 3


def rotate(path: Path, *, limit: int = LIMIT_BYTES, kept: int = KEPT) -> None:
    """Move a file above `limit` bytes to path.1, path.1 to path.2, ... Nobody may have it open."""
    if _size(path) <= limit:
        return
    _shift(path, kept)
    path.rename(_numbered(path, 1))


def trim(path: Path, *, limit: int = LIMIT_BYTES, kept: int = KEPT) -> None:
    """Like `rotate` for a file a process appends to: copied, then emptied. Lines written between the two are lost."""
    if _size(path) <= limit:
        return
    _shift(path, kept)
    shutil.copyfile(path, _numbered(path, 1))
    os.truncate(path, 0)


def open_for(path: Path) -> IO[bytes]:
    """Rotated if due, open for appending, readable by its owner alone."""
    rotate(path)
    return open(path, "ab", opener=lambda name, flags: os.open(name, flags, 0o600))


def tail(path: Path, lines: int = 5) -> list[str]:
    """The last lines that are not empty; none if there is no such file."""
    with contextlib.suppress(OSError), path.open("rb") as file:
        file.seek(max(0, _size(path) - 16_384))
        text = file.read().decode(errors="replace")
        return [line for line in text.splitlines() if line.strip()][-lines:]
    return []


class JsonFormatter(logging.Formatter):
    """One JSON object a line, with the same member names as the other processes' logs."""

    def format(self, record: logging.LogRecord) -> str:
        at = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        line = {"event": record.getMessage(), "level": record.levelname.lower(), "process": "supervisor"}
        line["timestamp"] = f"{at}.{int(record.msecs):03d}Z"
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line)


def configure() -> None:
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter())
    logging.basicConfig(handlers=[handler], level=logging.INFO, force=True)
    logging.getLogger("asyncio").setLevel(logging.WARNING)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _shift(path: Path, kept: int) -> None:
    for number in range(kept - 1, 0, -1):
        with contextlib.suppress(FileNotFoundError):
            _numbered(path, number).rename(_numbered(path, number + 1))


def _numbered(path: Path, number: int) -> Path:
    return path.with_name(f"{path.name}.{number}")
