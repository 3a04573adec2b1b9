"""Listening sockets: unix sockets for a host's own processes, host:port for containers."""

import os
import socket
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from model_servers.runtime.spec import BadSpec

_BACKLOG: Final = 4096
_PATIENCE_S: Final = 3.0  # a predecessor that lost its parent needs a moment to let go


@dataclass(frozen=True, slots=True)
class Listening:
    """A socket that listens and does not block; `path` and `inode` of a unix socket, else None."""

    socket: socket.socket
    path: str | None = None
    inode: int | None = None

    def close(self) -> None:
        """Stop listening; remove the path unless it has become someone else's."""
        self.socket.close()
        if self.path:
            with suppress(FileNotFoundError):
                if os.stat(self.path).st_ino == self.inode:
                    os.unlink(self.path)


def listen(address: str) -> Listening:
    """Bind and listen. A unix socket is made with mode 0600, its folder with 0700 where that is new.

    Raises BadSpec: the path is taken by a live server or by something that is no socket, or cannot be made.
    """
    try:
        return _unix(address) if "/" in address else _tcp(address)
    except (OSError, ValueError) as exc:
        raise BadSpec(f"socket {address}: {exc}") from exc


def _unix(path: str) -> Listening:
    Path(path).parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    if os.path.lexists(path):
        _clear(path)
    made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    before = os.umask(0o177)
    try:
        made.bind(path)
    finally:
        os.umask(before)
    made.listen(_BACKLOG)
    made.setblocking(False)
    return Listening(made, path, os.stat(path).st_ino)


def _clear(path: str) -> None:
    if not Path(path).is_socket():
        raise BadSpec(f"{path} exists and is no socket")
    deadline = time.monotonic() + _PATIENCE_S
    while _answers(path):
        if time.monotonic() > deadline:
            raise BadSpec(f"another process serves {path}")
        time.sleep(0.05)
    os.unlink(path)


def _answers(path: str) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(path)
        except (ConnectionRefusedError, FileNotFoundError):
            return False
        except BlockingIOError:
            return True
        return True


def _tcp(address: str) -> Listening:
    host, _, port = address.rpartition(":")
    made = socket.create_server((host.strip("[]"), int(port)), backlog=_BACKLOG)
    made.setblocking(False)
    return Listening(made)
