"""Real processes for tests: started, waited for with a deadline, always stopped."""

import asyncio
import contextlib
import itertools
import os
import random
import signal
import socket
import subprocess
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from control_plane.embedded import binaries
from tests.support import forked

PATIENCE_S = 240.0  # a slow machine that tests share with jobs; a test whose claim is a time measures that time itself
_PORTS, _SHARES = range(12_000, 32_000), 8
T = TypeVar("T")
Child = subprocess.Popen[bytes] | forked.Forked


def _ports() -> Iterator[int]:
    """Below the ports that outgoing connections get, each once and of this process of the test run alone."""
    number = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % _SHARES
    share = (_PORTS.stop - _PORTS.start) // _SHARES
    mine = range(_PORTS.start + number * share, _PORTS.start + (number + 1) * share)
    first = random.Random().randrange(share)  # of two runs at once each begins elsewhere
    return itertools.cycle([*mine[first:], *mine[:first]])


_PORT = _ports()


def free_port() -> int:
    """A TCP port on 127.0.0.1 that nobody listens on at this moment."""
    for port in _PORT:
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise AssertionError("no port is free")


@contextmanager
def running(
    argv: Sequence[str], *, log: Path, env: Mapping[str, str] | None = None, cwd: Path | None = None
) -> Iterator[Child]:
    """A child in its own process group; SIGTERM at the end, SIGKILL for what does not listen."""
    given = {**os.environ, **(env or {})}
    child: Child
    if forked.can_be(argv):
        child = forked.Forked(argv, log=log, env=given, cwd=cwd)
    else:
        with log.open("wb") as out:
            child = subprocess.Popen(argv, stdout=out, stderr=out, env=given, start_new_session=True, cwd=cwd)
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


def wait_until(look: Callable[[], T], *, what: str, within: float = PATIENCE_S, every: float = 0.05) -> T:
    """The first true answer of `look`; AssertionError naming `what` when there is none within so many seconds."""
    deadline = time.monotonic() + within
    while not (found := look()):
        assert time.monotonic() < deadline, f"not within {within} s: {what}"
        time.sleep(every)
    return found


async def eventually(
    look: Callable[[], Awaitable[T]], *, what: str, within: float = PATIENCE_S, every: float = 0.05
) -> T:
    """`wait_until` for a coroutine function."""
    deadline = time.monotonic() + within
    while not (found := await look()):
        assert time.monotonic() < deadline, f"not within {within} s: {what}"
        await asyncio.sleep(every)
    return found


def redis_argv(folder: Path, *, server: Path | None = None) -> list[str]:
    """The command of a Redis that listens on `folder`/redis.sock alone and keeps nothing; `server`: not the usual."""
    listening = ["--port", "0", "--unixsocket", f"{folder}/redis.sock"]
    settings = [f"{name}={value}" for name, value in binaries.REDIS_ENV.items()]
    keeping = ["--save", "", "--appendonly", "no", "--dir", str(folder)]
    return ["env", *settings, str(server or binaries.redis_server()), *listening, *keeping]


def niceness_of_session(pid: int) -> int | None:
    """None where the kernel does not group by session."""
    group = Path(f"/proc/{pid}/autogroup")
    return int(group.read_text().split()[-1]) if group.exists() else None
