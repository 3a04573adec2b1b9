"""JSON lines on stderr. Feature values never reach a log: exceptions are logged by type and place, not by text."""

import json
import logging
import sys
import traceback
from datetime import UTC, datetime
from types import TracebackType
from typing import Literal

_STANDARD = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "taskName"}


class JsonFormatter(logging.Formatter):
    """One object a line; what is passed as `extra` becomes members."""

    def __init__(self, context: dict[str, object]) -> None:
        super().__init__()
        self._context = context

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, object] = {
            "timestamp": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "event": record.getMessage(),
            "pid": record.process,
            **self._context,
        }
        line |= {key: value for key, value in record.__dict__.items() if key not in _STANDARD}
        if record.exc_info and record.exc_info[0]:
            line["exception"] = where(record.exc_info[0], record.exc_info[2])
        return json.dumps(line, default=str)

    def formatException(self, ei: object) -> str:
        return ""  # its text would hold the exception's message, which may quote a feature


def where(kind: type[BaseException], trace: TracebackType | None) -> list[str]:
    """The exception's type and the lines it came through, without its message."""
    frames = traceback.extract_tb(trace)[-12:]
    return [kind.__name__, *(f"{frame.filename}:{frame.lineno} {frame.name}" for frame in frames)]


def configure(process: str, level: Literal["INFO", "WARNING"] = "INFO", **context: object) -> None:
    """Call once, first thing in a main; `process` and `context` are in every line."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter({"process": process, **context}))
    logging.basicConfig(handlers=[handler], level=level, force=True)
