"""One supervisor per MLCP_HOME: a lock the kernel drops with its holder, so a killed one is never in the way."""

import contextlib
import fcntl
import os
from collections.abc import Generator

from control_plane.embedded.layout import Layout


@contextlib.contextmanager
def take(layout: Layout) -> Generator[int | None]:
    """Hold the lock inside the block. Yields None if it is ours now, else the pid of the supervisor that holds it."""
    descriptor = os.open(layout.run / "supervisor.lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield int(os.pread(descriptor, 20, 0).decode().strip() or 0)
            return
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, str(os.getpid()).encode(), 0)
        yield None
    finally:
        os.close(descriptor)
