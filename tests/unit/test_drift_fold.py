import math
import time
from collections import Counter

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from scipy import stats

from control_plane.domain.drift import fold, scores
from control_plane.domain.drift.fold import MISSING, Cells
from control_plane.domain.drift.profiles import Absent, Categorical, Numeric, Text
from control_plane.domain.model_config import FeatureType

CELLS = Cells(bins=8, named=3, tail=4)
finite = st.one_of(st.floats(-1e5, 1e5), st.integers(-4, 4).map(float))


def numeric(values: object, *, bins: int = 8, **more: object) -> Numeric:
    folded = fold.reference_feature(values, FeatureType.NUMBER, cells=Cells(bins=bins), **more)  # type: ignore[arg-type]
    assert isinstance(folded, Numeric)
    return folded


@given(st.lists(finite, min_size=1, max_size=80), st.lists(finite, max_size=80), st.integers(1, 10))
def test_cells_hold_what_one_comparison_per_value_gives(reference: list[float], window: list[float], bins: int) -> None:
    grid = numeric(np.array(reference), bins=bins)
    folded = fold.fold_feature(grid, np.array(window))
    assert isinstance(folded, Numeric)
    # The documented rule, value by value, in the precision the edges ask for.
    kind = np.float32 if fold.single_precision(grid.edges) else np.float64
    edges = [kind(e) for e in grid.edges]
    expected = [0] * (len(edges) + 1)
    for value in (kind(v) for v in window):
        if value < edges[0]:
            expected[0] += 1
        elif value > edges[-1]:
            expected[-1] += 1
        else:
            expected[min(sum(1 for e in edges if e <= value), max(1, len(edges) - 1))] += 1
    assert list(folded.counts) == expected


@given(st.lists(finite, min_size=1, max_size=80), st.integers(1, 10))
@example([0.0, 5e-324], 2)  # nothing lies between them
def test_the_reference_itself_lies_inside_its_edges(values: list[float], bins: int) -> None:
    grid = numeric(np.array(values), bins=bins)
    assert grid.counts[0] == grid.counts[-1] == 0
    assert sum(grid.counts) == len(values)
    assert len(grid.edges) <= bins + 1
    kind = np.float32 if fold.single_precision(grid.edges) else np.float64
    if len(atoms := Counter(kind(v) for v in values)) <= bins:
        assert sorted(c for c in grid.counts if c) == sorted(atoms.values())


def test_quantile_cells_are_about_equally_filled() -> None:
    values = np.random.default_rng(1).lognormal(size=100_000)
    counts = numeric(values, bins=16).counts[1:-1]
    assert len(counts) == 16
    assert max(abs(c - 6_250) for c in counts) <= 2


def test_single_precision_is_taken_only_where_it_tells_the_edges_apart() -> None:
    assert fold.single_precision(numeric(np.random.default_rng(1).normal(size=10_000)).edges)
    assert not fold.single_precision(numeric(1.7e9 + np.arange(1_000.0)).edges)  # one step of float32 is 128 there
    assert not fold.single_precision((1e300, 2e300))
    stamps = numeric(1.7e9 + np.arange(1_000.0))
    assert max(stamps.counts) <= 126


def test_what_is_no_number_is_counted_by_kind() -> None:
    grid = numeric(np.arange(100.0), range=(0.0, 50.0))
    column = [1.0, None, math.nan, "7", True, [1], MISSING, math.inf, -math.inf, 10**400, 60, np.float32(2), -1.0]
    folded = fold.fold_feature(grid, column)
    assert isinstance(folded, Numeric)
    assert folded.absent == Absent(nulls=2, missing=1, mistyped=3)
    assert folded.huge == 3
    assert (folded.counts[0], folded.counts[-1]) == (2, 2)
    assert folded.outside == 5  # both infinities, the huge integer, 60 and -1
    assert (folded.moments.count, folded.moments.low, folded.moments.high) == (4, -1.0, 60.0)
    assert folded.rows == len(column)


def test_categories_beyond_the_named_ones_are_counted_by_hash_and_new_ones_apart() -> None:
    values = [*(["a"] * 5), *(["b"] * 4), *(["c"] * 3), *(["d"] * 2), "e", "f"]
    grid = fold.reference_feature(values, FeatureType.CATEGORY, cells=CELLS)
    assert isinstance(grid, Categorical)
    assert (dict(grid.categories), grid.other, grid.unseen, grid.once) == ({"a": 5, "b": 4, "c": 3}, 4, 0, 2)
    window = fold.fold_feature(grid, ["a", "d", "new", "newer", None, 3, MISSING, math.nan, True])
    assert isinstance(window, Categorical)
    assert (window.categories["a"], window.other, window.unseen) == (1, 1, 3)  # "true" is a value of its own
    assert window.absent == Absent(nulls=2, missing=1, mistyped=1)


