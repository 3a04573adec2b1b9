import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from control_plane.errors import InvalidData
from training.common import data, split

_DAY = 86_400_000_000  # microseconds


@settings(max_examples=50)
@given(st.integers(0, 10_000), st.integers(500, 900), st.integers(0, 15), st.sampled_from([0.2, 0.4]))
def test_nothing_is_learnt_from_a_label_nobody_knew_yet(seed: int, rows: int, delay_days: int, share: float) -> None:
    rng = np.random.default_rng(seed)
    times = rng.integers(0, 200, rows) * _DAY
    known = rng.random(rows) < 0.95
    parts = split.by_time(times, known, delay_s=delay_days * 86_400, test_share=share)
    begin, turn = times[parts.holdout].min(), times[parts.validation].min()
    assert (times[parts.train] + delay_days * _DAY <= begin).all()
    assert (times[parts.fit] + delay_days * _DAY <= turn).all()
    assert set(parts.fit) | set(parts.validation) <= set(parts.train)
    assert not set(parts.train) & set(parts.holdout)
    assert not set(parts.fit) & set(parts.validation)
    assert known[np.r_[parts.train, parts.holdout]].all()
    assert len(parts.holdout) >= share * known.sum() - 1
    assert set(np.flatnonzero(known & (times >= begin))) == set(parts.holdout)  # no instant is divided


def test_dates_of_model_yaml_decide_where_they_are_given() -> None:
    times = np.arange(300) * _DAY
    parts = split.by_time(
        times, np.ones(300, bool), delay_s=0, test_share=0.9, test_from="1970-09-01", train_from="1970-02-01"
    )
    warm = split.by_time(times, np.ones(300, bool), delay_s=0, test_share=0.3, warm_up_days=60)
    assert min(warm.train.min(), warm.fit.min()) == 60
    assert parts.holdout.min() == 243
    assert parts.train.min() == 31
    assert parts.train.max() == 242


@given(st.integers(0, 10_000), st.integers(250, 500))
def test_a_unit_never_sits_on_both_sides(seed: int, rows: int) -> None:
    rng = np.random.default_rng(seed)
    units = rng.integers(0, rows // 2, rows)
    parts = split.at_random(np.ones(rows, bool), units, test_share=0.3, rng=rng)
    sides = [set(units[part]) for part in (parts.fit, parts.validation, parts.holdout)]
    assert len(set.union(*sides)) == sum(map(len, sides))
    assert sorted([*parts.fit, *parts.validation, *parts.holdout]) == list(range(rows))
    assert len(parts.holdout) == pytest.approx(0.3 * rows, abs=0.1 * rows)


def test_a_seed_gives_the_same_division_twice() -> None:
    known = np.ones(500, bool)
    one, two = (split.at_random(known, None, test_share=0.3, rng=np.random.default_rng(5)) for _ in range(2))
    np.testing.assert_array_equal(one.holdout, two.holdout)
    assert len(one.holdout) == 150
    assert len(one.validation) == 70


def test_a_delay_that_leaves_nothing_to_learn_from_is_said() -> None:
    with pytest.raises(InvalidData, match="fit 0"):
        split.by_time(np.arange(300) * _DAY, np.ones(300, bool), delay_s=400 * 86_400, test_share=0.3)


def test_times_are_read_as_utc_and_numbers_are_refused() -> None:
    parsed = data.parse_times(
        pd.Series(["2026-01-01", "2026-01-01T02:00:00+02:00", "2026-01-01 00:00:01Z", "soon", None])
    )
    assert parsed[0] == parsed[1] == pd.Timestamp("2026-01-01")
    assert parsed[2] == pd.Timestamp("2026-01-01 00:00:01")
    assert parsed[3:].isna().all()
    assert data.parse_times(pd.Series([1_700_000_000])).isna().all()
