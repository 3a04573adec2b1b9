"""Data of another company is one model.yaml and a file: no Python."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from prometheus_client import CollectorRegistry, multiprocess

from control_plane.errors import InvalidConfig, InvalidData, NotFound
from model_servers import native
from training import cli
from training.common import card, data, evaluation, evidence, groups, models, pipeline, profile, validation
from training.common.progress import silent
from training.common.validation import Finding

LOANS = """
name: loans
aliases: [credit]
problem: binary
id: loan
time: granted
features:
  income: {type: number, nullable: true}
  purpose: {type: category}
  employed: {type: boolean}
target: {column: default, positive: "yes"}
label: {delay_s: 864000}
metric: {name: roc_auc}
costs: {false_positive: 10, false_negative: 100}
training: {candidates: [logistic, xgboost], groups: [purpose, income, region]}
"""
PRICES = """
name: prices
problem: regression
features:
  area: {type: number}
  rooms: {type: integer}
  town: {type: category}
target: {column: price}
metric: {name: r2}
training: {candidates: [logistic, xgboost]}
"""
TICKETS = """
name: tickets
problem: multiclass
id: ticket
features:
  subject: {type: text}
  weight: {type: number, nullable: true}
  channel: {type: category, nullable: true}
target: {column: queue}
metric: {name: macro_f1}
"""


def loans(count: int = 1_500) -> pd.DataFrame:
    rng = np.random.default_rng(1)
    income = rng.lognormal(10, 0.5, count).round()
    purpose = rng.choice(["car", "house", "holiday"], count)
    employed = rng.random(count) < 0.8
    odds = -1 - (np.log(income) - 10) * 2 + (purpose == "holiday") - employed
    return pd.DataFrame(
        {
            "loan": [f"L{i}" for i in range(count)],
            "granted": pd.date_range("2025-01-01", periods=count, freq="6h").strftime("%Y-%m-%d %H:%M"),
            "income": np.where(rng.random(count) < 0.05, np.nan, income),
            "purpose": purpose,
            "employed": np.where(employed, "yes", "no"),
            "default": np.where(rng.random(count) < 1 / (1 + np.exp(-odds)), "yes", "no"),
        }
    )


def prices(count: int = 800) -> pd.DataFrame:
    rng = np.random.default_rng(2)
    area, rooms, town = rng.uniform(30, 200, count).round(1), rng.integers(1, 7, count), rng.choice(["A", "B"], count)
    price = 2_000 * area + 10_000 * rooms + 60_000 * (town == "B") + rng.normal(0, 15_000, count)
    return pd.DataFrame({"area": area, "rooms": rooms, "town": town, "price": price.round(2)})


def tickets(count: int = 900) -> pd.DataFrame:
    rng = np.random.default_rng(3)
    words = {"billing": "invoice charge refund", "login": "password locked reset", "cards": "card pin blocked"}
    queue = rng.choice(list(words), count)
    subject = [f"Re: {' '.join(rng.choice(words[q].split(), 2))} #{rng.integers(1000)}" for q in queue]
    weight = np.where(rng.random(count) < 0.1, np.nan, rng.random(count))
    wrong = rng.random(count) < 0.05
    return pd.DataFrame(
        {
            "ticket": np.arange(count),
            "subject": subject,
            "weight": weight,
            "channel": rng.choice(["mail", "app"], count),
            "queue": np.where(wrong, rng.choice(list(words), count), queue),
        }
    )


def declared(folder: Path, text: str, frame: pd.DataFrame) -> tuple[models.Source, Path]:
    name = text.split("name: ")[1].split("\n")[0]
    (folder / name).mkdir()
    (folder / name / "model.yaml").write_text(text)
    frame.to_csv(folder / "rows.csv", index=False)
    return models.find(name, [folder]), folder / "rows.csv"


@pytest.mark.parametrize(
    ("text", "frame", "at_least"), [(LOANS, loans(), 0.7), (PRICES, prices(), 0.93), (TICKETS, tickets(), 0.9)]
)
def test_a_model_yaml_and_a_csv_make_a_served_model(
    tmp_path: Path, text: str, frame: pd.DataFrame, at_least: float
) -> None:
    source, file = declared(tmp_path, text, frame)
    raw = data.read(file, source.config)
    prepared = pipeline.prepare(source, raw, now=datetime.now(UTC))
    trained = pipeline.train(source, prepared, tmp_path / "work", semver="1.0.0", seed=1, cpus=1, say=silent)
    assert trained.interval.value > at_least
    assert trained.interval.low < trained.interval.value < trained.interval.high

    known_as = data.fingerprint(raw, source.config, sha256="ab" * 32, source="rows.csv")
    moved_by = evidence.importances(trained, prepared)
    found = evidence.document(source.config, trained, prepared, known_as, None, seed=1, importances=moved_by)
    assert found["data"]["leakage"] == "checked"
    assert "Leakage" not in card.markdown(source.config, trained, prepared, known_as, found, moved_by)
    unsure = replace(prepared, leakage=validation.LEAKAGE_TOO_FEW)
    assert "Leakage: not checked" in card.markdown(source.config, trained, unsure, known_as, found, moved_by)
    assert (found["importances"]["space"], set(moved_by)) == ("margin", set(source.config.features))
    assert found["importances"]["features"] == pytest.approx(moved_by, rel=1e-5)
    evidence.complete(source, trained, prepared, found, trained.folder)
    assert {"manifest.json", "evidence.json", "profile.json", "example.json", "model.yaml"} <= {
        path.name for path in trained.folder.iterdir()
    }
    body = json.loads((trained.folder / "example.json").read_text())["features"]
    model = native.load(trained.folder)
    answer = model.predict([[body[feature.name] for feature in model.manifest.features]])
    assert np.isfinite(answer).all()
    assert json.loads((trained.folder / "profile.json").read_text())["rows"] == len(prepared.parts.holdout)
    assert set(moved_by) == set(source.config.features)
    assert max(moved_by.values()) > 0


def test_a_trained_version_is_worth_its_cost_and_never_worse_than_no_model(tmp_path: Path) -> None:
    source, file = declared(tmp_path, LOANS, loans())
    prepared = pipeline.prepare(source, data.read(file, source.config), now=datetime.now(UTC))
    trained = pipeline.train(source, prepared, tmp_path / "work", semver="1.0.0", seed=1, cpus=1, say=silent)
    assert trained.cost is not None
    assert trained.trivial_cost is not None
    assert trained.cost < trained.trivial_cost
    itself = pipeline.judge_other(prepared, source.config, trained.folder, trained, seed=1)
    assert itself.value == pytest.approx(trained.interval.value)
    assert (itself.difference.value, itself.difference.low, itself.difference.high) == (0.0, 0.0, 0.0)
    # The same rows, the same seed: the same model, bit for bit.
    again = pipeline.train(source, prepared, tmp_path / "again", semver="1.0.0", seed=1, cpus=2, say=silent)
    np.testing.assert_array_equal(again.prediction, trained.prediction)


def test_models_are_found_by_name_and_alias_and_else_named_as_missing(tmp_path: Path) -> None:
    source, _ = declared(tmp_path, LOANS, loans(200))
    assert models.find("credit", [tmp_path]).config == source.config
    with pytest.raises(NotFound, match="nothing"):
        models.find("nothing", [tmp_path])
    ours = models.ROOT / "model_servers"
    assert models.folders({"MLCP_MODELS": f"{tmp_path}:/elsewhere"}) == [tmp_path, Path("/elsewhere"), ours]
    assert models.folders({"MLCP_MODELS": f"{ours}:{tmp_path}"}) == [ours, tmp_path]
    assert models.find("customer-churn", models.folders({"MLCP_MODELS": str(tmp_path)})).config.name == "churn"


def test_a_model_yaml_that_cannot_be_trained_says_everything_at_once(tmp_path: Path) -> None:
    wrong = (
        TICKETS.replace("macro_f1", "rmse").replace("target: {column: queue}\n", "")
        + "training: {candidates: [forest]}\n"
    )
    with pytest.raises(InvalidConfig) as caught:
        declared(tmp_path, wrong, tickets(10))
    reasons = " ".join(caught.value.extra["reasons"])
    assert "target" in reasons
    assert "rmse does not fit" in reasons
    assert "forest cannot read text" in reasons


def test_bad_data_is_refused_with_a_report_a_metric_and_an_exit_code(tmp_path: Path) -> None:
    frame = loans(400)
    frame.loc[3, "employed"] = "sometimes"
    declared(tmp_path, LOANS, frame)
    home = tmp_path / "home"
    argv = ["train", "loans", "--data", str(tmp_path / "rows.csv"), "--home", str(home), "--json"]
    done = subprocess.run(
        [sys.executable, "-m", "training", *argv],
        env={name: value for name, value in os.environ.items() if name != "PROMETHEUS_MULTIPROC_DIR"}
        | {"MLCP_MODELS": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 4
    assert "employed: has values that are no boolean" in done.stderr
    said = json.loads(done.stdout.splitlines()[-1])
    assert said["event"] == "failed"
    assert said["type"] == "invalid-data"
    report = json.loads(Path(said["report"]).read_text())
    wanted = Finding("employed", "type", "has values that are no boolean", 1, ("row 3: 'sometimes'",))
    assert report["findings"] == [json.loads(json.dumps(wanted.to_json()))]
    assert report["rows"] == 400
    assert report["leakage"] == "checked"

    registry = CollectorRegistry()
    multiprocess.MultiProcessCollector(registry, path=str(home / "run" / "metrics"))
    assert registry.get_sample_value("model_training_data_refused_total", {"model_name": "loans"}) == 1


@pytest.mark.parametrize(
    ("argv", "code"),
    [
        (["train", "nothing"], 3),
        (["features", "loans", "--data", "absent.csv"], 4),
        (["features", "loans", "--data", "rows.txt"], 4),
        (["simulate", "loans"], 7),
        (["simulate", "loans", "--ndjson"], 7),
        (["simulate", "loans", "--rows", "0"], 4),
    ],
)
def test_what_a_user_can_get_wrong_has_an_exit_code_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, argv: list[str], code: int
) -> None:
    declared(tmp_path, LOANS, loans(200))
    monkeypatch.setenv("MLCP_MODELS", str(tmp_path))
    assert cli.main(argv) == code


def test_features_of_a_file_are_written_as_the_model_sees_them(tmp_path: Path) -> None:
    raw, out = tmp_path / "raw.parquet", tmp_path / "features.csv"
    assert cli.main(["simulate", "fraud", "--rows", "300", "--out", str(raw)]) == 0
    assert cli.main(["features", "fraud", "--data", str(raw), "--out", str(out)]) == 0
    made, config = pd.read_csv(out), models.find("fraud", models.folders({})).config
    assert list(made.columns) == ["transaction_id", "customer_id", "event_time", *config.features]
    assert len(made) == 300


def test_an_unreadable_file_is_bad_data(tmp_path: Path) -> None:
    source, _ = declared(tmp_path, LOANS, loans(200))
    (tmp_path / "broken.parquet").write_bytes(b"PAR1 no")
    with pytest.raises(InvalidData, match="cannot be read"):
        data.read(tmp_path / "broken.parquet", source.config)


def test_the_reference_profile_is_one_drift_can_read() -> None:
    from control_plane.domain.drift import document

    source = models.find("categorization", models.folders({}))
    raw = source.simulate()(300, np.random.default_rng(1))
    arrays = data.columns(raw, source.config.features)
    classes = tuple(sorted(raw["category"].unique()))
    probability = np.eye(len(classes))[np.searchsorted(classes, raw["category"])]
    label = probability.argmax(axis=1).astype(float)
    built = profile.build(source.config, arrays, probability, label, classes)
    read = document.from_json(json.loads(json.dumps(built, allow_nan=False)))
    assert read.rows == 300
    assert set(read.features) == set(source.config.features)
    assert read.prediction == read.label


def test_the_holdout_is_judged_by_group_too_and_a_column_the_rows_lack_is_a_limit(tmp_path: Path) -> None:
    frame = loans()
    frame.loc[:3, "purpose"] = "yacht"
    source, file = declared(tmp_path, LOANS, frame)
    prepared = pipeline.prepare(source, data.read(file, source.config), now=datetime.now(UTC))
    trained = pipeline.train(source, prepared, tmp_path / "work", semver="1.0.0", seed=1, cpus=1, say=silent)
    found = groups.judged(source.config, trained, prepared, seed=1)
    holdout = prepared.frame.iloc[prepared.parts.holdout]
    for column in ("purpose", "income"):
        assert sum(group.rows for group in found if group.column == column) == len(holdout)
    assert {group.column for group in found} == {"purpose", "income"}
    incomes = [group for group in found if group.column == "income"]
    assert {group.value.split()[0] for group in incomes} <= {"up", "over", "(none)"}
    largest = next(group for group in found if group.column == "purpose")
    rows = (holdout["purpose"] == largest.value).to_numpy()
    assert largest.rows == rows.sum()
    assert largest.interval is not None
    assert largest.interval.value == pytest.approx(evaluation.roc_auc(trained.label[rows], trained.prediction[rows]))
    assert largest.interval.low < largest.interval.value < largest.interval.high
    assert largest.flagged == pytest.approx((trained.prediction[rows] >= trained.manifest.threshold).mean())
    assert [group.interval for group in found if group.value == "yacht"] in ([], [None])

    known_as = data.fingerprint(prepared.frame, source.config, sha256="ab" * 32, source="rows.csv")
    told = evidence.document(source.config, trained, prepared, known_as, None, seed=1, importances={})
    text = card.markdown(source.config, trained, prepared, known_as, told, {})
    assert f"| purpose: {largest.value} | {largest.rows:,} |" in text
    assert "Nothing is known by group of region" in text
