"""`python -m control_plane.embedded.backup save|restore FOLDER [--replace]`: databases and objects, and back again.

    FOLDER/control-plane.dump  mlflow.dump     pg_dump, custom format
    FOLDER/archive/  artifacts/                every object, from a disk or a bucket
    FOLDER/manifest.json                       written last: without it a backup is not whole

What is saved later may know more than what was saved before, never less: the control plane's rows name MLflow's, both
name objects. Of the embedded stack everything is found by MLCP_HOME; elsewhere MLCP_POSTGRES_DSN, MLCP_ARCHIVE_URL,
MLCP_MLFLOW_BACKEND and MLFLOW_ARTIFACTS say where it is. Keys are no part of it. One JSON object on stdout.
"""

# pyright: basic, reportMissingTypeStubs=false
# (pyarrow comes without types)

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pyarrow import fs
from sqlalchemy import URL, create_engine, inspect, make_url, text

from control_plane.adapters import objects as buckets
from control_plane.embedded import binaries, config, layout, lock, postgres
from control_plane.embedded.config import CannotStart

_MANIFEST = "manifest.json"
_MAIN = "control-plane"
_ANEW = """
SET client_min_messages = warning;
DO $$ DECLARE name text; BEGIN
  FOR name IN SELECT nspname FROM pg_namespace WHERE nspname !~ '^pg_' AND nspname <> 'information_schema'
  LOOP EXECUTE format('DROP SCHEMA %I CASCADE', name); END LOOP;
END $$;
CREATE SCHEMA public;
GRANT USAGE ON SCHEMA public TO PUBLIC;
"""  # as a database is when it is made


class CannotDo(Exception):
    """Nothing was changed that the text does not name."""


@dataclass(frozen=True, slots=True)
class Places:
    databases: Mapping[str, URL]
    objects: Mapping[str, str]  # name -> URL of a folder
    home: Path | None = None  # of the embedded stack, where these are its own


def places(environ: Mapping[str, str]) -> Places:
    settings = config.read(environ)
    home = settings.home
    objects = {"archive": buckets.location(environ.get("MLCP_ARCHIVE_URL"), home)}
    if given := _dsn(environ):
        databases = {_MAIN: make_url(given)}
        if backend := environ.get("MLCP_MLFLOW_BACKEND"):
            databases["mlflow"] = make_url(backend)
        if artifacts := environ.get("MLFLOW_ARTIFACTS"):
            objects["artifacts"] = artifacts
        return Places(databases, objects)
    found = layout.of(home)
    server = postgres.locate(home, found.postgres_sockets, wanted_user=settings.postgres_user)
    databases = {_MAIN: make_url(server.dsn("psycopg", "mlcp")), "mlflow": make_url(server.dsn("psycopg", "mlflow"))}
    return Places(databases, {**objects, "artifacts": (home / "mlflow" / "artifacts").as_uri()}, home)


@contextmanager
def reachable(there: Places, environ: Mapping[str, str], *, alone: bool) -> Generator[None]:
    """Its databases answer. Of an embedded stack that is down, Postgres runs for the time of the block.

    `alone`: nobody else may be at work. Raises CannotDo where a running stack is.
    """
    if there.home is None:
        yield
        return
    found = layout.of(there.home)
    with lock.take(found) as holder:
        if holder is not None:
            if alone:
                raise CannotDo(f"the stack of {there.home} runs (pid {holder}): mlcp down first")
            yield
            return
        user = config.read(environ).postgres_user
        with postgres.running(postgres.locate(there.home, found.postgres_sockets, wanted_user=user)):
            yield


def _dsn(environ: Mapping[str, str]) -> str | None:
    secret = Path(environ.get("MLCP_SECRETS_DIR", "/nowhere")) / "mlcp_postgres_dsn"
    return environ.get("MLCP_POSTGRES_DSN") or (secret.read_text().strip() if secret.is_file() else None)


def save(folder: Path, there: Places) -> dict[str, Any]:
    """Raises CannotDo; what a failed attempt has left is no backup, since it has no manifest."""
    if folder.exists() and any(folder.iterdir()):
        raise CannotDo(f"{folder} is not empty: a backup gets a folder of its own")
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    databases, objects = dict[str, Any](), dict[str, Any]()
    for name, url in there.databases.items():
        path = folder / f"{name}.dump"
        _run("pg_dump", ["--format=custom", "--no-owner", "--no-privileges", f"--file={path}"], url)
        path.chmod(0o600)
        databases[name] = {"bytes": path.stat().st_size, "sha256": _sha256(path)}
    for name, source in there.objects.items():
        objects[name] = _copy(source, (folder / name).as_uri())
    made = {"format": 1, "at": datetime.now(UTC).isoformat(), "databases": databases, "objects": objects}
    temporary = folder / f".{_MANIFEST}.new"
    temporary.write_text(json.dumps(made, indent=1))
    temporary.replace(folder / _MANIFEST)
    return made


