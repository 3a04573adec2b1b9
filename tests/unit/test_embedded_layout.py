import os
import stat
from pathlib import Path

import pytest

from control_plane.adapters.deployers import local
from control_plane.embedded import layout


def test_sockets_lie_under_home_as_long_as_their_paths_fit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layout.tempfile, "tempdir", "/tmp")
    short = Path("/srv/mlcp")
    assert layout.of(short).sockets == short / "run" / "s"
    longest = Path("/" + "x" * (layout.SOCKET_PATH_MAX - len("//run/s/00000000.aux.sock")))
    assert layout.of(longest).sockets == longest / "run" / "s"
    too_long = Path(f"{longest}x")
    assert layout.of(too_long).sockets.parent == Path("/tmp")
    assert len(os.fsencode(layout.of(too_long).postgres_sockets / ".s.PGSQL.5432")) <= layout.SOCKET_PATH_MAX


@pytest.mark.parametrize("home", ["/srv/mlcp", "/srv/" + "x" * 90])
def test_supervisor_and_deployer_name_the_same_folder(home: str) -> None:
    from uuid import UUID

    assert local.sockets(Path(home), UUID(int=7))[0].parent == layout.of(Path(home)).sockets


def test_every_folder_is_closed_to_others(tmp_path: Path) -> None:
    places = layout.of(tmp_path / "var")
    layout.create(places)
    layout.create(places)  # again, over what is there
    passage = 0o711 if os.geteuid() == 0 else 0o700
    for folder in (places.home, *places.home.rglob("*")):
        open_to_pass = folder in (places.home, places.run, places.sockets)
        assert stat.S_IMODE(folder.stat().st_mode) == (passage if open_to_pass else 0o700), folder


def test_a_socket_folder_in_tmp_that_is_no_folder_of_ours_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(layout.tempfile, "tempdir", str(tmp_path))
    places = layout.of(tmp_path / ("x" * 90))
    places.sockets.symlink_to(tmp_path)
    with pytest.raises(PermissionError, match="TMPDIR"):
        layout.create(places)
