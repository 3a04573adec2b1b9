import json
import math
from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from control_plane.domain.drift import document, fold, profiles, sketches
from control_plane.domain.drift.fold import MISSING, Cells
from control_plane.domain.drift.profiles import Categorical, Numeric, Profile, Text
from control_plane.domain.model_config import FeatureType
from control_plane.errors import InvalidInput

TYPES = {
    "amount": FeatureType.NUMBER,
    "age": FeatureType.INTEGER,
    "country": FeatureType.CATEGORY,
    "new": FeatureType.BOOLEAN,
    "memo": FeatureType.TEXT,
}
CELLS = Cells(bins=4, named=2, tail=3)
numbers = st.one_of(
    st.floats(-1e6, 1e6), st.sampled_from([None, math.nan, math.inf, -math.inf, 1e200, "x", True, MISSING])
)
whole = st.one_of(st.integers(-5, 5), st.none())
countries = st.sampled_from(["DE", "FR", "IT", "ES", "PL", None, 3, MISSING])
memos = st.one_of(st.none(), st.text(max_size=12))
row = st.tuples(numbers, whole, countries, st.one_of(st.booleans(), st.none()), memos, st.floats(0, 1))
rows = st.lists(row, max_size=25)


def columns(data: list[tuple[object, ...]]) -> dict[str, list[object]]:
    return {name: [r[i] for r in data] for i, name in enumerate(TYPES)}


REFERENCE_ROWS: list[tuple[object, ...]] = [
    (float(i), i % 7, ["DE", "FR", "IT", "ES"][i % 4], i % 2 == 0, f"order {i}", i / 40) for i in range(40)
]
REFERENCE = fold.reference(
    columns(REFERENCE_ROWS),
    TYPES,
    cells=CELLS,
    ranges={"amount": (0.0, 100.0)},
    prediction=(FeatureType.NUMBER, [r[5] for r in REFERENCE_ROWS]),
)


def window(data: list[tuple[object, ...]]) -> Profile:
    return fold.fold(REFERENCE, columns(data), prediction=[r[5] for r in data])


def counted(profile: Profile) -> object:
    """Everything in a profile that is exact, as a comparable value."""
    document_ = document.to_json(profile)

    def strip(value: object) -> object:
        if isinstance(value, dict):
            return {k: strip(v) for k, v in value.items() if k not in {"mean", "m2"}}
        return value

    return strip(document_)


def moments_close(left: Profile, right: Profile) -> bool:
    for name in ("amount", "age"):
        a, b = left.features[name], right.features[name]
        assert isinstance(a, Numeric)
        assert isinstance(b, Numeric)
        scale = max(1.0, abs(a.moments.low), abs(a.moments.high)) if a.moments.count else 1.0
        if not math.isclose(a.moments.mean, b.moments.mean, rel_tol=1e-9, abs_tol=1e-9 * scale):
            return False
        if not math.isclose(a.moments.m2, b.moments.m2, rel_tol=1e-9, abs_tol=1e-9 * scale**2):
            return False
    return True


@given(rows, rows)
def test_merging_is_commutative_to_the_last_bit(a: list[tuple[object, ...]], b: list[tuple[object, ...]]) -> None:
    left, right = window(a), window(b)
    assert profiles.merge(left, right) == profiles.merge(right, left)


@given(rows, rows, rows)
def test_merging_is_associative(
    a: list[tuple[object, ...]], b: list[tuple[object, ...]], c: list[tuple[object, ...]]
) -> None:
    x, y, z = window(a), window(b), window(c)
    left = profiles.merge(profiles.merge(x, y), z)
    right = profiles.merge(x, profiles.merge(y, z))
    assert counted(left) == counted(right)
    assert moments_close(left, right)


@given(rows, st.integers(0, 25))
def test_fifty_parts_merge_to_the_profile_of_the_whole(data: list[tuple[object, ...]], cut: int) -> None:
    whole_window = window(data)
    parts = profiles.merge(window(data[:cut]), window(data[cut:]))
    assert counted(parts) == counted(whole_window)
    assert moments_close(parts, whole_window)
    assert profiles.merge(profiles.empty_like(REFERENCE), whole_window) == whole_window


@given(rows)
def test_every_row_is_counted_once_in_every_feature(data: list[tuple[object, ...]]) -> None:
    profile = window(data)
    assert profile.rows == len(data)
    assert {f.rows for f in profile.features.values()} <= {len(data)}


@given(rows)
def test_json_gives_the_same_profile_back(data: list[tuple[object, ...]]) -> None:
    for profile in (window(data), profiles.thin(window(data)), REFERENCE):
        text = json.dumps(document.to_json(profile), allow_nan=False)
        assert document.from_json(json.loads(text)) == profile


