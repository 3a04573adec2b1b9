"""Real processes for tests: started, waited for with a deadline, always stopped."""

import asyncio
import os
import signal
import socket
import subprocess
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from control_plane.embedded import binaries

T = TypeVar("T")


def free_port() -> int:
    """A TCP port on 127.0.0.1 that nobody listens on at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def running(
    argv: Sequence[str], *, log: Path, env: Mapping[str, str] | None = None, cwd: Path | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """A child in its own process group; SIGTERM at the end, SIGKILL for what does not listen."""
    with log.open("wb") as out:
        child = subprocess.Popen(
            argv, stdout=out, stderr=out, env={**os.environ, **(env or {})}, start_new_session=True, cwd=cwd
        )
    try:
        yield child
    finally:
        for blow, patience in ((signal.SIGTERM, 10.0), (signal.SIGKILL, 5.0)):
            try:
                os.killpg(child.pid, blow)
                child.wait(patience)
                break
            except ProcessLookupError:
                break
            except subprocess.TimeoutExpired:
                continue


def wait_until(look: Callable[[], T], *, within: float, what: str, every: float = 0.05) -> T:
    """The first true answer of `look`; AssertionError naming `what` when there is none within so many seconds."""
    deadline = time.monotonic() + within
    while not (found := look()):
        assert time.monotonic() < deadline, f"not within {within} s: {what}"
        time.sleep(every)
    return found


async def eventually(look: Callable[[], Awaitable[T]], *, within: float, what: str, every: float = 0.05) -> T:
    """`wait_until` for a coroutine function."""
    deadline = time.monotonic() + within
    while not (found := await look()):
        assert time.monotonic() < deadline, f"not within {within} s: {what}"
        await asyncio.sleep(every)
    return found


def redis_argv(folder: Path) -> list[str]:
    """The command of a Redis that listens on `folder`/redis.sock alone and keeps nothing."""
    listening = ["--port", "0", "--unixsocket", f"{folder}/redis.sock"]
    return [str(binaries.redis_server()), *listening, "--save", "", "--appendonly", "no", "--dir", str(folder)]
