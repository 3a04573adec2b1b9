import math
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from control_plane.domain import truth
from control_plane.domain.model_config import Decision, Label, ModelConfig, Problem, Target
from control_plane.domain.truth import means_yes


@pytest.mark.parametrize(
    ("truth", "positive", "yes"),
    [
        (True, None, True),
        (0, None, False),
        (1.0, 1, True),
        (0.5, None, None),
        ("Yes", "Yes", True),
        ("No", "Yes", False),
        ("true", None, True),
        ("maybe", None, None),
        (2, 2, True),
        (1, 2, False),
        (False, "Yes", False),
    ],
)
def test_a_reported_truth_is_read_as_the_model_declares_it(
    truth: float | bool | str, positive: str | int | bool | None, yes: bool | None
) -> None:
    assert means_yes(truth, positive) is yes


reported = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5), st.just({"a": 1}))
labels = st.builds(
    Label,
    delay_s=st.integers(0, 10**7),
    absence_means=st.sampled_from(["negative", "unknown"]),
    depends_on_decision=st.booleans(),
)
configs = st.builds(
    ModelConfig,
    name=st.just("m"),
    problem=st.sampled_from(Problem),
    features=st.just({}),
    target=st.one_of(st.none(), st.builds(Target, st.just("y"), st.sampled_from([None, True, 1, 2, "Yes"]))),
    label=labels,
)
said = st.sampled_from([True, False, None])


@given(configs, reported, said)
def test_a_truth_is_in_the_terms_of_the_problem_or_nothing(
    config: ModelConfig, reported: object, said: bool | None
) -> None:
    found = truth.known(config, reported, said=said)
    kinds = {Problem.BINARY: bool, Problem.MULTICLASS: str, Problem.REGRESSION: float, Problem.OPAQUE: float}
    assert found is None or type(found) is kinds[config.problem]


@given(configs, reported.filter(lambda value: value is not None), said, said)
def test_what_was_reported_is_the_truth_whatever_was_said(
    config: ModelConfig, reported: object, one: bool | None, other: bool | None
) -> None:
    found = [truth.known(config, reported, said=said) for said in (one, other)]
    assert found[0] == found[1] or all(isinstance(value, float) and math.isnan(value) for value in found)


@given(configs, said)
def test_no_outcome_means_no_only_where_it_is_declared_and_the_decision_could_not_prevent_one(
    config: ModelConfig, said: bool | None
) -> None:
    label = config.label
    means_no = config.problem is Problem.BINARY and label.absence_means == "negative"
    means_no = means_no and (said is False or not label.depends_on_decision)
    assert truth.known(config, None, said=said) is (False if means_no else None)
    assert truth.absence_tells(config) or not means_no


@given(labels, st.integers(10**9, 4 * 10**9).map(lambda seconds: datetime.fromtimestamp(seconds, UTC)))
def test_an_answer_is_judged_from_the_moment_its_label_had_its_time(label: Label, now: datetime) -> None:
    assert truth.matured(label, now) + timedelta(seconds=label.delay_s) == now


@pytest.mark.parametrize(
    ("word", "above", "expected"),
    [("block", None, True), ("allow", True, False), ("other", True, True), (None, False, False), ("other", None, None)],
)
def test_a_decision_is_read_by_its_word_and_else_by_the_threshold(
    word: str | None, above: bool | None, expected: bool | None
) -> None:
    decision = Decision(positive="block", negative="allow")
    config = ModelConfig("m", Problem.BINARY, {}, decision=decision)
    assert truth.decided(config, word, above) is expected


def test_numbers_beyond_every_float_are_no_truth_of_a_regression() -> None:
    assert truth.known(ModelConfig("m", Problem.REGRESSION, {}), 10**400, said=None) is None
    assert means_yes(10**400, None) is None
