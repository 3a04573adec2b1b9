"""`mlcp doctor`: is anything wrong with the embedded stack of this machine, and what helps?"""

import errno
import os
import shutil
import stat
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, cast

from control_plane import host
from control_plane.cli import stack_state
from control_plane.cli.stack_state import Status

if TYPE_CHECKING:
    import httpx

_PORTS = (("api_port", 8000, "api_host"), ("router_port", 8080, "router_host"), ("mlflow_port", 5000, None))
_LOOPBACK = "127.0.0.1"
_URLS = {"api": "api", "router": "predict", "mlflow": "mlflow"}  # process -> its name among the status' URLs
_BUSY_SPOOL_MB = 500


@dataclass(frozen=True, slots=True)
class Finding:
    what: str
    wrong: bool
    says: str
    hint: str = ""

    def line(self) -> str:
        return f"{'✗' if self.wrong else '✓'} {self.what}: {self.says}" + (f"\n    {self.hint}" if self.hint else "")

    def as_dict(self) -> Mapping[str, object]:
        return asdict(self)


def examine(home: Path) -> list[Finding]:
    """Every finding, good and bad, in the order one would look."""
    status = stack_state.read(home)
    findings = [*_host(home), *_files(home), *_keys(home, status)]
    if status.alive:
        return [*findings, *_supervisor(status), *_processes(status), *_endpoints(status), *_data_plane(home, status)]
    return [*findings, *_absent(home, status), *_ports(home)]


def _host(home: Path) -> Iterator[Finding]:
    from importlib import metadata

    version = metadata.version("mlcp")
    yield Finding("versions", False, f"mlcp {version}, Python {sys.version.split()[0]}")
    disk_at = next((folder for folder in (home, *home.parents) if folder.exists()), Path("/"))
    free, needed = shutil.disk_usage(disk_at).free >> 20, _number(home, "min_free_mb", 1024)
    hint = "" if free >= needed else "Free some space, or set MLCP_HOME to another disk."
    yield Finding("disk", free < needed, f"{free} MB free at {disk_at}", hint)
    if (available := host.available_memory_mb()) is not None:
        needed = 256 if stack_state.read(home).alive else _number(home, "min_memory_mb", 2048)
        hint = "" if available >= needed else "Stop something, or lower MLCP_MIN_MEMORY_MB."
        yield Finding("memory", available < needed, f"{available} MB available", hint)


def _files(home: Path) -> Iterator[Finding]:
    if not home.exists():
        yield Finding("home", False, f"{home} does not exist yet", "mlcp up makes it.")
        return
    if not os.access(home, os.W_OK | os.X_OK):
        yield Finding("home", True, f"{home} cannot be written by you", "Set MLCP_HOME to a folder you own.")
        return
    mode = stat.S_IMODE(home.stat().st_mode)
    open_to = mode & (stat.S_IRWXG | stat.S_IROTH | stat.S_IWOTH) & ~stat.S_IXGRP
    hint = f"chmod go-rw {home}" if open_to else ""
    yield Finding("home", bool(open_to), f"{home}, mode {mode:04o}", hint)


def _keys(home: Path, status: Status) -> Iterator[Finding]:
    """A stack makes its keys while it starts, so one that is ready, or has data of an earlier start, has some."""
    if not any((home / "keys").glob("*.key")):
        lost = status.state == "ready" or ((home / "pg").exists() and not status.alive)
        hint = f"{'mlcp down, then mlcp up' if status.alive else 'mlcp up'} makes new ones and revokes the lost."
        yield Finding("keys", lost, f"none in {home / 'keys'}", hint if lost else "mlcp up makes them.")
        return
    loose = [key.name for key in sorted((home / "keys").glob("*")) if key.stat().st_mode & 0o077]
    says = f"readable by others: {', '.join(loose)}" if loose else "readable by their owner alone"
    yield Finding("keys", bool(loose), says, f"chmod 600 {home / 'keys'}/*" if loose else "")


def _absent(home: Path, status: Status) -> Iterator[Finding]:
    pid = status.document.get("supervisor_pid")
    if status.document.get("state") in (None, "stopping"):
        yield Finding("supervisor", False, "does not run", "mlcp up starts it.")
    elif status.document.get("state") == "failed":
        error = str(status.document.get("error"))
        yield Finding("supervisor", True, f"gave up: {error}", f"See {home / 'logs'}, then mlcp up.")
    else:
        says = f"pid {pid} is gone without having stopped; what it started may still run"
        yield Finding("supervisor", True, says, "mlcp up starts again; mlcp down ends what is left.")


