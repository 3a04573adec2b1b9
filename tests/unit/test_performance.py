from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, precision_score, recall_score

from control_plane.domain.performance import Answered, Scores, means_yes, scores

pairs = st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=60)


@given(pairs)
def test_binary_scores_agree_with_scikit_learn(rows: list[tuple[bool, bool]]) -> None:
    said, truth = zip(*rows, strict=True)
    found = scores(Answered(s, t, n) for (s, t), n in Counter(rows).items())
    assert found.labelled == len(rows)
    assert found.accuracy == pytest.approx(accuracy_score(truth, said))
    assert found.precision == (pytest.approx(precision_score(truth, said)) if any(said) else None)
    assert found.recall == (pytest.approx(recall_score(truth, said)) if any(truth) else None)


def test_labels_count_as_right_only_when_equal_and_nothing_is_made_up() -> None:
    found = scores([Answered("food", "food", 3), Answered("food", "rent", 1)])
    assert found == Scores(4, 0.75, None, None)
    assert scores([]) == Scores(0, None, None, None)


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
