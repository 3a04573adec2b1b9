import json
from pathlib import Path

from control_plane.adapters.metrics import Metrics
from control_plane.contracts import snapshot
from control_plane.router.metrics import Meter
from control_plane.router.pins import Folder
from control_plane.router.routes import Known, build
from tests.support.data_plane import document, target

OLD, NEW = target("1", "unix:/a"), target("2", "unix:/b")


def write(folder: Path, model: str = "churn", version: str = "1") -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / f"{model}.json"
    pin = {"model": model, "target": OLD.id, "version": version, "person": "oncall", "reason": "r", "at": "now"}
    path.write_text(json.dumps(pin))
    return path


def test_pins_are_seen_and_their_release_too(tmp_path: Path) -> None:
    folder = Folder(tmp_path / "pins")
    assert not folder.look(), "a missing folder holds no pins"
    path = write(tmp_path / "pins")
    assert folder.look()
    assert not folder.look(), "unchanged"
    assert folder.pins["churn"].person == "oncall"
    path.unlink()
    assert folder.look()
    assert not folder.pins


def test_a_file_that_is_no_pin_hides_no_other(tmp_path: Path) -> None:
    write(tmp_path / "pins")
    (tmp_path / "pins" / "broken.json").write_text("{")
    folder = Folder(tmp_path / "pins")
    assert folder.look()
    assert list(folder.pins) == ["churn"]


async def test_a_pin_outlives_a_snapshot_that_no_longer_names_its_target(tmp_path: Path) -> None:
    write(tmp_path / "pins")
    folder = Folder(tmp_path / "pins")
    folder.look()
    known = Known(Meter(Metrics(tmp_path / "metrics", "test")))
    with_both = document(1, NEW, OLD, arms={"stable": (10_000, NEW)}, previous=OLD)
    without = document(2, NEW)
    for sealed in (with_both, without):
        route = build(snapshot.decode(sealed), folder.pins, known).models["churn"]
        assert route.pinned_to is not None
        assert route.pinned_to.target == OLD
    assert (OLD.id, OLD.address) in known.servers
    route = build(snapshot.decode(without), {}, known).models["churn"]
    assert route.pinned_to is None
    assert (OLD.id, OLD.address) not in known.servers, "connections to what nothing routes to are closed"
