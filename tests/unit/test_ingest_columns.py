"""Answers as JSON become columns; customers of a day become hashes that are claimed once."""

import json
from datetime import date
from hashlib import blake2b
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from control_plane.domain.drift import fold
from control_plane.domain.model_config import FeatureType
from control_plane.ingest import blocks
from control_plane.ingest.blocks import _Seen  # pyright: ignore[reportPrivateUsage]
from control_plane.ingest.columns import Reader

GRID = fold.reference(
    {"an amount": [1.0, 2.0, 5.0] * 5, "n": [1, 2, 3] * 5, "b": [True, False, True] * 5, "c": ["x", "y", "z"] * 5},
    {
        "an amount": FeatureType.NUMBER,
        "n": FeatureType.INTEGER,
        "b": FeatureType.BOOLEAN,
        "c": FeatureType.CATEGORY,
    },
    cells=fold.Cells(bins=4),
    prediction=(FeatureType.NUMBER, np.linspace(0, 1, 15)),
)
ODD = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(max_size=3),
    st.just([1]),
)
USUAL = st.fixed_dictionaries(
    {},
    optional={
        "an amount": st.none() | st.floats(-1e9, 1e9) | st.integers(-5, 5),
        "n": st.none() | st.integers(-(10**20), 10**20),
        "b": st.none() | st.booleans(),
        "c": st.none() | st.text(max_size=3),
        "more": ODD,
    },
)


@settings(max_examples=150)
@given(st.lists(USUAL, min_size=1, max_size=8), st.booleans(), ODD)
def test_columns_of_any_answers_are_what_counting_row_by_row_gives(
    rows: list[dict[str, Any]], odd: bool, value: Any
) -> None:
    """Read by type where all fit, slowly where one does not: the same profile."""
    if odd:
        rows = [*rows, {"an amount": value, "n": value, "b": value, "c": value}]
    made = Reader(GRID).columns([json.dumps(row) for row in rows])
    assert fold.fold(GRID, made).features == fold.fold_rows(GRID, rows).features


@pytest.mark.parametrize("features", ["[1, 2]", "7", None])
def test_features_that_are_no_object_count_as_missing(features: str | None) -> None:
    made = fold.fold(GRID, Reader(GRID).columns(['{"n": 1}', features]))
    assert [made.features[name].absent.missing for name in GRID.features] == [2, 1, 2, 2]


@pytest.mark.parametrize(
    ("output", "value"),
    [
        ('{"probability": 0.25, "label": "no"}', 0.25),
        ('{"value": 0.5}', 0.5),
        ("0.75", 0.75),
        (None, None),
        ("{}", None),
    ],
)
def test_the_answer_is_the_score_or_the_value(output: str | None, value: float | None) -> None:
    answers = Reader(GRID).answers(['{"probability": 0.5}', output])
    assert answers is not None
    assert list(np.nan_to_num(np.array(answers, dtype=np.float64), nan=-1.0)) == [0.5, -1.0 if value is None else value]


def test_a_customer_has_one_hash_a_day_and_another_the_next() -> None:
    day = date(2026, 3, 2)
    found = blocks.hashed(["a", "b", "a", "\udc80"], day)
    assert found[0] == found[2] != found[1]
    expected = blake2b(b"a", digest_size=8, key=b"2026-03-02").digest()
    assert found[0] == int.from_bytes(expected, "big", signed=True)
    assert blocks.hashed(["a"], date(2026, 3, 3))[0] != found[0]


def test_what_is_remembered_is_found_again_whichever_run_it_is_in() -> None:
    rng, seen, known = np.random.default_rng(1), _Seen(), set[int]()
    for size in (1, 40_000, 30_000, 10, 70_000, 5_000):
        new = np.setdiff1d(rng.integers(-(2**63), 2**63 - 1, size), list(known))
        assert not seen.has(new).any()
        seen.add(new)
        known |= set(new.tolist())
    assert len(seen.settled) > 0 < len(seen.recent)
    assert len(seen) == len(known)
    assert seen.has(np.array(sorted(known))).all()
