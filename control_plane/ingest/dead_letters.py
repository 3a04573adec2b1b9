"""What cannot be read is set aside and counted; it never stops the rest."""

import base64
import os
import time
from pathlib import Path

import msgspec
import structlog

_log: structlog.stdlib.BoundLogger = structlog.get_logger()


class DeadLetters:
    """Appends to `<folder>/<name>.jsonl` (0600): it may hold personal data."""

    def __init__(self, folder: Path, name: str) -> None:
        self._path = folder / f"{name}.jsonl"
        self.count = 0

    def add(self, where: str, why: str, data: bytes) -> None:
        """Keep `data`; where even that fails, the loss is logged and counted."""
        self.count += 1
        _log.error("dead_letter", where=where, why=why, bytes=len(data))
        letter = {"at": time.time(), "where": where, "why": why, "data": base64.b64encode(data).decode()}
        try:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            descriptor = os.open(self._path, os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o600)
            try:
                os.write(descriptor, msgspec.json.encode(letter) + b"\n")
            finally:
                os.close(descriptor)
        except OSError as exc:
            _log.error("dead_letter.lost", where=where, error=str(exc))
