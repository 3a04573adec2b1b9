"""Files of any size are one thing: read whole or in pieces, they make the same profile."""

import math
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

from control_plane.domain.drift import decide, fold
from control_plane.domain.drift.profiles import Categorical, Numeric, Profile
from control_plane.domain.model_config import FeatureType
from control_plane.embedded import drift, drift_files
from control_plane.errors import InvalidInput

RNG = np.random.default_rng(2)
ROWS = 5_000
TABLE = pa.table(
    {
        "amount": RNG.normal(0, 1, ROWS),
        "count": pa.array([None if i % 50 == 0 else int(v) for i, v in enumerate(RNG.poisson(30, ROWS))]),
        "country": pa.array([None if i % 40 == 0 else f"c{v}" for i, v in enumerate(RNG.zipf(1.5, ROWS) % 300)]),
        "coded": pa.array([f"k{v}" for v in RNG.integers(0, 5, ROWS)]).dictionary_encode(),
        "active": pa.array((RNG.random(ROWS) < 0.3).tolist()),
        "when": pa.array(np.arange(ROWS).astype("datetime64[s]")),
    }
)
KINDS = {
    "amount": FeatureType.NUMBER,
    "count": FeatureType.INTEGER,
    "country": FeatureType.CATEGORY,
    "coded": FeatureType.CATEGORY,
    "active": FeatureType.BOOLEAN,
}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    pq.write_table(TABLE, tmp_path / "rows.parquet", row_group_size=700)
    return tmp_path / "rows.parquet"


def profile(path: Path) -> Profile:
    with drift_files.opened(path) as file:
        assert file.kinds["when"] is None
        return drift_files.reference(file, KINDS, cells=fold.Cells(bins=8))


def folded(path: Path, grid: Profile) -> Profile:
    with drift_files.opened(path) as file:
        return drift_files.window(file, grid)


def test_columns_read_as_arrays_are_what_rows_of_values_are(path: Path) -> None:
    by_rows = fold.reference({name: TABLE.column(name).to_pylist() for name in KINDS}, KINDS, cells=fold.Cells(bins=8))
    assert profile(path).features == by_rows.features


