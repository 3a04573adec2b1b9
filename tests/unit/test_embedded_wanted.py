import json
from pathlib import Path
from typing import Any

import pytest

from control_plane.embedded import wanted

WISH: dict[str, Any] = {"name": "churn-3-1a2b", "argv": ["python", "x.py"], "env": {"A": "1"}, "grace_s": 15}


def test_a_wish_is_read_whole(tmp_path: Path) -> None:
    (tmp_path / "018f.json").write_text(json.dumps(WISH | {"port": None, "socket": "/s"}))
    (found,) = wanted.read(tmp_path).values()
    assert (found.id, found.name, found.argv, found.env) == ("018f", "churn-3-1a2b", ("python", "x.py"), (("A", "1"),))
    assert (found.grace_s, found.port, found.socket) == (15.0, None, "/s")


def test_one_that_cannot_be_used_does_not_hold_up_the_others(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("{")
    (tmp_path / "b.json").write_text(json.dumps(WISH))
    (tmp_path / ".c.json").write_text(json.dumps(WISH))
    (tmp_path / "d.json.new").write_text(json.dumps(WISH))
    assert list(wanted.read(tmp_path)) == ["b"]


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"name": "../api"}, "name"),
        ({"name": None}, "name"),
        ({"argv": []}, "argv"),
        ({"argv": "python"}, "argv"),
        ({"argv": ["python", 1]}, "argv"),
        ({"env": {"A": 1}}, "env"),
        ({"env": []}, "env"),
        ({"grace_s": -1}, "grace_s"),
        ({"grace_s": True}, "grace_s"),
        ({"grace_s": float("nan")}, "grace_s"),
        ({"port": "80"}, "port"),
        ({"socket": 3}, "socket"),
    ],
)
def test_a_member_that_does_not_fit_is_named(change: dict[str, Any], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        wanted.parse("id", WISH | change)


def test_a_list_is_no_wish() -> None:
    with pytest.raises(ValueError, match="object"):
        wanted.parse("id", [WISH])
