"""How much a worker takes on at once."""

from hypothesis import given
from hypothesis import strategies as st

from control_plane.router.load import LATE_LEAST, LEAST, Load


def looks(load: Load, *, mean_s: float, times: int = 1, late: int = 0, count: int = 20, most: int = 512) -> None:
    for _ in range(times):
        load.late = late
        load.adapt(load.answered + count, load.seconds + count * mean_s, deadline_s=0.5, most=most)


def test_answers_in_time_leave_it_at_its_most() -> None:
    load = Load(512)
    looks(load, mean_s=0.2, times=10)
    assert load.limit == 512


def test_answers_that_wait_for_their_turn_lower_it_below_what_is_under_way_until_they_are_in_time() -> None:
    load = Load(512, in_flight=100)
    looks(load, mean_s=0.1)
    looks(load, mean_s=0.4, times=2)
    assert load.limit == 70
    looks(load, mean_s=0.4, times=50)
    assert load.limit == LEAST
    looks(load, mean_s=0.1, times=100)
    assert load.limit == 512


def test_a_machine_that_stood_still_once_refuses_nobody() -> None:
    load = Load(512, in_flight=20)
    for _ in range(10):
        looks(load, mean_s=0.01, times=3)
        looks(load, mean_s=0.4)
        looks(load, mean_s=0.01)
        looks(load, mean_s=0.01, late=20)
    assert load.limit == 512


def test_a_model_that_is_slow_by_itself_is_no_overload() -> None:
    load = Load(512, in_flight=100)
    looks(load, mean_s=0.4, times=100)
    assert load.limit == 512


def test_predictions_without_an_answer_lower_it_and_a_single_one_does_not() -> None:
    load = Load(512, in_flight=50)
    looks(load, mean_s=0.1, late=LATE_LEAST - 1)
    assert load.limit == 512
    looks(load, mean_s=0.1, late=LATE_LEAST, count=100)
    assert load.limit == 512, "few among many"
    looks(load, mean_s=0.1, late=LATE_LEAST, times=2)
    assert load.limit == 35


def test_a_smaller_most_of_a_later_snapshot_holds_at_once() -> None:
    load = Load(512)
    load.adapt(0, 0.0, deadline_s=0.5, most=4)
    assert load.limit == 4


@given(st.lists(st.tuples(st.floats(0, 2), st.integers(0, 600), st.integers(0, 30)), max_size=60), st.integers(1, 600))
def test_it_stays_within_its_bounds(times: list[tuple[float, int, int]], most: int) -> None:
    load = Load(most)
    for mean, under_way, late in times:
        load.in_flight = under_way
        looks(load, mean_s=mean, late=late, most=most)
        assert min(LEAST, most) <= load.limit <= most