def test_a_profile_written_by_hand_is_enough() -> None:
    profile = document.from_json(
        {
            "format": 1,
            "rows": 10,
            "features": {
                "amount": {"type": "number", "nulls": 1, "edges": [0, 1, 2], "counts": [4, 5]},
                "country": {"type": "category", "nulls": 0, "categories": {"DE": 6, "FR": 3}, "other": 1},
            },
            "prediction": {"type": "number", "nulls": 0, "edges": [0.0, 1.0], "counts": [10]},
        }
    )
    amount, country = profile.features["amount"], profile.features["country"]
    assert isinstance(amount, Numeric)
    assert amount.counts == (0, 4, 5, 0)
    assert isinstance(country, Categorical)
    assert (country.counts, country.known) == ((6, 3, 1, 0), None)  # what "other" was is not recorded
    folded = fold.fold(profile, {"amount": [1.5, None], "country": ["XX", "DE"]})
    assert isinstance(unknown := folded.features["country"], Categorical)
    assert (unknown.other, unknown.unseen) == (1, 0)
    assert profiles.merge(profile, replace(folded, prediction=profile.prediction)).rows == 12


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"format": 2}, "format"),
        ({"rows": -1}, "rows"),
        ({"rows": True}, "rows"),
        ({"features": {"x": {"type": "date"}}}, "features.x.type"),
        ({"features": {"x": {"type": "number", "edges": [1, 0], "counts": [0, 1, 0]}}}, "features.x"),
        ({"features": {"x": {"type": "number", "edges": [0, 1], "counts": [1, 1]}}}, "features.x"),
        ({"features": {"x": {"type": "number", "edges": [0, math.nan], "counts": [1]}}}, "features.x.edges"),
        ({"features": {"x": {"type": "category", "categories": {"a": 1.5}}}}, "features.x.categories.a"),
        ({"features": {"x": {"type": "category", "categories": {}, "other": 3, "tail": [1]}}}, "features.x.tail"),
        ({"features": {"x": {"type": "category", "categories": {}, "distinct": "%"}}}, "features.x.distinct"),
        ({"features": {"x": {"type": "text"}}}, "features.x.words"),
        ({"features": []}, "features"),
        ({"features": {"x": {"type": "number", "edges": [0, 10**400], "counts": [1]}}}, "features.x.edges"),
    ],
)
def test_a_document_that_cannot_be_read_names_the_member(change: dict[str, object], named: str) -> None:
    with pytest.raises(InvalidInput, match=named.replace(".", r"\.")):
        document.from_json({"format": 1, "rows": 0, "features": {}} | change)


def test_profiles_of_different_references_refuse_to_merge() -> None:
    def reference(name: str, values: list[float]) -> Profile:
        return fold.reference({name: values}, {name: FeatureType.NUMBER}, cells=CELLS)

    one = reference("x", [1.0, 2.0, 3.0])
    for other in (reference("y", [1.0, 2.0, 3.0]), reference("x", [1.0, 2.0, 4.0])):
        with pytest.raises(ValueError, match="different references"):
            profiles.merge(one, other)
    text = replace(one, features={"x": REFERENCE.features["memo"]})
    with pytest.raises(ValueError, match="cannot be merged"):
        profiles.merge(one, text)


@given(st.lists(st.floats(-1e3, 1e3), min_size=2, max_size=40), st.integers(1, 39))
def test_merged_moments_are_those_of_the_whole(values: list[float], cut: int) -> None:
    def moments(part: list[float]) -> profiles.Moments:
        column = np.array(part, dtype=np.float64)
        return fold.fold_numbers(Numeric(FeatureType.NUMBER, (), (0,)), column, absent=profiles.Absent()).moments

    merged = profiles.merge_moments(moments(values[:cut]), moments(values[cut:]))
    assert merged.count == len(values)
    assert (merged.low, merged.high) == (min(values), max(values))
    assert merged.mean == pytest.approx(float(np.mean(values)), abs=1e-9)
    assert merged.variance == pytest.approx(float(np.var(values, ddof=1)), rel=1e-9, abs=1e-7)


def test_the_hash_is_frozen() -> None:
    assert sketches.hash64("DE") == 0xD9EDF835685C388A  # printf DE | b2sum -l 64


@pytest.mark.parametrize("size", [1, 10, 100, 1_000, 3_000, 10_000, 100_000])
def test_the_distinct_estimate_keeps_its_stated_error(size: int) -> None:
    hashes = [sketches.hash64(f"value-{i}") for i in range(size)]
    half = sketches.add_distinct(sketches.empty_distinct(), hashes[: size // 2])
    rest = sketches.add_distinct(sketches.empty_distinct(), hashes[size // 2 :] * 2)
    estimate = sketches.distinct(sketches.merge_distinct(half, rest))
    assert estimate == pytest.approx(size, rel=4 * sketches.DISTINCT_ERROR, abs=0.5)
    assert sketches.distinct(sketches.empty_distinct()) == 0


def test_a_member_is_never_denied_and_strangers_rarely_pass() -> None:
    known = [sketches.hash64(f"known-{i}") for i in range(10_000)]
    sketch = sketches.members(known)
    assert all(sketches.is_member(sketch, value) for value in known)
    strangers = 20_000
    passed = sum(sketches.is_member(sketch, sketches.hash64(f"stranger-{i}")) for i in range(strangers))
    rate = sketches.false_member_rate(sketch)
    assert rate < 0.02
    assert passed / strangers == pytest.approx(rate, abs=5 * math.sqrt(rate / strangers))
    assert not sketches.is_member(b"", known[0])


def test_words_and_lengths_of_texts_are_profiled() -> None:
    text = window([(1.0, 1, "DE", True, "order 3, order 4", 0.1), (1.0, 1, "DE", True, None, 0.1)]).features["memo"]
    assert isinstance(text, Text)
    assert Counter(text.words.categories)["order"] == 2
    assert text.words.other == 2
    assert (text.rows, text.absent.nulls, text.length.moments.high) == (2, 1, 16.0)


@pytest.mark.parametrize("found", [[], None, "profile"])
def test_a_document_that_is_no_object_is_refused(found: Any) -> None:
    with pytest.raises(InvalidInput, match="profile"):
        document.from_json(found)
