"""When two versions count as judged on the same hold-out, by what their trainings left."""

from typing import Any

import pytest

from control_plane.adapters.store.tables import ModelVersionRow
from control_plane.services import evidence


def row(version: str, value: float, data: dict[str, Any], **more: Any) -> ModelVersionRow:
    training = {"test_share": more.pop("share", 0.3)}
    config = {"name": "m", "problem": "binary", "features": {"a": {"type": "number"}}, "training": training}
    metric = {"name": "roc_auc", "value": value, "holdout_rows": 100}
    return ModelVersionRow(model="m", version=version, config=config, evidence={"metric": metric, "data": data, **more})


def compared(one: ModelVersionRow, other: ModelVersionRow) -> bool:
    found = evidence.incumbent(one, other)
    return (found.value, found.candidate_value) == (0.7, 0.8)


@pytest.mark.parametrize(("theirs", "same"), [("h", True), ("i", False), (None, False)])
def test_hold_outs_are_the_same_when_their_rows_are(theirs: str | None, same: bool) -> None:
    new = row("2", 0.8, {"sha256": "b", "holdout": {"sha256": "h"}}, seed=1)
    old = row("1", 0.7, {"sha256": "b"} | ({"holdout": {"sha256": theirs}} if theirs else {}), seed=1)
    assert compared(old, new) is same


def test_versions_that_do_not_say_their_rows_need_the_same_file_seed_and_share() -> None:
    old = row("1", 0.7, {"sha256": "a"}, seed=1)
    assert compared(old, row("2", 0.8, {"sha256": "a"}, seed=1))
    assert not compared(old, row("2", 0.8, {"sha256": "a"}, seed=2))
    assert not compared(old, row("2", 0.8, {"sha256": "b"}, seed=1))
    assert not compared(old, row("2", 0.8, {"sha256": "a"}, seed=1, share=0.2))
    assert not compared(row("1", 0.7, {"sha256": "a"}), row("2", 0.8, {"sha256": "a"}))
