import pytest

from control_plane.domain.performance import means_yes


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
