"""A reference out of answers: what they say decides how predictions are counted, and no row is lost."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from control_plane.domain.drift import first_traffic
from control_plane.domain.drift.profiles import Categorical, Numeric
from control_plane.domain.model_config import Feature, FeatureType, ModelConfig, Problem

CONFIG = ModelConfig(
    "m",
    Problem.BINARY,
    {"amount": Feature(FeatureType.NUMBER), "country": Feature(FeatureType.CATEGORY)},
)
values = st.one_of(st.none(), st.booleans(), st.floats(-1e6, 1e6), st.text(max_size=3))
outputs = st.one_of(
    values, st.dictionaries(st.sampled_from(["label", "probability", "value"]), values, max_size=3), st.just([1.0])
)
bodies = st.dictionaries(st.sampled_from(["amount", "country", "other"]), values, max_size=3)


@given(st.lists(st.tuples(bodies, outputs), min_size=2, max_size=40))
def test_any_answers_make_a_reference_that_counts_every_row(rows: list[tuple[dict[str, Any], object]]) -> None:
    made = first_traffic.reference(CONFIG, [body for body, _ in rows], [output for _, output in rows])
    assert made.rows == len(rows)
    assert set(made.features) == {"amount", "country"}
    assert all(feature.rows == len(rows) for feature in made.features.values())
    assert made.prediction is None or made.prediction.rows == len(rows)


@pytest.mark.parametrize(
    ("told", "kind"),
    [
        ([{"label": "a", "probability": 0.5}] * 3 + [{"probability": 0.5}], Categorical),
        ([{"label": "a", "probability": 0.5}] + [{"probability": 0.25}] * 3, Numeric),
        ([{"value": 2}, {"value": 3.5}], Numeric),
        ([1.5, 2.5], Numeric),
        ([{"probability": True}, {"probability": "0.5"}], None),
        ([{"value": [1.0]}, None], None),
    ],
)
def test_predictions_are_counted_by_class_where_most_name_one_and_else_by_the_number_they_give(
    told: list[object], kind: type | None
) -> None:
    made = first_traffic.reference(CONFIG, [{"amount": 1.0, "country": "fr"}] * len(told), told).prediction
    assert made is None if kind is None else isinstance(made, kind)