def restore(folder: Path, there: Places, *, replace: bool) -> dict[str, Any]:
    """Everything is checked before anything is written. Raises CannotDo."""
    made = _checked(folder)
    if missing := sorted(made["databases"].keys() - there.databases.keys()):
        raise CannotDo(f"the backup has {', '.join(missing)}, and nothing says where it belongs: MLCP_MLFLOW_BACKEND")
    for name in made["databases"]:
        if not replace and _tables(there.databases[name]):
            raise CannotDo(f"the database of {name} has tables already: --replace restores over them")
    for name in made["databases"]:
        _put_back(folder / f"{name}.dump", there.databases[name])
    epoch = _raise_epoch(there.databases[_MAIN])
    for name in made["objects"]:
        if name in there.objects:
            _copy((folder / name).as_uri(), there.objects[name])
    return {**made, "epoch": epoch}


def _put_back(dump: Path, url: URL) -> None:
    """All of the database is what `dump` holds, or nothing has changed: one transaction.

    pg_restore's own --clean cannot drop partitions that are newer than the dump, or any at all.
    """
    with tempfile.TemporaryDirectory(prefix="mlcp-restore-") as temporary:  # ours alone: it holds personal data
        script = Path(temporary) / "dump.sql"
        _run("pg_restore", ["--no-owner", "--no-privileges", f"--file={script}", str(dump)], url)
        options = ["-X", "-q", "--single-transaction", "-v", "ON_ERROR_STOP=1", "-o", os.devnull]
        _run("psql", [*options, "-c", _ANEW, "-f", str(script)], url)


def _checked(folder: Path) -> dict[str, Any]:
    try:
        made: dict[str, Any] = json.loads((folder / _MANIFEST).read_bytes())
    except (OSError, ValueError) as exc:
        raise CannotDo(f"{folder} holds no whole backup: {exc}") from exc
    for name, said in made["databases"].items():
        path = folder / f"{name}.dump"
        if not path.is_file() or _sha256(path) != said["sha256"]:
            raise CannotDo(f"{path} is missing or not what was saved")
    for name, said in made["objects"].items():
        found = _count((folder / name).as_uri())
        if found != said:
            raise CannotDo(f"{folder / name} holds {found}, not {said}")
    return made


def _raise_epoch(url: URL) -> int:
    """Routers may know revisions the restored database does not: a higher epoch outranks them all."""
    engine = create_engine(url.set(drivername="postgresql+psycopg"))
    raised = "UPDATE installation SET epoch = greatest(epoch + 1, extract(epoch FROM clock_timestamp())::bigint)"
    with engine.begin() as connection:
        epoch = int(connection.execute(text(f"{raised} RETURNING epoch")).scalar_one())
    engine.dispose()
    return epoch


def _tables(url: URL) -> list[str]:
    engine = create_engine(url.set(drivername="postgresql+psycopg"))
    with engine.connect() as connection:
        found = inspect(connection).get_table_names()
    engine.dispose()
    return found


def _run(program: str, options: Sequence[str], url: URL) -> None:
    """A Postgres program against `url`; its password is in no command."""
    try:
        path: str | Path | None = binaries.postgres() / program
    except FileNotFoundError:
        path = shutil.which(program)
    if path is None:
        raise CannotDo(f"{program} is missing: install postgresql-client, or the extra mlcp[embedded]")
    host = url.host or url.query.get("host")
    told = {"PGHOST": host, "PGPORT": url.port, "PGUSER": url.username, "PGPASSWORD": url.password}
    env = {**os.environ, "PGDATABASE": str(url.database)} | {name: str(value) for name, value in told.items() if value}
    done = subprocess.run([str(path), *options], env=env, capture_output=True, text=True, check=False)  # noqa: S603
    if done.returncode:
        raise CannotDo(f"{program} of {url.database}: {done.stderr.strip()[-1_000:]}")


def _copy(source: str, target: str) -> dict[str, int]:
    (read, from_), (write, to) = fs.FileSystem.from_uri(source), fs.FileSystem.from_uri(target)
    write.create_dir(to, recursive=True)
    if read.get_file_info(from_).type == fs.FileType.Directory:
        fs.copy_files(from_, to, source_filesystem=read, destination_filesystem=write)
    return _count(target)


def _count(url: str) -> dict[str, int]:
    found, root = fs.FileSystem.from_uri(url)
    everything = found.get_file_info(fs.FileSelector(root, recursive=True, allow_not_found=True))
    files = [info for info in everything if info.type == fs.FileType.File]
    return {"files": len(files), "bytes": sum(info.size for info in files)}


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m control_plane.embedded.backup", description=__doc__)
    parser.add_argument("what", choices=("save", "restore"))
    parser.add_argument("folder", type=Path)
    parser.add_argument("--replace", action="store_true", help="restore over what is there")
    given = parser.parse_args()
    try:
        there, folder = places(os.environ), given.folder.absolute()
        with reachable(there, os.environ, alone=given.what == "restore"):
            done = save(folder, there) if given.what == "save" else restore(folder, there, replace=given.replace)
    except (CannotDo, CannotStart, OSError) as exc:
        said = {"type": "invalid-input", "title": "Input cannot be used", "status": 422, "detail": str(exc)}
        sys.stdout.write(json.dumps(said) + "\n")
        sys.stderr.write(f"mlcp: {exc}\n")
        return 1
    sys.stdout.write(json.dumps(done) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
