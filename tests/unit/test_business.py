"""What a prediction contributes to a business metric, against the cost matrix written out."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter

from control_plane.domain.business import contribution, expected_saving
from control_plane.domain.model_config import BusinessMetric, Costs, ModelConfig

CONFIG: dict[str, Any] = {
    "name": "fraud",
    "problem": "binary",
    "features": {"amount": {"type": "number"}},
    "decision": {"positive": "block", "negative": "approve"},
    "costs": {"false_positive": 5, "false_negative": 100, "true_positive": 2, "false_negative_column": "amount"},
}
MONEY = st.floats(-1_000, 1_000)


def given_by(metric: BusinessMetric, decision: str | None, amount: object, probability: float | None) -> float | None:
    config = TypeAdapter(ModelConfig).validate_python(CONFIG)
    return contribution(metric, config, decision=decision, features={"amount": amount}, probability=probability)


@given(st.floats(0, 1), MONEY, MONEY, MONEY, MONEY, st.none() | MONEY)
def test_the_saving_is_the_difference_of_two_expected_costs(
    p: float, fp: float, fn: float, tp: float, tn: float, amount: float | None
) -> None:
    costs = Costs(false_positive=fp, false_negative=fn, true_positive=tp, true_negative=tn)
    matrix = {(True, True): tp, (True, False): fp, (False, True): fn if amount is None else amount, (False, False): tn}
    expected = {acts: p * matrix[acts, True] + (1 - p) * matrix[acts, False] for acts in (True, False)}
    assert expected_saving(p, costs, amount) == pytest.approx(expected[False] - expected[True], abs=1e-9)


@pytest.mark.parametrize(
    ("metric", "decision", "amount", "probability", "expected"),
    [
        (BusinessMetric("count"), None, 1, None, 1.0),
        (BusinessMetric("count", decision="block"), "approve", 1, 0.1, None),
        (BusinessMetric("sum", feature="amount"), "approve", 12.5, 0.1, 12.5),
        (BusinessMetric("sum", feature="amount"), "approve", "12.5", 0.1, None),
        (BusinessMetric("sum", feature="amount"), "approve", True, 0.1, None),
        (BusinessMetric("expected_saving"), "approve", 50, 0.1, 0.0),
        (BusinessMetric("expected_saving"), "block", 50, 0.8, 0.8 * 50 - 0.8 * 2 - 0.2 * 5),
        (BusinessMetric("expected_saving"), "block", None, 0.8, 0.8 * 100 - 0.8 * 2 - 0.2 * 5),
        (BusinessMetric("expected_saving"), "block", 50, None, None),
    ],
)
def test_what_counts_and_what_does_not(
    metric: BusinessMetric, decision: str | None, amount: object, probability: float | None, expected: float | None
) -> None:
    found = given_by(metric, decision, amount, probability)
    assert found is None if expected is None else found == pytest.approx(expected)
