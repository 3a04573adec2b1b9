import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from statsmodels.stats.power import NormalIndPower

from control_plane.domain.experiments import power, sequences

effects = st.floats(0.01, 2)
alphas = st.floats(0.001, 0.2)


@given(effects, st.integers(2, 10_000), st.floats(0.2, 5), alphas)
def test_power_agrees_with_statsmodels(effect: float, units: int, ratio: float, alpha: float) -> None:
    ours = power.power(effect, sd_treatment=1, sd_control=1, units=units, ratio=ratio, alpha=alpha)
    theirs = NormalIndPower().power(effect, units, alpha, ratio=1 / ratio)  # theirs counts treatment per control
    swapped = NormalIndPower().power(effect, units, alpha, ratio=ratio)
    assert ours == pytest.approx(swapped, rel=1e-9)
    assert theirs <= swapped or ratio < 1


@given(effects, st.floats(0.5, 2), alphas, st.floats(0.5, 0.99))
def test_the_units_needed_reach_the_power_and_one_fewer_does_not(
    effect: float, ratio: float, alpha: float, wanted: float
) -> None:
    given_ = {"sd_treatment": 1.5, "sd_control": 1.0, "ratio": ratio, "alpha": alpha}
    units = power.units_needed(effect, **given_, power_wanted=wanted)
    assert power.power(effect, units=units, **given_) >= wanted
    if units > 1:
        assert power.power(effect, units=units - 1, **given_) < wanted
    found = power.detectable_effect(units=units, **given_, power_wanted=wanted)
    assert found <= effect * (1 + 1e-9)


@given(effects, st.floats(0.2, 5), alphas, st.floats(0.3, 0.99))
def test_sizes_and_detectable_effects_agree_with_statsmodels(
    effect: float, ratio: float, alpha: float, wanted: float
) -> None:
    given_ = {"sd_treatment": 1.0, "sd_control": 1.0, "ratio": ratio, "alpha": alpha, "power_wanted": wanted}
    theirs = NormalIndPower()
    units = power.units_needed(effect, **given_)
    assert theirs.power(effect, units, alpha, ratio=ratio) >= wanted * (1 - 1e-9)
    assert units == 1 or theirs.power(effect, units - 1, alpha, ratio=ratio) < wanted * (1 + 1e-9)
    found = power.detectable_effect(units=units, **given_)
    assert theirs.power(found, units, alpha, ratio=ratio) == pytest.approx(wanted, rel=1e-9)


def test_the_text_book_sample_size() -> None:
    sd = power.share_sd(0.05)
    units = power.units_needed(
        0.01, sd_treatment=power.share_sd(0.06), sd_control=sd, ratio=1, alpha=0.05, power_wanted=0.8
    )
    z = 1.959963984540054 + 0.8416212335729143
    by_hand = z**2 * (0.06 * 0.94 + 0.05 * 0.95) / 0.01**2
    assert units == pytest.approx(by_hand, abs=1)


def test_looking_at_any_time_costs_units_but_not_without_bound() -> None:
    given_ = {"sd_treatment": 1.0, "sd_control": 1.0, "ratio": 1.0, "alpha": 0.05, "power_wanted": 0.8}
    fixed, always = power.units_needed(0.1, **given_), power.always_valid_units_needed(0.1, **given_)
    assert 1.2 * fixed < always < 2.5 * fixed


def test_the_always_valid_power_is_a_lower_bound_of_what_happens() -> None:
    rng = np.random.default_rng(2)
    n, effect, alpha = 2_000, 0.12, 0.05
    tau = sequences.tau_for(2 / n, alpha=alpha)
    at_least = power.always_valid_power(effect, sd_treatment=1, sd_control=1, units=n, ratio=1, alpha=alpha, tau=tau)
    looks = np.arange(100, n + 1, 100)
    steps = rng.normal(effect * 100, math.sqrt(2 * 100), (2_000, len(looks))).cumsum(axis=1) / looks
    halves = np.array([sequences.half_width(2 / m, alpha=alpha, tau=tau) for m in looks])
    happened = float((np.abs(steps) > halves).any(axis=1).mean())
    assert happened >= at_least - 3 * math.sqrt(0.25 / 2_000)
    assert happened <= at_least + 0.15


def test_the_run_time_counts_whole_weeks_and_waiting_for_labels() -> None:
    plan = power.run_time(10_000, units_per_day=900, observation_days=3, label_delay_days=7)
    assert (plan.days, plan.exposure_days) == (24, 14)
    assert plan.why == "10000 units at 900 a day: 14 days, then 10 days for the last outcomes."
    assert power.run_time(1, units_per_day=900, observation_days=0, label_delay_days=0, least_weeks=2).days == 14


def test_a_plan_that_could_never_decide_is_refused() -> None:
    given_ = {"sd_treatment": 1.0, "sd_control": 1.0, "ratio": 1.0, "alpha": 0.05}
    with pytest.raises(ValueError, match="never decide"):
        power.run_time(1, units_per_day=0, observation_days=0, label_delay_days=0)
    with pytest.raises(ValueError, match="never decide"):
        power.units_needed(1e-9, **given_, power_wanted=0.8)
    for effect in (0.0, math.nan):
        with pytest.raises(ValueError, match="effect"):
            power.units_needed(effect, **given_, power_wanted=0.8)
    for wanted in (0.05, 1.0):
        with pytest.raises(ValueError, match="power"):
            power.units_needed(0.1, **given_, power_wanted=wanted)
    with pytest.raises(ValueError, match="sd at least 0"):
        power.power(0.1, sd_treatment=0, sd_control=0, units=10, ratio=1, alpha=0.05)
    with pytest.raises(ValueError, match="share"):
        power.share_sd(1.5)
    with pytest.raises(ValueError, match="at least"):
        power.run_time(-1, units_per_day=1, observation_days=0, label_delay_days=0)
