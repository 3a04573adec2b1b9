"""What must be true before anything is started. Each refusal is one line that names the setting to change."""

import contextlib
import errno
import os
import shutil
import tempfile
from collections.abc import Collection

import psutil

from control_plane import host
from control_plane.embedded.config import Config


def home(config: Config) -> list[str]:
    """Can we keep our files under MLCP_HOME? Makes the folder if need be, and nothing else."""
    try:
        config.home.mkdir(parents=True, exist_ok=True, mode=0o700)
        with tempfile.TemporaryFile(dir=config.home) as probe:
            probe.write(bytes(65_536))
            probe.flush()
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            return [f"the disk of {config.home} is full: free some space, or set MLCP_HOME to a folder on another disk"]
        why = (error.strerror or str(error)).lower()
        return [f"{config.home} cannot be written ({why}): set MLCP_HOME to a folder you own"]
    if config.home.stat().st_uid != os.geteuid():
        owner = config.home.stat().st_uid
        return [f"{config.home} belongs to another user (uid {owner}): run as that user, or set MLCP_HOME"]
    return []


def resources(config: Config) -> list[str]:
    """Enough disk and memory, and three free ports?"""
    return [*disk(config), *memory(config), *ports(config)]


def disk(config: Config) -> list[str]:
    free_mb = shutil.disk_usage(config.home).free >> 20
    if free_mb >= config.min_free_mb:
        return []
    return [
        f"{free_mb} MB free on the disk of {config.home}, {config.min_free_mb} MB needed: free some space, "
        "set MLCP_HOME to another disk, or lower MLCP_MIN_FREE_MB"
    ]


def memory(config: Config) -> list[str]:
    available_mb = host.available_memory_mb()
    if available_mb is None or available_mb >= config.min_memory_mb:
        return []
    return [
        f"{available_mb} MB of memory available, {config.min_memory_mb} MB needed: stop something, or lower "
        "MLCP_MIN_MEMORY_MB"
    ]


def ports(config: Config, *, ours: Collection[int] = ()) -> list[str]:
    """`ours` are ports that may be taken, since our own processes take them."""
    reasons: list[str] = []
    seen: dict[int, str] = {}
    for setting, address, port in (
        ("MLCP_API_PORT", config.api_host, config.api_port),
        ("MLCP_ROUTER_PORT", config.router_host, config.router_port),
        ("MLCP_MLFLOW_PORT", "127.0.0.1", config.mlflow_port),
    ):
        if port in seen:
            reasons.append(f"port {port} is named twice: set {setting} or {seen[port]} to another port")
        elif port not in ours and (why := _taken(address, port)):
            reasons.append(f"port {port} {why}: set {setting} to another port")
        seen[port] = setting
    return reasons


def _taken(address: str, port: int) -> str | None:
    error = host.cannot_listen(address, port)
    if error is None:
        return None
    if error.errno == errno.EADDRINUSE:
        return f"is taken{_by(port)}"
    return f"on {address} cannot be used ({(error.strerror or str(error)).lower()})"


def _by(port: int) -> str:
    with contextlib.suppress(psutil.Error, OSError):
        for connection in psutil.net_connections(kind="tcp"):
            address = tuple(connection.laddr)  # (host, port), or empty
            if connection.status == psutil.CONN_LISTEN and address[1:2] == (port,) and connection.pid:
                return f" by {psutil.Process(connection.pid).name()} (pid {connection.pid})"
    return ""
