"""Files of any size are one thing: read whole or in pieces, they make the same profile."""

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


def test_what_is_no_table_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.parquet").write_text("no")
    (tmp_path / "y.ndjson").write_text("[1]\n")
    (tmp_path / "z.txt").write_text("")
    for name in ("x.parquet", "y.ndjson", "z.txt", "none.csv"):
        with pytest.raises(InvalidInput), drift_files.opened(tmp_path / name):
            pass


def test_a_report_brings_both_histograms_when_asked(path: Path) -> None:
    found = drift.report(path, path, policy=decide.Policy(), types={}, bins=8, histograms=True)
    assert found["verdict"] == "pass"
    assert found["left_out"] == ["when"]
    for feature in found["features"]:
        assert sum(feature["histogram"]["reference"]) == pytest.approx(1, abs=1e-4)
        assert feature["psi"] == 0.0
