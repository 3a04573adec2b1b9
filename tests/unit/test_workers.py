"""Work on Dask workers: what is asked for, what is missing, what happens when some are lost. No worker runs here."""

import importlib.util
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from control_plane.errors import InvalidConfig, InvalidInput, Unavailable
from training import cli
from training.common import models, trees, workers
from training.common.workers import Place, Workers


class Fleet:
    """As much of a distributed.Client as is asked: its workers, renamed whenever one of them is replaced."""

    def __init__(self, *addresses: str) -> None:
        self.known = list(addresses)

    def nthreads(self) -> dict[str, int]:
        return dict.fromkeys(self.known, 1)

    def lose(self, *, successor: str | None) -> None:
        self.known.pop()
        self.known += [successor] if successor else []


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    for limit in ("_NOTICED_S", "_STARTED_S", "_UNWINDS_S"):
        monkeypatch.setattr(workers, limit, 0.3)


def breaking(fleet: Fleet, *successors: str | None) -> Callable[[], int]:
    """Work that loses a worker at each of its first attempts; the attempts it took when it ends well."""
    left, attempts = list(successors), list[int]()

    def work() -> int:
        attempts.append(1)
        if left:
            fleet.lose(successor=left.pop(0))
            raise ConnectionError("a peer is gone")
        return len(attempts)

    return work


def test_nothing_asked_for_is_no_place_and_zero_is_this_process() -> None:
    assert workers.place(None, None) is None
    assert workers.place(0, None) is None
    assert workers.place(2, None) == Place(local=2)
    assert workers.place(None, "tcp://there:8786") == Place(scheduler="tcp://there:8786")


@pytest.mark.parametrize(("local", "scheduler"), [(2, "tcp://there:8786"), (-1, None), (1_000, None)])
def test_what_cannot_be_honoured_is_refused(local: int, scheduler: str | None) -> None:
    with pytest.raises(InvalidInput, match="--workers"):
        workers.place(local, scheduler)


def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "distributed" else object())
    with (
        pytest.raises(Unavailable, match=r"need distributed; pip install 'mlcp\[distributed\]'"),
        workers.opened(Place(local=2)),
    ):
        pass


def test_a_scheduler_that_does_not_answer_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "_ANSWERS_S", 0.2)
    at = Place(scheduler="tcp://127.0.0.1:9")
    with pytest.raises(Unavailable, match=r"answers at tcp://127\.0\.0\.1:9"), workers.opened(at):
        pass


def test_work_that_lost_a_worker_begins_anew_with_its_successor_or_without() -> None:
    fleet = Fleet("a", "b")
    assert Workers(fleet, "here").together(breaking(fleet, "c")) == 2
    assert fleet.known == ["a", "c"]
    assert Workers(fleet, "here").together(breaking(fleet, None)) == 2
    assert fleet.known == ["a"]


def test_workers_lost_again_and_again_are_given_up() -> None:
    fleet = Fleet("a", "b")
    with pytest.raises(Unavailable, match="lost 3 times over the same work"):
        Workers(fleet, "here").together(breaking(fleet, "c", "d", "e", "f"))
    with pytest.raises(Unavailable, match="given up"):
        Workers(Fleet(), "here").together(lambda: 1)


def test_an_error_of_the_work_itself_is_raised_as_it_is() -> None:
    def work() -> None:
        raise ValueError("no such objective")

    with pytest.raises(ValueError, match="no such objective"):
        Workers(Fleet("a"), "here").together(work)


def test_nobody_waits_for_ever_for_a_worker_that_is_gone() -> None:
    import threading

    fleet, never = Fleet("a", "b"), threading.Event()

    def work() -> None:
        fleet.lose(successor="c")
        never.wait()

    with pytest.raises(Unavailable, match="went on waiting"):
        Workers(fleet, "here").together(work)
    never.set()


