"""Cron schedules beside the library the job queue uses."""

from datetime import UTC, datetime, timedelta

import pytest
from croniter import croniter
from hypothesis import given
from hypothesis import strategies as st

from control_plane.domain import cron

EXPRESSIONS = [
    "* * * * *", "0 3 * * 1", "*/15 6-18 * * 1-5", "30 2 1 * *", "0 0 29 2 *", "5,35 */6 * 1,7 *", "0 12 15 * 0",
    "0 4 1-7 * 7", "10/20 0 * * *",
]  # fmt: skip


@given(st.sampled_from(EXPRESSIONS), st.integers(0, 9 * 365 * 86_400))
def test_the_last_time_is_the_one_croniter_finds(expression: str, seconds: int) -> None:
    now = datetime(2021, 1, 1, tzinfo=UTC) + timedelta(seconds=seconds)
    beyond = now.replace(second=0, microsecond=0) + timedelta(minutes=1)
    assert cron.last_due(expression, now) == croniter(expression, beyond).get_prev(datetime)


@pytest.mark.parametrize(
    ("expression", "said"),
    [
        ("0 3 * *", "has 4 fields"),
        ("60 3 * * *", "minute: '60'"),
        ("0 x * * *", "hour: 'x'"),
        ("0 3 5-2 * *", "day of month: '5-2'"),
        ("*/0 3 * * *", "minute: '\\*/0'"),
        ("0 3 * * 8", "day of week: '8'"),
    ],
)
def test_a_field_that_cannot_be_read_is_named(expression: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        cron.parse(expression)


def test_a_day_that_never_comes_is_none() -> None:
    assert cron.last_due("0 0 31 2 *", datetime(2026, 1, 1, tzinfo=UTC)) is None
