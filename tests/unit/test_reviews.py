"""Reviews come sooner where a wrong answer costs more."""

from datetime import UTC, datetime

from control_plane.domain import reviews

AT = datetime(2026, 1, 1, tzinfo=UTC)


def test_the_more_a_model_matters_the_sooner_it_is_reviewed() -> None:
    dues = [reviews.due(materiality, AT) for materiality in ("high", "medium", "low")]
    assert dues == sorted(dues)
    assert (dues[0] - AT).days == 182
    assert len(set(dues)) == 3
