"""`python -m control_plane.api.init` and the API as processes."""

import os
import stat
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
from sqlalchemy import create_engine, make_url, text

from tests.support.processes import free_port, running, wait_until

pytestmark = pytest.mark.integration
NAMES = ("admin", "approver", "predictor")


def init(dsn: str, home: Path) -> None:
    env = {**os.environ, "MLCP_POSTGRES_DSN": dsn, "MLCP_HOME": str(home)}
    done = subprocess.run([sys.executable, "-m", "control_plane.api.init"], env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def keys(home: Path) -> dict[str, str]:
    return {name: (home / "keys" / f"{name}.key").read_text().strip() for name in NAMES}


def query(dsn: str, sql: str) -> list[tuple[object, ...]]:
    engine = create_engine(make_url(dsn).set(drivername="postgresql+psycopg"))
    with engine.connect() as connection:
        rows = [tuple(row) for row in connection.execute(text(sql))]
    engine.dispose()
    return rows


def test_the_first_start_makes_schema_installation_and_three_keys_once(empty_database: str, home: Path) -> None:
    init(empty_database, home)
    first = keys(home)
    assert len(set(first.values())) == 3
    for name in NAMES:
        assert stat.S_IMODE((home / "keys" / f"{name}.key").stat().st_mode) == 0o600
    init(empty_database, home)
    assert keys(home) == first
    people = query(empty_database, "SELECT person, role FROM principals ORDER BY role")
    assert people == [("admin", "admin"), ("approver", "approver"), ("product-service", "predictor")]
    assert query(empty_database, "SELECT count(*), min(epoch) FROM installation") == [(1, 1)]
    assert query(empty_database, "SELECT action FROM audit") == [("installation.prepare",)]


def test_a_lost_key_file_is_issued_again_and_the_old_key_ends(empty_database: str, home: Path) -> None:
    init(empty_database, home)
    first = keys(home)
    (home / "keys" / "admin.key").unlink()
    (home / "keys" / "predictor.key").write_text("mlcp_of-another-database\n")
    init(empty_database, home)
    second = keys(home)
    assert {name for name in NAMES if second[name] != first[name]} == {"admin", "predictor"}
    assert query(empty_database, "SELECT count(*) FROM api_keys WHERE revoked_at IS NULL") == [(3,)]
    assert query(empty_database, "SELECT count(*) FROM audit") == [(2,)]


def test_a_crash_between_commit_and_rename_loses_no_key(empty_database: str, home: Path) -> None:
    init(empty_database, home)
    first = keys(home)
    folder = home / "keys"
    (folder / "admin.key").rename(folder / ".admin.key.new")
    init(empty_database, home)
    assert keys(home) == first
    assert query(empty_database, "SELECT count(*) FROM audit") == [(1,)]


def test_the_process_says_when_it_is_ready_and_stops_when_told(empty_database: str, home: Path, tmp_path: Path) -> None:
    init(empty_database, home)
    port, ready = free_port(), tmp_path / "ready"
    env = {"MLCP_POSTGRES_DSN": empty_database, "MLCP_HOME": str(home), "MLCP_API_PORT": str(port)}
    env |= {"MLCP_READY_FILE": str(ready)}
    with running([sys.executable, "-m", "control_plane.api"], log=tmp_path / "log", env=env) as child:
        wait_until(ready.exists, what="the API is ready")
        assert ready.read_text() == str(child.pid)
        headers = {"Authorization": f"Bearer {keys(home)['admin']}"}
        answer = httpx.get(f"http://127.0.0.1:{port}/api/v1/models", headers=headers)
        assert (answer.status_code, answer.json()) == (200, {"items": [], "next": None})
        with running([sys.executable, "-m", "control_plane.api"], log=tmp_path / "second", env=env) as second:
            assert second.wait(240) != 0  # the port is taken
        child.terminate()
        assert child.wait(240) == 0
    assert "MLCP_API_PORT" in (tmp_path / "second").read_text()
