"""Load on a running system: wrk for closed loops, openloop.c for open ones. Runs them and reads what they say."""

import json
import os
import subprocess
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
MAX_OPEN = 256  # connections of the open loop: enough that it waits for none at the rates measured here
PUNCTUAL_MS = 1.0  # the generator's own lateness at its 99th percentile, up to which a run counts


@dataclass(frozen=True, slots=True)
class Target:
    """Where requests go. `host`: an IPv4 address. `bodies`: a file with one JSON body per line."""

    port: int
    path: str
    bodies: Path
    headers: Mapping[str, str]
    host: str = "127.0.0.1"

    @property
    def header_lines(self) -> list[str]:
        return [f"{name}: {value}" for name, value in self.headers.items()]


@dataclass(frozen=True, slots=True)
class Measured:
    """One run. Latencies in milliseconds; of an open loop from the moment a request was due."""

    answered: int
    seconds: float
    p50_ms: float
    p99_ms: float
    p999_ms: float
    max_ms: float
    errors: int  # statuses of 400 and above, broken connections, answers that never came
    offered_rps: float | None = None  # of an open loop
    unsent: int = 0  # due and never sent: the system could not keep up
    send_delay_p99_ms: float | None = None  # how late the generator was with what was due and had a connection

    @property
    def rps(self) -> float:
        return self.answered / self.seconds if self.seconds else 0.0


def closed(wrk: Path, target: Target, *, connections: int, seconds: float, threads: int = 1) -> Measured:
    """Every connection sends its next request when it has the answer to the last."""
    argv = [str(wrk), f"-t{min(threads, connections)}", f"-c{connections}", f"-d{max(1, round(seconds))}s"]
    argv += ["--timeout", "10s", "-s", str(HERE / "requests.lua")]
    argv += [f"http://{target.host}:{target.port}", "--", str(target.bodies), target.path, *target.header_lines]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=seconds + 60, preexec_fn=_goes_first)
    if done.returncode:
        raise RuntimeError(f"wrk failed: {done.stderr or done.stdout}")
    return read_wrk(done.stdout)


def _goes_first() -> None:
    """Where it may, the generator does, as the one of the open loop: its wait for a processor is not the system's."""
    with suppress(OSError):
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(3))


def read_wrk(output: str) -> Measured:
    """Raises ValueError where requests.lua's line is missing."""
    found = _last_object(output)
    answered = int(found["requests"]) - int(found["status"])
    return Measured(
        answered=answered,
        seconds=float(found["seconds"]),
        p50_ms=found["p50_us"] / 1000,
        p99_ms=found["p99_us"] / 1000,
        p999_ms=found["p999_us"] / 1000,
        max_ms=found["max_us"] / 1000,
        errors=int(found["status"]) + int(found["broken"]),
    )


def open_loop(
    tool: Path,
    target: Target,
    *,
    rate: float,
    seconds: float,
    connections: int = MAX_OPEN,
    each_second: Callable[[float, int], bool] | None = None,
) -> Measured:
    """Requests at a constant rate. `each_second`: told (seconds since start, answered so far); False ends the run."""
    argv = [str(tool), target.host, str(target.port), target.path, f"{rate:.3f}", f"{seconds:.3f}", str(connections)]
    argv += [str(target.bodies), *target.header_lines]
    process = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    last = ""
    stopped = False
    for line in process.stdout:
        last = line
        said = json.loads(line)
        if each_second is not None and "t" in said and not each_second(said["t"], said["answered"]):
            process.terminate()
            stopped = True
            break
    process.stdout.close()
    process.wait(30)
    if stopped:
        said = json.loads(last)
        return Measured(said["answered"], said["t"], *[float("nan")] * 4, errors=0, offered_rps=rate)
    if process.returncode:
        raise RuntimeError(f"openloop ended with {process.returncode}")
    return read_open_loop(last)


def read_open_loop(output: str) -> Measured:
    """Raises ValueError where the result line is missing."""
    found = _last_object(output)
    if "unsent" not in found:
        raise ValueError(f"no result in {output!r}")
    missing = int(found["due"]) - int(found["answered"]) - int(found["status"]) - int(found["unsent"])
    return Measured(
        answered=int(found["answered"]),
        seconds=float(found["seconds"]),
        p50_ms=found["p50_us"] / 1000,
        p99_ms=found["p99_us"] / 1000,
        p999_ms=found["p999_us"] / 1000,
        max_ms=found["max_us"] / 1000,
        errors=int(found["status"]) + missing,
        offered_rps=float(found["rate"]),
        unsent=int(found["unsent"]),
        send_delay_p99_ms=found["send_delay_p99_us"] / 1000,
    )


def _last_object(output: str) -> dict[str, Any]:
    for line in reversed(output.splitlines()):
        if line.startswith("{"):
            found = json.loads(line)
            if isinstance(found, dict):
                return found
    raise ValueError(f"no result in {output[-500:]!r}")


def build_open_loop(folder: Path) -> Path:
    """Compile openloop.c unless the binary there is newer. Raises RuntimeError without a C compiler."""
    source, binary = HERE / "openloop.c", folder / "openloop"
    if binary.exists() and binary.stat().st_mtime >= source.stat().st_mtime:
        return binary
    folder.mkdir(parents=True, exist_ok=True)
    compiler = os.environ.get("CC", "cc")
    try:
        subprocess.run([compiler, "-O2", "-o", str(binary), str(source)], check=True, capture_output=True, text=True)
    except FileNotFoundError as exc:
        raise RuntimeError(f"no C compiler {compiler!r}: apt-get install gcc, or set CC") from exc
    except subprocess.CalledProcessError as exc:
        raise RuntimeError(f"openloop.c does not compile: {exc.stderr}") from exc
    return binary
