"""Files of rows in, files of answers out: which content type a file has, and a target that is whole or not there."""

import os
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import IO, Final

from control_plane.errors import InvalidInput

_PIECE: Final = 262_144
_TYPES: Final = {
    ".json": "application/json",
    ".ndjson": "application/x-ndjson",
    ".jsonl": "application/x-ndjson",
    ".csv": "text/csv",
    ".arrow": "application/vnd.apache.arrow.stream",
    ".arrows": "application/vnd.apache.arrow.stream",
    ".parquet": "application/vnd.apache.parquet",
}


def content_type(file: Path) -> str:
    """By the file's suffix. Raises InvalidInput for one that says nothing."""
    found = _TYPES.get(file.suffix.lower())
    if found is None:
        raise InvalidInput(f"{file}: name it by its format, one of {', '.join(_TYPES)}.")
    return found


def size(file: Path) -> int:
    """Bytes. Raises InvalidInput when it is not there."""
    try:
        return file.stat().st_size
    except OSError as exc:
        raise InvalidInput(f"{file} cannot be read: {exc.strerror}") from exc


def pieces(file: Path) -> Iterator[bytes]:
    """Raises InvalidInput when it cannot be read."""
    try:
        with file.open("rb") as source:
            while piece := source.read(_PIECE):
                yield piece
    except OSError as exc:
        raise InvalidInput(f"{file} cannot be read: {exc.strerror}") from exc


@contextmanager
def whole(file: Path) -> Generator[IO[bytes]]:
    """A file to write to that takes its name once it is complete; nothing is left of one that never is."""
    try:
        target = NamedTemporaryFile(dir=file.parent, prefix=f".{file.name}.", delete=False)  # noqa: SIM115
    except OSError as exc:
        raise InvalidInput(f"{file} cannot be written: {exc.strerror}") from exc
    try:
        with target:
            yield target
        os.replace(target.name, file)
    except BaseException:
        os.unlink(target.name)
        raise