def _ports(home: Path) -> Iterator[Finding]:
    for name, default, host_name in _PORTS:
        port = _number(home, name, default)
        address = stack_state.setting(home, host_name, _LOOPBACK) if host_name else _LOOPBACK
        error = host.cannot_listen(address, port)
        if error is None:
            yield Finding("port", False, f"{port} is free on {address}")
            continue
        says = f"{port} on {address}: {(error.strerror or str(error)).lower()}"
        taken = error.errno == errno.EADDRINUSE or host_name is None
        hint = f"Set MLCP_{name.upper()} to a free one." if taken else f"Set MLCP_{str(host_name).upper()} to another."
        yield Finding("port", True, says, hint)


def _supervisor(status: Status) -> Iterator[Finding]:
    pid = status.document.get("supervisor_pid")
    if status.hangs:
        says = f"pid {pid} has written nothing for {status.silent_s:.0f} s"
        yield Finding("supervisor", True, says, "mlcp down, then mlcp up. Predictions go on meanwhile.")
    elif error := status.document.get("error"):
        yield Finding("supervisor", True, str(error))
    else:
        yield Finding("supervisor", False, f"pid {pid}, {status.state}")


def _processes(status: Status) -> Iterator[Finding]:
    for process in status.processes:
        if process["name"] == "supervisor":
            continue
        if process["state"] in ("backoff", "failed"):
            says = f"{process['state']}, ended with {process['last_exit']}: {_last_line(process['log'])}"
            yield Finding(process["name"], True, says, f"See {process['log']}")
        elif process["restarts"]:
            yield Finding(process["name"], False, f"{process['state']}, started again {process['restarts']} times")
        else:
            yield Finding(process["name"], False, str(process["state"]))


def _endpoints(status: Status) -> Iterator[Finding]:
    urls: Mapping[str, str] = status.document.get("urls") or {}
    import httpx  # a third of a second that no other command should wait for

    for process in status.processes:
        known = httpx.URL(urls.get(_URLS.get(process["name"], ""), ""))
        if not known.host or process["state"] != "ready":
            continue
        url = str(known.copy_with(path="/health"))
        what = f"{process['name']} answers"
        try:
            answer = httpx.get(url, timeout=5, trust_env=False)
        except httpx.HTTPError as error:
            yield Finding(what, True, f"{url}: {type(error).__name__}", f"See {process['log']}")
            continue
        worries = _worries(answer)
        hint = f"See {process['log']}" if worries or not answer.is_success else ""
        yield Finding(what, not answer.is_success or bool(worries), worries or f"{answer.status_code} at {url}", hint)


def _worries(answer: "httpx.Response") -> str:
    """What a health document of ours complains about."""
    try:
        checks = cast("dict[str, str]", answer.json()["checks"])
        return "; ".join(f"{part}: {said}" for part, said in checks.items() if said != "ok")
    except (ValueError, KeyError, TypeError, AttributeError):  # no document of ours: its status code says all
        return ""


def _data_plane(home: Path, status: Status) -> Iterator[Finding]:
    snapshot = home / "router" / "snapshot.json"
    try:
        age = time.time() - snapshot.stat().st_mtime
        yield Finding("snapshot", False, f"applied {age / 60:.0f} min ago" if age > 120 else f"applied {age:.0f} s ago")
    except FileNotFoundError:
        if any(process.get("id") and process["state"] == "ready" for process in status.processes):  # a model server
            says = "none, though a model server is ready: whatever is routed does not reach the router"
            yield Finding("snapshot", True, says, "Do the reconciler and Redis run? See mlcp logs reconciler.")
        else:
            yield Finding("snapshot", False, "none yet: no model is routed", "mlcp promote routes one.")
    pins = [pin.stem for pin in sorted((home / "router" / "pins").glob("*.json"))]
    if pins:
        hint = f"mlcp router release {pins[0]} --reason TEXT gives it back to the control plane."
        yield Finding("pins", False, f"traffic pinned by hand: {', '.join(pins)}", hint)
    waiting = sum(file.stat().st_size for file in (home / "spool").rglob("*") if file.is_file()) >> 20
    hint = "Do Redis, the shipper and the ingester run?" if waiting > _BUSY_SPOOL_MB else ""
    yield Finding("spool", waiting > _BUSY_SPOOL_MB, f"{waiting} MB wait to be stored", hint)


def _last_line(log: str) -> str:
    try:
        lines = [line for line in Path(log).read_text(errors="replace").splitlines() if line.strip()]
    except OSError:
        return "no log"
    return lines[-1][:200] if lines else "nothing in its log"


def _number(home: Path, name: str, default: int) -> int:
    given = stack_state.setting(home, name, str(default))
    return int(given) if given.isdecimal() else default
