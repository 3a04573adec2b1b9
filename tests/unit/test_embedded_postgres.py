import os
import subprocess
import sys
from pathlib import Path

import pytest

from control_plane.embedded import binaries, postgres
from control_plane.embedded.config import CannotStart


@pytest.mark.parametrize("pid", [os.getpid(), 2**22 - 3], ids=["alive", "gone"])
def test_a_pid_file_that_means_no_postgres_of_ours_is_removed_and_nobody_is_touched(tmp_path: Path, pid: int) -> None:
    (tmp_path / "postmaster.pid").write_text(f"{pid}\n{tmp_path}\n1700000000\n5432\n")
    postgres.stop_leftover(tmp_path)
    assert not (tmp_path / "postmaster.pid").exists()


def test_a_process_of_that_name_elsewhere_is_not_ours(tmp_path: Path) -> None:
    other = tmp_path / "postgres"
    other.symlink_to(sys.executable)
    stranger = subprocess.Popen([other, "-c", "import time; time.sleep(60)"], cwd="/")
    try:
        data = tmp_path / "pg"
        data.mkdir()
        (data / "postmaster.pid").write_text(f"{stranger.pid}\n")
        postgres.stop_leftover(data)
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


def test_data_of_another_major_version_is_refused_with_the_setting(tmp_path: Path) -> None:
    (tmp_path / "pg").mkdir()
    (tmp_path / "pg" / "PG_VERSION").write_text("16\n")
    with pytest.raises(CannotStart, match=r"Postgres 16.*MLCP_HOME"):
        postgres.locate(tmp_path, tmp_path / "s", wanted_user=None)


@pytest.mark.parametrize("name", ["root", "no-such-user-here"])
def test_a_user_postgres_cannot_run_as_is_refused_by_the_settings_name(tmp_path: Path, name: str) -> None:
    with pytest.raises(CannotStart, match=f"MLCP_POSTGRES_USER={name}"):
        postgres._account(tmp_path / "pg", name)


def test_the_driver_is_always_named_and_no_tcp_port_is_opened(tmp_path: Path) -> None:
    server = postgres.Postgres(tmp_path / "pg", tmp_path / "s", binaries.postgres(), None)
    assert server.dsn("asyncpg", "mlcp") == f"postgresql+asyncpg://postgres@/mlcp?host={tmp_path / 's'}"
    assert server.argv[server.argv.index("-h") + 1] == ""
