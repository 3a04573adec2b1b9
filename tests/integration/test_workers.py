"""Two Dask workers, real processes of this host, make what one process makes: profiles, reports, trees."""

import os
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from control_plane.domain.drift import decide, fold
from control_plane.domain.drift.profiles import Feature, Moments, Numeric, Profile, Text
from control_plane.domain.model_config import Feature as Declared
from control_plane.domain.model_config import FeatureType, Problem
from control_plane.embedded import drift, drift_files, drift_workers
from control_plane.errors import InvalidInput
from training.common import workers
from training.common.workers import Place, Workers

pytestmark = [pytest.mark.integration, pytest.mark.filterwarnings("ignore::ResourceWarning")]
KINDS = {
    "amount": FeatureType.NUMBER,
    "count": FeatureType.INTEGER,
    "country": FeatureType.CATEGORY,
    "active": FeatureType.BOOLEAN,
    "note": FeatureType.TEXT,
}


@pytest.fixture(scope="module")
def by() -> Iterator[Workers]:
    with workers.opened(Place(local=2), threads=2) as found:
        yield found


def table(rows: int, seed: int, shift: float = 0.0) -> Any:
    rng = np.random.default_rng(seed)
    names = [None if i % 40 == 0 else f"c{v}" for i, v in enumerate(rng.zipf(1.5, rows) % 300)]
    return pa.table(
        {
            "amount": rng.lognormal(shift, 1, rows),
            "count": pa.array([None if i % 50 == 0 else int(v) for i, v in enumerate(rng.poisson(30, rows))]),
            "country": names,
            "active": pa.array((rng.random(rows) < 0.3).tolist()),
            "note": [f"paid {v} of {v % 7}" for v in rng.integers(0, 40, rows)],
            "when": pa.array(np.arange(rows).astype("datetime64[s]")),
        }
    )


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A reference with nine row groups, and a folder of three files without one of its columns."""
    folder = tmp_path_factory.mktemp("rows")
    pq.write_table(table(9_000, 1), folder / "reference.parquet", row_group_size=1_000)
    (folder / "current").mkdir()
    now = table(6_000, 2, shift=1.0).drop_columns("active")
    for part in range(3):
        pq.write_table(now.slice(part * 2_000, 2_000), folder / "current" / f"{part}.parquet", row_group_size=700)
    return folder / "reference.parquet", folder / "current"


def profiles(files: tuple[Path, Path], by: Workers | None) -> tuple[Profile, Profile]:
    cells = fold.Cells(bins=8)
    with drift_files.opened(files[0]) as reference, drift_files.opened(files[1]) as current:
        if by is None:
            known = drift_files.reference(reference, KINDS, cells=cells)
            return known, drift_files.window(current, known)
        known = drift_workers.reference(by, reference, KINDS, cells=cells)
        return known, drift_workers.window(by, current, known)


def moments_of(feature: Feature) -> Moments | None:
    match feature:
        case Numeric():
            return feature.moments
        case Text():
            return feature.length.moments
        case _:
            return None


def rounded(profile: Profile) -> Profile:
    """Without what depends on how rows were divided: the mean and the squared deviations."""

    def without(number: Numeric) -> Numeric:
        return replace(number, moments=replace(number.moments, mean=0.0, m2=0.0))

    features: dict[str, Feature] = {}
    for name, feature in profile.features.items():
        match feature:
            case Numeric():
                features[name] = without(feature)
            case Text():
                features[name] = replace(feature, length=without(feature.length))
            case _:
                features[name] = feature
    return replace(profile, features=features)


def test_parts_folded_by_workers_add_up_to_the_profile_of_one_process(files: tuple[Path, Path], by: Workers) -> None:
    alone, spread = profiles(files, None), profiles(files, by)
    assert spread[0] == alone[0]
    assert rounded(spread[1]) == rounded(alone[1])
    assert spread[1].rows == 6_000
    assert spread[1].features["active"].absent.missing == 6_000
    for name, feature in alone[1].features.items():
        if (expected := moments_of(feature)) is not None:
            found = moments_of(spread[1].features[name])
            assert found is not None
            assert (found.mean, found.m2) == pytest.approx((expected.mean, expected.m2), rel=1e-12)


def test_cells_cut_by_some_of_the_rows_are_the_same_ones(
    files: tuple[Path, Path], by: Workers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(drift_files, "_SAMPLE", 2_000)
    by.client.run(set_sample, 2_000)
    try:
        alone, spread = profiles(files, None), profiles(files, by)
    finally:
        by.client.run(set_sample, 2_000_000)
    assert [rounded(one) for one in spread] == [rounded(one) for one in alone]


def set_sample(rows: int) -> None:
    from control_plane.embedded import drift_files

    drift_files._SAMPLE = rows


def test_the_report_is_the_same_to_the_bit(files: tuple[Path, Path], by: Workers) -> None:
    given: dict[str, Any] = {"policy": decide.Policy(), "types": {"note": FeatureType.TEXT}, "bins": 16}
    alone, spread = (drift.report(*files, **given, histograms=True, by=one) for one in (None, by))
    assert spread == alone
    assert alone["verdict"] == "fail"


def test_what_workers_cannot_read_is_refused(tmp_path: Path, files: tuple[Path, Path], by: Workers) -> None:
    (tmp_path / "now.csv").write_text("amount\n1\n")
    with pytest.raises(InvalidInput, match="Workers read Parquet"):
        drift.report(files[0], tmp_path / "now.csv", policy=decide.Policy(), types={}, bins=8, by=by)


def rows(count: int, seed: int) -> tuple[list[Any], np.ndarray, np.ndarray]:
    """Columns of every kind trees read, one of them constant and one empty; labels; weights."""
    rng = np.random.default_rng(seed)
    numbers = [rng.normal(size=count), rng.lognormal(size=count), rng.poisson(20, count).astype(float)]
    holes = np.where(rng.random(count) < 0.1, np.nan, rng.normal(size=count))
    kind = np.array([f"k{v}" for v in rng.integers(0, 5, count)], dtype=object)
    odds = numbers[0] + numbers[1] / 2 - numbers[2] / 20 + (kind == "k1") - 1
    label = (rng.random(count) < 1 / (1 + np.exp(-odds))).astype(float)
    return [*numbers, holes, np.full(count, 7.0), np.full(count, np.nan), kind], label, rng.random(count) + 0.1


DECLARED = {name: Declared(FeatureType.NUMBER, nullable=True) for name in "abcdef"} | {
    "kind": Declared(FeatureType.CATEGORY)
}


def fitted(seed: int, by: Workers | None, *, problem: Problem = Problem.BINARY, count: int = 3_000) -> tuple[Any, Any]:
    """What is fitted, and how it scores rows it has never seen."""
    import xgboost

    from training.common import trees

    (columns, label, weight), (judging, truth, _), unseen = (
        rows(count, seed),
        rows(900, seed + 1),
        rows(9_000, seed + 2),
    )
    outputs = 3 if problem is Problem.MULTICLASS else 1
    if problem is not Problem.BINARY:
        label, truth = (np.digitize(c[0], [-0.5, 0.5]) * 1.0 for c in (columns, judging))
    made = trees.Table(DECLARED, columns, label, outputs)
    given: dict[str, Any] = {"problem": problem, "outputs": outputs, "seed": seed, "threads": 1}
    found = trees.fit_xgboost(made, (judging, truth), weight if seed % 2 else None, **given, by=by)
    booster = xgboost.Booster()
    booster.load_model(bytearray(found.booster or b""))
    return found, booster.predict(xgboost.DMatrix(made.encoder.column_matrix(unseen[0])))


def same(alone: tuple[Any, Any], spread: tuple[Any, Any]) -> None:
    assert spread[0].rounds == alone[0].rounds > 20
    assert spread[0].columns == alone[0].columns
    np.testing.assert_allclose(spread[1], alone[1], rtol=0, atol=1e-6)


def test_trees_fitted_by_workers_answer_as_those_of_one_process(by: Workers) -> None:
    assert len(by.holders(3_000)) == 2
    same(fitted(1, None), fitted(1, by))


@pytest.mark.slow
@pytest.mark.parametrize("problem", [Problem.BINARY, Problem.MULTICLASS, Problem.REGRESSION])
@pytest.mark.parametrize("count", [1_100, 9_000, 40_000])
def test_so_they_do_for_every_problem_and_size(by: Workers, problem: Problem, count: int) -> None:
    for seed in (3, 4):
        same(fitted(seed, None, problem=problem, count=count), fitted(seed, by, problem=problem, count=count))


def doubled_once_killed(number: int, folder: Path, factor: int) -> int:
    """The worker that is given 3 first dies of it."""
    if number == 3:
        try:
            (folder / "died").touch(exist_ok=False)
        except FileExistsError:
            pass
        else:
            os.kill(os.getpid(), signal.SIGKILL)
    return number * factor


@pytest.mark.slow
def test_what_a_lost_worker_had_is_done_by_another(by: Workers, tmp_path: Path) -> None:
    found = by.each(doubled_once_killed, range(8), [tmp_path] * 8, shared=[2])
    assert found == [0, 2, 4, 6, 8, 10, 12, 14]
    assert (tmp_path / "died").exists()


@pytest.mark.slow
def test_a_worker_killed_in_the_middle_costs_time_and_nothing_else(by: Workers) -> None:
    """Whatever it was doing then: the training begins anew, with its successor."""
    alone, killed = fitted(2, None), list[int]()

    def kill() -> None:
        pids = by.client.run(os.getpid)
        while not any(str(key).startswith("fn-") for keys in by.client.processing().values() for key in keys):
            time.sleep(0.02)
        killed.append(next(iter(pids.values())))
        os.kill(killed[0], signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    spread = fitted(2, by)
    killer.join()
    assert killed[0] not in by.client.run(os.getpid).values()
    same(alone, spread)
