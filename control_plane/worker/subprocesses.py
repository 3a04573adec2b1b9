"""A job's own process: its output a log and a stream of progress, its end certain.

The process is the leader of a group of its own, so that all it starts ends with it. A file beside the log names it: the
next worker ends what a killed one left behind.
"""

import asyncio
import contextlib
import json
import os
import signal
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, cast

from model_servers import priority

_GRACE_S = 10.0  # between SIGTERM and SIGKILL
_NICE = 10  # behind everything that answers somebody, from its first import on
_LINE_BYTES = 2**20


class Run(Protocol):
    """A job's own process, wherever it runs."""

    def lines(self) -> AsyncGenerator[Mapping[str, Any]]:
        """Every JSON object it prints, as it comes, to its end; all it prints goes into the log."""
        ...

    async def stop(self) -> None:
        """End it, whatever it is doing."""
        ...

    async def wait(self) -> int:
        """Its exit code, after its end."""
        ...


@dataclass(frozen=True, slots=True)
class Child:
    """One of this host."""

    process: asyncio.subprocess.Process
    log: Path

    def lines(self) -> AsyncGenerator[Mapping[str, Any]]:
        return lines(self.process, self.log)

    async def stop(self) -> None:
        await stop(self.process)

    async def wait(self) -> int:
        return await self.process.wait()


@asynccontextmanager
async def started(argv: Sequence[str], *, log: Path, env: Mapping[str, str]) -> AsyncGenerator[Child]:
    """Run `argv` at a low priority, with stderr appended to `log`; `lines` appends stdout. Ended, with its group, on
    leaving."""
    log.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    pid_file = log.with_suffix(".pid")
    _end_leftover(pid_file)
    with log.open("ab") as errors:
        process = await asyncio.create_subprocess_exec(
            *argv,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=errors,
            env={**os.environ, **env},
            start_new_session=True,
            limit=_LINE_BYTES,
        )
    priority.of_session(_NICE, process.pid)
    pid_file.write_text(f"{process.pid} {_identity(process.pid)}")
    try:
        yield Child(process, log)
    finally:
        await stop(process)
        pid_file.unlink(missing_ok=True)


async def stop(process: asyncio.subprocess.Process) -> None:
    """SIGTERM to the process, its grace, SIGKILL to the whole group. Returns when it has ended."""
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_GRACE_S):
                await process.wait()
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    await process.wait()


async def lines(process: asyncio.subprocess.Process, log: Path) -> AsyncGenerator[Mapping[str, Any]]:
    """Every JSON object the process prints, as it comes; everything it prints goes into the log."""
    assert process.stdout is not None
    with log.open("ab", buffering=0) as file:
        while True:
            try:
                line = await process.stdout.readline()
            except ValueError:  # longer than the limit: not for us
                continue
            if not line:
                return
            file.write(line)
            if (said := told(line)) is not None:
                yield said


def told(line: str | bytes) -> Mapping[str, Any] | None:
    """The JSON object a line is; None for any other line."""
    try:
        said: object = json.loads(line)
    except ValueError:
        return None
    return cast("Mapping[str, Any]", said) if isinstance(said, dict) else None


def _end_leftover(pid_file: Path) -> None:
    """End the process a killed worker left running for the same job, if it is still that very process."""
    try:
        pid, identity = pid_file.read_text().split()
        if _identity(int(pid)) == identity:
            os.killpg(int(pid), signal.SIGKILL)
    except (OSError, ValueError):
        return


def _identity(pid: int) -> str:
    """Start time since boot and the boot: together no other process ever has them. "?" where /proc does not tell."""
    try:
        ticks = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
        return f"{Path('/proc/sys/kernel/random/boot_id').read_text().strip()}:{ticks}"
    except OSError:
        return "?"