def test_true_and_one_are_different_values() -> None:
    grid = fold.reference_feature([True, False], FeatureType.BOOLEAN, cells=CELLS)
    window = fold.fold_feature(grid, [True, 1, 1.0, "true", np.bool_(False)])
    assert isinstance(window, Categorical)
    assert (dict(window.categories), window.absent.mistyped) == ({"false": 1, "true": 2}, 2)


def test_a_text_is_cut_into_words_and_a_long_one_is_bounded() -> None:
    grid = fold.reference_feature(["Card payment", "card PAYMENT abroad"], FeatureType.TEXT, cells=CELLS)
    window = fold.fold_feature(grid, ["card " * 10_000, "neu", None])
    assert isinstance(window, Text)
    assert (window.words.categories["card"], window.words.unseen) == (256, 1)
    assert (window.length.rows, window.absent.nulls) == (3, 1)


def test_a_feature_the_window_does_not_have_counts_every_row_as_missing() -> None:
    types = {"x": FeatureType.NUMBER, "t": FeatureType.TEXT, "c": FeatureType.CATEGORY}
    grid = fold.reference({"x": [1.0], "t": ["a"], "c": ["b"], "unknown": [1]}, types, cells=CELLS)
    folded = fold.fold(grid, {"other": [1, 2, 3]})
    assert {f.absent.missing for f in folded.features.values()} == {3}
    rows = fold.fold_rows(grid, [{"x": 1.0}, {"t": "a", "c": "b"}])
    assert [f.absent.missing for f in rows.features.values()] == [1, 1, 1]
    assert fold.fold_rows(grid, []).rows == 0


def test_columns_of_different_length_or_undeclared_are_a_mistake_of_the_programmer() -> None:
    with pytest.raises(ValueError, match="differ in length"):
        fold.reference({"x": [1.0], "y": [1.0, 2.0]}, {"x": FeatureType.NUMBER}, cells=CELLS)
    with pytest.raises(ValueError, match="no column for"):
        fold.reference({"x": [1.0]}, {"y": FeatureType.NUMBER}, cells=CELLS)
    for bad in ({"bins": 0}, {"named": 0}, {"tail": 0}):
        with pytest.raises(ValueError, match="at least 1"):
            Cells(**bad)


def test_a_reference_without_any_value_has_one_cell_for_whatever_comes() -> None:
    grid = numeric([None, math.nan, math.inf])
    assert (grid.edges, grid.counts, grid.huge) == ((), (1,), 1)
    folded = fold.fold_feature(grid, [1.0, 2.0])
    assert isinstance(folded, Numeric)
    assert folded.counts == (2,)


@pytest.mark.parametrize("shift", [0.0, 0.1, 0.25, 1.0])
@pytest.mark.parametrize("kind", ["normal", "lognormal", "mixture", "integer", "zero-inflated"])
def test_binned_ks_is_within_half_a_percent_of_the_exact_one_with_64_cells(kind: str, shift: float) -> None:
    rng = np.random.default_rng(7)

    def draw(offset: float) -> np.ndarray:
        n = 50_000
        match kind:
            case "normal":
                return rng.normal(offset, 1, n)
            case "lognormal":
                return rng.lognormal(offset, 1, n)
            case "mixture":
                return np.where(rng.random(n) < 0.3, rng.normal(-3, 0.2, n), rng.normal(offset, 1, n))
            case "integer":
                return rng.poisson(3 + offset, n).astype(float)
            case _:
                return np.where(rng.random(n) < 0.7 - offset / 5, 0.0, rng.exponential(1, n))

    a, b = np.sort(draw(0.0)), np.sort(draw(shift))
    grid = numeric(a, bins=64)
    window = fold.fold_feature(grid, b)
    assert isinstance(window, Numeric)
    exact = stats.ks_2samp(a, b, method="asymp").statistic
    assert scores.ks_exact(a, b) == pytest.approx(exact, abs=1e-12)
    assert scores.ks_binned(grid.counts, window.counts).value == pytest.approx(exact, abs=0.005)


@pytest.mark.slow
def test_a_million_rows_of_thirty_columns_fold_in_seconds_on_one_core() -> None:
    rng = np.random.default_rng(3)
    columns = {f"x{i}": rng.normal(size=1_000_000) for i in range(25)}
    columns |= {f"c{i}": rng.integers(0, 50, 1_000_000).astype("U3") for i in range(5)}
    types = {name: FeatureType.NUMBER if name[0] == "x" else FeatureType.CATEGORY for name in columns}
    start = time.process_time()
    grid = fold.reference(columns, types, cells=Cells())
    fold.fold(grid, columns)
    assert time.process_time() - start < 6
