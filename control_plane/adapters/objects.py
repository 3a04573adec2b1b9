"""Small files beside the archive of the log: in a folder of this host, or under a prefix of an S3 bucket.

A bucket is reached through pyarrow, as the archive is; it is loaded only where there is one, since a folder needs
nothing and the processes that write here are small.
"""

# pyright: basic, reportMissingTypeStubs=false
# (pyarrow comes without types)

import os
import secrets
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from control_plane.errors import NotFound, Unavailable


def location(url: str | None, home: Path) -> str:
    """The URL of the archive; where none is set, a folder of this installation."""
    return url or (home / "archive").as_uri()


class Objects:
    """Everything below `name` at `url`: file:///folder, or s3://bucket/prefix?endpoint_override=host:port&scheme=http.

    Files are written in one step and readable by this user alone. All calls block; each may raise Unavailable: the disk
    is full, the bucket does not answer.
    """

    def __init__(self, url: str, name: str) -> None:
        self._fs: Any = None
        if url.startswith("file:"):
            self._root = f"{unquote(urlsplit(url).path).rstrip('/')}/{name}"
            return
        try:
            from pyarrow import fs

            self._fs, root = fs.FileSystem.from_uri(url)
        except (OSError, ValueError) as exc:
            raise Unavailable(f"The archive {url.partition('?')[0]} cannot be used: {exc}") from exc
        self._root = f"{root.rstrip('/')}/{name}"

    def put(self, path: str, data: bytes) -> None:
        """Write a file, its folders made if need be. One of that name is replaced."""
        whole = f"{self._root}/{path}"
        with _translated("written"):
            if self._fs is not None:  # a bucket's PUT is one step
                with self._fs.open_output_stream(whole) as out:
                    out.write(data)
                return
            _make(Path(whole).parent)
            fresh = Path(f"{whole}.{secrets.token_hex(4)}.new")
            with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            fresh.replace(whole)
            sync(fresh.parent)

    def names(self, folder: str = "") -> list[str]:
        """What is in the folder, sorted; nothing where there is none. Half-written files are not there."""
        whole = f"{self._root}/{folder}".rstrip("/")
        with _translated("read"):
            if self._fs is None:
                found = os.listdir(whole) if Path(whole).is_dir() else []
            else:
                from pyarrow import fs

                selector = fs.FileSelector(whole, allow_not_found=True)
                found = [info.base_name for info in self._fs.get_file_info(selector)]
        return sorted(name for name in found if not name.endswith(".new"))

    def read(self, path: str) -> bytes:
        """NotFound: there is no such file."""
        whole = f"{self._root}/{path}"
        try:
            with _translated("read"):
                if self._fs is None:
                    return Path(whole).read_bytes()
                with self._fs.open_input_file(whole) as source:
                    return bytes(source.read())
        except Unavailable as exc:
            if isinstance(exc.__cause__, FileNotFoundError):
                raise NotFound(f"There is no {path} in the archive.") from exc
            raise

    def remove(self, path: str) -> None:
        """Nothing happens where there is none."""
        whole = f"{self._root}/{path}"
        with _translated("written"), suppress(FileNotFoundError):
            if self._fs is None:
                Path(whole).unlink()
            else:
                self._fs.delete_file(whole)


def below(url: str, path: str) -> str:
    """The URL of a file at `path` below an archive's."""
    root, mark, query = url.partition("?")
    return f"{root.rstrip('/')}/{path}{mark}{query}"


def sync(path: Path) -> None:
    """Make what is in a file, or which files are in a folder, outlive the machine's next second."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _make(folder: Path) -> None:
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    for path in reversed(made):
        path.mkdir(mode=0o700, exist_ok=True)
        sync(path.parent)


@contextmanager
def _translated(what: str) -> Generator[None]:
    try:
        yield
    except OSError as exc:
        raise Unavailable(f"The archive cannot be {what}: {exc}") from exc
