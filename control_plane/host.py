"""What this host still has for us: memory and addresses. For processes that may have nothing but the base install."""

import contextlib
import socket
from pathlib import Path

_CGROUP = Path("/sys/fs/cgroup")
_MEMINFO = Path("/proc/meminfo")


def available_memory_mb() -> int | None:
    """What the host and the control group (container) we are in still allow, in MB; None if nobody tells."""
    amounts = [amount for amount in (_of_host(), _of_group()) if amount is not None]
    return min(amounts) >> 20 if amounts else None


def cannot_listen(address: str, port: int) -> OSError | None:
    """Why no process of ours could listen there now; None: one could."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, port))
            probe.listen(1)
        except OSError as error:
            return error
    return None


def _of_host() -> int | None:
    """Bytes; the kernel's own estimate, where there is one."""
    with contextlib.suppress(OSError, ValueError):
        for line in _MEMINFO.read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) << 10
    with contextlib.suppress(ImportError):  # it comes with an extra
        import psutil

        return int(psutil.virtual_memory().available)
    return None


def _of_group() -> int | None:
    """Bytes that cgroup v2 leaves us; its word for no limit, "max", is no number."""
    with contextlib.suppress(OSError, ValueError):
        limit = int((_CGROUP / "memory.max").read_text())
        used = int((_CGROUP / "memory.current").read_text())
        stat = (_CGROUP / "memory.stat").read_text().splitlines()
        cache = next((int(line.split()[1]) for line in stat if "inactive_file" in line), 0)
        return max(0, limit - used + cache)
    return None
