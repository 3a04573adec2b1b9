"""The processes somebody else wants to run here: one JSON file each in `run/wanted`, written by the local deployer."""

import json
import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

log = logging.getLogger(__name__)

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,79}")


@dataclass(frozen=True, slots=True)
class Wanted:
    """A process to keep running as long as its file exists."""

    id: str  # the file's name without .json
    name: str
    argv: tuple[str, ...]
    env: tuple[tuple[str, str], ...]  # added to what every model server gets
    grace_s: float
    port: int | None
    socket: str | None
    realtime: bool = False  # its code is ours: it may be scheduled in real time


def read(folder: Path) -> Mapping[str, Wanted]:
    """Every usable file, by id. One that cannot be used is logged and left out; the others are not held up by it."""
    found: dict[str, Wanted] = {}
    for path in sorted(folder.glob("*.json")):
        if path.name.startswith("."):
            continue
        try:
            found[path.stem] = parse(path.stem, json.loads(path.read_bytes()))
        except FileNotFoundError:
            continue
        except (OSError, ValueError) as error:
            log.error("%s cannot be used: %s", path, error)
    return found


def parse(id: str, parsed: object) -> Wanted:
    """Raises ValueError, naming the member, for anything that does not fit."""
    if not isinstance(parsed, dict):
        raise ValueError("not a JSON object")
    document = cast("dict[str, Any]", parsed)
    name = document.get("name")
    if not (isinstance(name, str) and _NAME.fullmatch(name)):
        raise ValueError(f"name: {name!r}")
    grace = document.get("grace_s", 15)
    if isinstance(grace, bool) or not isinstance(grace, int | float) or not 0 <= grace <= 600:
        raise ValueError(f"grace_s: {grace!r}")
    port, socket = document.get("port"), document.get("socket")
    if not (port is None or isinstance(port, int)) or not (socket is None or isinstance(socket, str)):
        raise ValueError("port, socket: a number, a path or null")
    realtime = document.get("realtime", False)
    if not isinstance(realtime, bool):
        raise ValueError(f"realtime: {realtime!r}")
    argv, env = _words(document.get("argv")), _texts(document.get("env", {}))
    return Wanted(id, name, argv, env, float(grace), port, socket, realtime)


def _words(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list):
        raise ValueError("argv: not a list")
    words = cast("list[object]", value)
    texts = tuple(word for word in words if isinstance(word, str))
    if not texts or len(texts) < len(words):
        raise ValueError("argv: not a list of words")
    return texts


def _texts(value: Any) -> tuple[tuple[str, str], ...]:
    if not isinstance(value, dict):
        raise ValueError("env: not an object")
    texts = cast("dict[str, Any]", value)
    if not all(isinstance(text, str) for text in texts.values()):
        raise ValueError("env: not an object of texts")
    return tuple(sorted(texts.items()))
