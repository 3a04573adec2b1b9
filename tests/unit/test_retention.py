from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from control_plane.domain import retention

DAY = datetime(2026, 11, 1, tzinfo=UTC)
delays = st.lists(st.timedeltas(timedelta(), timedelta(days=90)), max_size=5)


@given(delays, st.timedeltas(timedelta(), timedelta(days=1)))
def test_no_day_leaves_before_the_label_of_its_last_answer_had_its_time_and_a_day_to_be_folded(
    delays: list[timedelta], at: timedelta
) -> None:
    ripe = retention.ripe_at(DAY, delays)
    assert all(DAY + at + delay + timedelta(days=1) <= ripe for delay in delays)
    assert ripe >= DAY + timedelta(days=2)


@given(delays, st.timedeltas(timedelta(), timedelta(days=90)))
def test_one_more_model_never_lets_a_day_go_sooner(delays: list[timedelta], more: timedelta) -> None:
    assert retention.ripe_at(DAY, [*delays, more]) >= retention.ripe_at(DAY, delays)


@given(st.timedeltas(timedelta(), timedelta(days=3)))
def test_an_hour_is_written_only_when_it_is_over_and_settled_and_again_once_a_day(since: timedelta) -> None:
    hour, now = DAY, DAY + since
    found = retention.due(now)
    assert (hour < found.begun_before) == (now > hour + timedelta(hours=1) + retention.SETTLE)
    assert (hour < found.written_before) == (now > hour + retention.REWRITE)
