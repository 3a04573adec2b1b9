import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter

from control_plane.domain.model_config import ModelConfig
from control_plane.errors import InvalidData
from training.common import data, evidence, identity, split
from training.common.identity import Holdout

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


@given(st.integers(0, 10_000), st.integers(700, 900))
def test_a_unit_never_sits_on_both_sides(seed: int, rows: int) -> None:
    rng = np.random.default_rng(seed)
    units = rng.integers(0, rows // 2, rows)
    parts = split.by_identity(np.ones(rows, bool), [f"{seed}-{unit}" for unit in units], test_share=0.3)
    sides = [set(units[part]) for part in (parts.fit, parts.validation, parts.holdout)]
    assert len(set.union(*sides)) == sum(map(len, sides))
    assert sorted([*parts.fit, *parts.validation, *parts.holdout]) == list(range(rows))
    assert len(parts.holdout) == pytest.approx(0.3 * rows, abs=0.2 * rows)


def test_who_judges_stays_a_judge_whoever_else_comes_and_in_whatever_order() -> None:
    names = [f"customer {i}" for i in range(6_000)]
    few = split.by_identity(np.ones(3_000, bool), names[:3_000], test_share=0.3)
    turned = names[::-1]
    many = split.by_identity(np.ones(6_000, bool), turned, test_share=0.3)
    larger = split.by_identity(np.ones(6_000, bool), turned, test_share=0.4)
    judges = {names[i] for i in few.holdout}
    assert judges == {turned[i] for i in many.holdout} & set(names[:3_000])
    assert judges <= {turned[i] for i in larger.holdout}
    assert len(few.holdout) == pytest.approx(900, abs=110)  # 4.4 standard deviations
    assert len(few.validation) == pytest.approx(420, abs=84)


def test_the_hash_of_a_hold_out_knows_its_rows_and_labels_and_not_their_order() -> None:
    declared = TypeAdapter(ModelConfig).validate_python(
        {"name": "m", "problem": "binary", "features": {"a": {"type": "number"}}, "target": {"column": "y"}}
    )
    frame = pd.DataFrame({"a": np.arange(60) / 7, "y": np.arange(60) % 2})

    def print_of(frame: pd.DataFrame, config: ModelConfig = declared) -> str:
        rows = identity.of_rows(frame, data.columns(frame, config.features), config)
        return identity.holdout(rows, frame["y"].to_numpy(), np.arange(len(frame)), config).sha256

    first = print_of(frame)
    assert print_of(frame.iloc[::-1].reset_index(drop=True)) == first
    assert print_of(frame.assign(y=1 - frame["y"])) != first
    assert print_of(frame.iloc[:-1]) != first
    named = replace(declared, id="n")
    numbered = frame.assign(n=np.arange(60))
    assert print_of(numbered, named) == print_of(numbered.assign(a=0.0, n=np.arange(60.0)), named) != first


def test_a_version_that_may_have_learnt_from_the_hold_out_is_not_judged_on_it(tmp_path: Path) -> None:
    ours = Holdout("aa", ("customer",), 0.3)
    assert not evidence.spared(tmp_path, ours)
    for by, share, spared in ((["customer"], 0.3, True), (["customer"], 0.2, False), (["loan"], 0.3, False)):
        said = {"data": {"holdout": {"sha256": "bb", "by": by, "share": share}}}
        (tmp_path / "evidence.json").write_text(json.dumps(said))
        assert evidence.spared(tmp_path, ours) is spared
    (tmp_path / "evidence.json").write_text('{"data": {"sha256": "aa"}}')
    assert not evidence.spared(tmp_path, ours)


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
