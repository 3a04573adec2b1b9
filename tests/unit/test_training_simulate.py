from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from control_plane.errors import InvalidData
from training.common import data, evaluation, models, rows

MODELS = ("churn", "fraud", "categorization")


def source(model: str) -> models.Source:
    return models.find(model, models.folders({}))


def simulated(model: str, count: int, scenario: str = "stable", seed: int = 1) -> pd.DataFrame:
    return source(model).simulate()(count, np.random.default_rng(seed), scenario=scenario)


@pytest.mark.parametrize("model", MODELS)
def test_a_seed_makes_the_same_rows_twice_and_another_seed_others(model: str) -> None:
    one, two, other = simulated(model, 200), simulated(model, 200), simulated(model, 200, seed=2)
    assert data.hash_frame(one) == data.hash_frame(two) != data.hash_frame(other)
    assert len(one) == 200


@pytest.mark.parametrize("scenario", ["stable", "drifted", "better", "worse"])
@pytest.mark.parametrize("model", MODELS)
def test_every_scenario_makes_bodies_model_yaml_allows(model: str, scenario: str) -> None:
    config = source(model).config
    made = list(rows.bodies(source(model), 40, seed=3, scenario=scenario))
    assert len(made) == 40
    for body in made:
        assert set(body) == {"unit_id", "event_time", "features", "label"}
        assert isinstance(body["unit_id"], str)
        assert list(body["features"]) == list(config.features)
        for name, value in body["features"].items():
            feature = config.features[name]
            assert value is not None or feature.nullable
            if value is not None and feature.range is not None:
                assert feature.range[0] <= value <= feature.range[1]
            if value is not None and feature.categories is not None:
                assert value in feature.categories


def test_live_bodies_have_warm_histories() -> None:
    made = list(rows.bodies(source("fraud"), 50, seed=3, scenario="stable"))
    assert np.mean([body["features"]["terminal_payments_30d"] for body in made]) > 10


@pytest.mark.parametrize(("model", "label"), [("churn", "churned"), ("fraud", "fraud")])
def test_outcomes_come_as_often_as_the_truth_says(model: str, label: str) -> None:
    frame = simulated(model, 20_000)
    expected, spread = frame["truth"].sum(), np.sqrt((frame["truth"] * (1 - frame["truth"])).sum())
    assert abs(frame[label].sum() - expected) < 4 * spread
    assert evaluation.roc_auc(frame[label].to_numpy(float), frame["truth"].to_numpy()) > 0.85


def test_worse_turns_the_outcome_around_and_drifted_moves_the_inputs_only() -> None:
    stable, drifted, worse = (simulated("churn", 20_000, name) for name in ("stable", "drifted", "worse"))
    assert drifted["monthly_charges"].mean() > 1.15 * stable["monthly_charges"].mean()
    assert worse["monthly_charges"].mean() == pytest.approx(stable["monthly_charges"].mean(), rel=0.01)

    def leave(frame: pd.DataFrame, contract: str) -> float:
        return float(frame.loc[frame.contract == contract, "churned"].mean())

    assert leave(stable, "two_year") < 0.5 * leave(stable, "month_to_month")
    assert leave(worse, "two_year") > leave(worse, "month_to_month")


def test_categories_are_what_was_meant_but_for_slips() -> None:
    stable, better = simulated("categorization", 5_000), simulated("categorization", 5_000, "better")
    assert (stable["category"] == stable["truth"]).mean() == pytest.approx(0.972, abs=0.01)
    assert (better["category"] == better["truth"]).all()
    assert stable["merchant"].str.len().max() <= 24


def test_never_features_hold_the_truth_back() -> None:
    for model in MODELS:
        config = source(model).config
        assert "truth" in config.never_features
        assert not set(config.never_features) & set(config.features)


def test_the_rows_of_a_file_are_sent_in_its_order_from_its_start_again_with_its_labels(tmp_path: Path) -> None:
    file = tmp_path / "rows.parquet"
    raw = simulated("churn", 5, seed=4)
    raw.to_parquet(file)
    made = list(rows.bodies(source("churn"), 12, seed=3, scenario="stable", file=file))
    config = source("churn").config
    assert config.target is not None
    assert [body["unit_id"] for body in made] == [str(raw[config.unit].iloc[i % 5]) for i in range(12)]
    assert [body["label"] for body in made] == [bool(raw[config.target.column].iloc[i % 5]) for i in range(12)]
    assert made[0]["features"] == made[5]["features"] != made[1]["features"]


def test_a_file_without_a_label_is_refused_by_name(tmp_path: Path) -> None:
    file = tmp_path / "rows.parquet"
    config = source("churn").config
    assert config.target is not None
    simulated("churn", 5).drop(columns=config.target.column).to_parquet(file)
    with pytest.raises(InvalidData, match=config.target.column):
        next(rows.bodies(source("churn"), 1, seed=3, scenario="stable", file=file))