def test_a_file_read_in_pieces_makes_the_same_profile(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    grid = profile(path)
    monkeypatch.setattr(drift_files, "_VALUES", 2_000)  # fewer values than one column has
    pieces = folded(path, grid)
    for name, feature in grid.features.items():
        found = pieces.features[name]
        assert decide.cell_counts(found).tolist() == decide.cell_counts(feature).tolist(), name
        if isinstance(feature, Numeric) and isinstance(found, Numeric):
            assert found.moments.mean == pytest.approx(feature.moments.mean)
    monkeypatch.setattr(drift_files, "_SAMPLE", 600)  # every eighth row cuts the cells
    streamed = profile(path)
    for name, feature in streamed.features.items():
        if isinstance(feature, Categorical):
            assert feature == grid.features[name]
        assert feature.rows == ROWS
    assert decide.compare(streamed, folded(path, streamed), decide.Policy()).verdict == "pass"


def test_large_text_files_are_turned_first_and_say_the_same(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ["amount", "country"]
    pyarrow.csv.write_csv(TABLE.select(names), tmp_path / "rows.csv")
    TABLE.select(names).to_pandas().to_json(tmp_path / "rows.ndjson", orient="records", lines=True, double_precision=15)
    grid = profile(path)
    whole = [folded(tmp_path / f"rows.{kind}", grid) for kind in ("csv", "ndjson")]
    monkeypatch.setattr(drift_files, "_WHOLE_BYTES", 1_000)
    monkeypatch.setattr(drift_files, "_LINES", 900)
    turned = [folded(tmp_path / f"rows.{kind}", grid) for kind in ("csv", "ndjson")]
    for name in names:
        counts = [decide.cell_counts(p.features[name]).tolist() for p in (*whole, *turned)]
        assert counts[0] == counts[2]
        assert counts[1] == counts[3]
    assert folded(path, grid).rows == ROWS


def test_columns_of_another_type_all_nulls_or_missing_are_counted_for_what_they_are(tmp_path: Path, path: Path) -> None:
    odd = pa.table({"amount": ["a", "b", None], "count": pa.nulls(3), "country": [1, 2, 3]})
    pq.write_table(odd, tmp_path / "odd.parquet")
    found = folded(tmp_path / "odd.parquet", profile(path)).features
    assert (found["amount"].absent.mistyped, found["amount"].absent.nulls) == (2, 1)
    assert found["count"].absent.nulls == 3
    assert found["country"].absent.mistyped == 3
    assert found["active"].absent.missing == 3


def test_a_folder_of_files_is_one_table(tmp_path: Path, path: Path) -> None:
    (tmp_path / "days").mkdir()
    for day in range(3):
        pq.write_table(TABLE.slice(day * 2_000, 2_000), tmp_path / "days" / f"{day}.parquet", row_group_size=300)
    (tmp_path / "days" / "_SUCCESS").touch()
    grid = profile(path)
    whole, parts = folded(path, grid), folded(tmp_path / "days", grid)
    assert parts == whole
    assert profile(tmp_path / "days") == grid


def test_files_of_a_folder_that_do_not_agree_are_refused(tmp_path: Path) -> None:
    pq.write_table(pa.table({"a": [1], "b": [2]}), tmp_path / "0.parquet")
    pq.write_table(pa.table({"a": [1.5], "b": [2]}), tmp_path / "1.parquet")
    with (
        pytest.raises(InvalidInput, match=r"1\.parquet has not the columns of 0\.parquet: a\."),
        drift_files.opened(tmp_path),
    ):
        pass
    (tmp_path / "none").mkdir()
    with pytest.raises(InvalidInput, match=r"no \.parquet file"), drift_files.opened(tmp_path / "none"):
        pass


def test_what_is_no_table_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.parquet").write_text("no")
    (tmp_path / "y.ndjson").write_text("[1]\n")
    (tmp_path / "z.txt").write_text("")
    for name in ("x.parquet", "y.ndjson", "z.txt", "none.csv"):
        with pytest.raises(InvalidInput), drift_files.opened(tmp_path / name):
            pass


def test_columns_named_twice_are_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "twice.csv").write_text("a,b,a\n1,2,3\n")
    with pytest.raises(InvalidInput, match="more than once: a"), drift_files.opened(tmp_path / "twice.csv"):
        pass


def test_lines_of_json_may_hold_large_integers_and_any_line_separator_and_no_deep_nest(tmp_path: Path) -> None:
    lines = tmp_path / "lines.ndjson"
    large = f'{{"a": {2**70}, "b": "z"}}'
    lines.write_text('{"a": 1, "b": "x\u2028y"}\n' + large + "\n", encoding="utf-8")
    with drift_files.opened(lines) as file:
        assert (file.rows, dict(file.kinds)) == (2, {"a": FeatureType.NUMBER, "b": FeatureType.CATEGORY})
    lines.write_text("[" * 100_000)
    with pytest.raises(InvalidInput, match="line 1 is nested too deeply"), drift_files.opened(lines):
        pass


def test_a_reference_of_nothing_is_named_and_nothing_is_said_to_have_stayed(tmp_path: Path) -> None:
    pq.write_table(pa.table({"a": pa.nulls(3_000), "b": [math.inf] * 3_000, "c": range(3_000)}), tmp_path / "r.parquet")
    pq.write_table(pa.table({"a": [0.5] * 3_000, "b": [0.5] * 3_000, "c": range(3_000)}), tmp_path / "now.parquet")
    paths = (tmp_path / "r.parquet", tmp_path / "now.parquet")
    found = drift.report(*paths, policy=decide.Policy(), types={}, bins=8, histograms=False)
    verdicts = {feature["name"]: (feature["verdict"], feature["psi"]) for feature in found["features"]}
    assert (verdicts["a"], verdicts["b"]) == (("inconclusive", None), ("inconclusive", None))
    assert verdicts["c"] == ("pass", 0.0)


def test_a_report_brings_both_histograms_when_asked(path: Path) -> None:
    found = drift.report(path, path, policy=decide.Policy(), types={}, bins=8, histograms=True)
    assert found["verdict"] == "pass"
    assert found["left_out"] == ["when"]
    for feature in found["features"]:
        assert sum(feature["histogram"]["reference"]) == pytest.approx(1, abs=1e-4)
        assert feature["psi"] == 0.0
