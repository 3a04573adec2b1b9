"""Where the embedded stack keeps what: the folders under MLCP_HOME, and a folder short enough for unix sockets."""

import hashlib
import os
import stat
import tempfile
from dataclasses import dataclass
from pathlib import Path

SOCKET_PATH_MAX = 100  # bytes; the kernel takes 107, and tools append suffixes
_LONGEST_NAME = "00000000.aux.sock"  # of a model server; pg/.s.PGSQL.5432 is as long


@dataclass(frozen=True, slots=True)
class Layout:
    """Paths of one stack. `home` is absolute."""

    home: Path
    sockets: Path

    @property
    def keys(self) -> Path:
        return self.home / "keys"

    @property
    def logs(self) -> Path:
        return self.home / "logs"

    @property
    def run(self) -> Path:
        return self.home / "run"

    @property
    def wanted(self) -> Path:
        return self.run / "wanted"

    @property
    def ready(self) -> Path:
        return self.run / "ready"

    @property
    def metrics(self) -> Path:
        return self.run / "metrics"

    @property
    def status(self) -> Path:
        return self.run / "status.json"

    @property
    def bootstrap(self) -> Path:
        return self.run / "bootstrap.json"

    @property
    def postgres_sockets(self) -> Path:
        """Apart from the other sockets: Postgres may have to run as another user, who owns this folder alone."""
        return self.sockets / "pg"

    def log(self, name: str) -> Path:
        return self.logs / f"{name}.log"

    def ready_file(self, name: str) -> Path:
        return self.ready / name


def of(home: Path) -> Layout:
    """`run/s` under home for the sockets or, where their paths would be too long, a folder of ours in TMPDIR."""
    sockets = home / "run" / "s"
    if len(os.fsencode(sockets / _LONGEST_NAME)) > SOCKET_PATH_MAX:
        digest = hashlib.sha256(os.fsencode(home)).hexdigest()[:8]
        sockets = Path(tempfile.gettempdir()) / f"mlcp-{os.getuid()}-{digest}"
    return Layout(home, sockets)


def create(layout: Layout) -> None:
    """Make every folder, closed to other users. Existing ones keep their content.

    As root the way to the Postgres folders stays open for passing through (o+x), since Postgres refuses to be root.

    Raises:
        OSError: a folder cannot be made.
        PermissionError: the socket folder in TMPDIR belongs to somebody else.
    """
    passage = 0o711 if os.geteuid() == 0 else 0o700
    _folder(layout.home, passage)
    for folder in (layout.keys, layout.logs, layout.wanted, layout.ready, layout.metrics):
        _folder(folder, 0o700)
    for name in ("redis", "mlflow", "mlflow/artifacts", "cache", "router", "router/pins", "spool", "jobs", "reports"):
        _folder(layout.home / name, 0o700)
    _folder(layout.run, passage)
    _folder(layout.sockets, passage)
    _must_be_ours(layout.sockets)


def _folder(path: Path, mode: int) -> None:
    path.mkdir(parents=True, exist_ok=True, mode=mode)
    if path.stat().st_uid == os.geteuid():
        path.chmod(mode)


def _must_be_ours(path: Path) -> None:
    found = path.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
        raise PermissionError(f"{path} is not a folder of ours: remove it, or set TMPDIR")