def test_few_rows_stay_together() -> None:
    found = Workers(Fleet(*(f"w{i}" for i in range(9))), "here")
    assert [len(found.holders(rows)) for rows in (0, 999, 1_000, 4_000, 10**9)] == [1, 1, 2, 8, 9]


@pytest.mark.parametrize("seed", range(5))
def test_a_value_and_the_lower_end_of_its_bin_are_on_the_same_side_of_every_cut(seed: int) -> None:
    import xgboost

    rng = np.random.default_rng(seed)
    columns = [rng.normal(size=2_000), rng.integers(0, 7, 2_000), rng.lognormal(size=2_000), np.full(2_000, 3.0)]
    rows = np.column_stack(columns).astype(np.float32)
    rows[rng.random(2_000) < 0.1, 0] = np.nan
    starts, cuts = xgboost.QuantileDMatrix(rows, np.zeros(2_000), max_bin=32).get_quantile_cut()
    made = trees.binned(rows, starts, cuts, np.fmin.reduce(rows, axis=0))
    assert (np.isnan(made) == np.isnan(rows)).all()
    for column in range(4):
        known = ~np.isnan(rows[:, column])
        inner = cuts[starts[column] : starts[column + 1]][:-1]
        before, after = (values[known, column][:, None] < inner for values in (rows, made))
        assert (before == after).all()
        assert len(np.unique(made[known, column])) <= len(inner) + 1


def declared(tmp_path: Any, **changes: str) -> Any:
    place = tmp_path / "loans"
    place.mkdir()
    lines = {"features": "{income: {type: number}}", "training": "{workers: 2}"} | changes
    text = "name: loans\nproblem: binary\ntarget: {column: default, positive: 1}\nmetric: {name: roc_auc}\n"
    (place / "model.yaml").write_text(text + "".join(f"{name}: {value}\n" for name, value in lines.items()))
    return place / "model.yaml"


@pytest.mark.parametrize(
    "changes",
    [
        {"training": "{workers: 2, candidates: [logistic]}"},
        {"features": "{note: {type: text}}"},
        {"training": "{workers: -1}"},
    ],
)
def test_a_model_that_workers_cannot_fit_does_not_ask_for_them(tmp_path: Any, changes: dict[str, str]) -> None:
    with pytest.raises(InvalidConfig, match=r"training\.workers"):
        models.read(declared(tmp_path, **changes))


def test_where_to_train_is_said_by_option_environment_or_model_in_this_order(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from training.common import run

    declared(tmp_path)
    asked: list[Place | None] = []
    monkeypatch.setenv("MLCP_MODELS", str(tmp_path))
    monkeypatch.setattr(run, "rows_of", lambda *given, **named: (None, None))
    monkeypatch.setattr(run, "train", lambda *given, at, **named: asked.append(at))
    there = Place(scheduler="tcp://there:8786")
    assert cli.main(["train", "loans"]) == 0
    assert cli.main(["train", "loans", "--workers", "0"]) == 0
    monkeypatch.setenv("MLCP_DASK_SCHEDULER", there.scheduler)
    assert cli.main(["train", "loans"]) == 0
    assert cli.main(["train", "loans", "--workers", "3"]) == 0
    assert asked == [Place(local=2), None, there, Place(local=3)]
    assert cli.main(["train", "loans", "--workers", "3", "--scheduler", there.scheduler]) == 2


def test_workers_asked_for_where_none_can_help_are_refused_and_standing_ones_left_alone(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from training.common import run

    declared(tmp_path, features="{note: {type: text}}", training="{}")
    monkeypatch.setenv("MLCP_MODELS", str(tmp_path))
    monkeypatch.setenv("MLCP_DASK_SCHEDULER", "tcp://there:8786")
    monkeypatch.setattr(run, "rows_of", lambda *given, **named: (None, None))
    monkeypatch.setattr(run, "train", lambda *given, **named: None)
    assert cli.main(["train", "loans"]) == 0
    assert cli.main(["train", "loans", "--workers", "2"]) == 2
    assert "no candidate of loans" in capsys.readouterr().err
