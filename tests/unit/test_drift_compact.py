"""Windows as bytes: nothing is lost on the way, and another reference's are refused."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from control_plane.domain.drift import compact, fold, profiles
from control_plane.domain.model_config import FeatureType

TYPES = {
    "amount": FeatureType.NUMBER,
    "country": FeatureType.CATEGORY,
    "active": FeatureType.BOOLEAN,
    "said": FeatureType.TEXT,
}
RNG = np.random.default_rng(3)
COUNTRIES = [f"c{i}" for i in RNG.zipf(1.5, 2_000) % 300]
COLUMNS: dict[str, fold.Column] = {
    "amount": RNG.normal(0, 1, 2_000),
    "country": COUNTRIES,
    "active": [bool(b) for b in RNG.integers(0, 2, 2_000)],
    "said": [f"hello {c}" for c in COUNTRIES],
}
GRID = fold.reference(
    COLUMNS, TYPES, cells=fold.Cells(bins=8, named=10), prediction=(FeatureType.NUMBER, RNG.random(2_000))
)
ROWS = st.lists(
    st.fixed_dictionaries(
        {},
        optional={
            "amount": st.one_of(st.floats(allow_nan=False), st.none(), st.just("text")),
            "country": st.one_of(st.sampled_from(COUNTRIES), st.text(), st.none()),
            "active": st.booleans(),
            "said": st.text(),
        },
    ),
    max_size=30,
)


@given(rows=ROWS)
def test_a_window_comes_back_as_it_was(rows: list[dict[str, object]]) -> None:
    window = fold.fold_rows(GRID, rows)
    assert compact.unpack(GRID, compact.pack(window)) == window


@given(left=ROWS, right=ROWS)
def test_stored_windows_add_up_like_unstored_ones(
    left: list[dict[str, object]], right: list[dict[str, object]]
) -> None:
    a, b = fold.fold_rows(GRID, left), fold.fold_rows(GRID, right)
    stored = [compact.unpack(GRID, compact.pack(window)) for window in (a, b)]
    assert profiles.merge(*stored) == profiles.merge(a, b)


def test_a_window_with_many_distinct_values_keeps_its_sketch() -> None:
    window = fold.fold(GRID, {"country": [f"value {i}" for i in range(3_000)]})
    assert compact.unpack(GRID, compact.pack(window)) == window


def test_a_window_of_another_reference_is_refused() -> None:
    fewer = fold.reference({"amount": COLUMNS["amount"]}, {"amount": FeatureType.NUMBER}, cells=fold.Cells())
    coarser = fold.reference(COLUMNS, TYPES, cells=fold.Cells(bins=4, named=4))
    data = compact.pack(profiles.empty_like(GRID))
    for other in (fewer, coarser):
        with pytest.raises(ValueError, match=r"reference|edges|longer|shorter"):
            compact.unpack(other, data)
    with pytest.raises(ValueError, match="not a window"):
        compact.unpack(GRID, b"{}")
