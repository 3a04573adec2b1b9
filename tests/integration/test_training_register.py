"""Training against a real MLflow server: what one run leaves there, and that nothing else moves."""

import json
import os
import signal
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from control_plane.domain.model_config import ModelConfig
from model_servers import native
from model_servers.native import digest
from training import cli

pytestmark = [
    pytest.mark.integration,
    pytest.mark.filterwarnings("ignore::DeprecationWarning:mlflow.*"),
    pytest.mark.filterwarnings("ignore::FutureWarning:mlflow.*"),
    pytest.mark.filterwarnings("ignore::UserWarning:mlflow.*"),
]
YAML = """
name: NAME
problem: binary
purpose: Whether a loan will not be paid back.
unit: customer
features:
  income: {type: number, nullable: true, range: [0, 1000000], example: 30000}
  age: {type: integer, example: 41}
  purpose: {type: category, categories: [car, house, holiday]}
target: {column: default, positive: 1}
metric: {name: roc_auc, minimum: 0.6}
costs: {false_positive: 10, false_negative: 100}
training: {candidates: CANDIDATES}
"""


def loans(count: int = 600) -> pd.DataFrame:
    rng = np.random.default_rng(1)
    income, age = rng.lognormal(10, 0.5, count).round(), rng.integers(18, 90, count)
    odds = -1 - (np.log(income) - 10) * 2 + 0.02 * (age - 50)
    return pd.DataFrame(
        {
            "customer": [f"c{i}" for i in range(count)],
            "income": np.where(rng.random(count) < 0.05, np.nan, income),
            "age": age,
            "purpose": rng.choice(["car", "house", "holiday"], count),
            "default": (rng.random(count) < 1 / (1 + np.exp(-odds))).astype(int),
        }
    )


@dataclass
class Bench:
    name: str
    folder: Path
    url: str
    client: Any

    def declare(self, text: str = YAML, *, candidates: str = "[logistic, xgboost]") -> None:
        place = self.folder / "models" / self.name
        place.mkdir(parents=True, exist_ok=True)
        (place / "model.yaml").write_text(text.replace("NAME", self.name).replace("CANDIDATES", candidates))

    def train(self, frame: pd.DataFrame, capsys: pytest.CaptureFixture[str], *more: str) -> dict[str, Any]:
        """The last event of a whole training."""
        frame.to_parquet(self.folder / "rows.parquet")
        capsys.readouterr()
        argv = ["train", self.name, "--data", str(self.folder / "rows.parquet"), "--mlflow-url", self.url]
        assert cli.main([*argv, "--home", str(self.folder / "home"), "--cpus", "1", "--json", *more]) == 0
        events = [json.loads(line) for line in capsys.readouterr().out.splitlines() if line.startswith("{")]
        fractions = [event["fraction"] for event in events]
        assert fractions == sorted(fractions)
        assert events[-1]["event"] == "registered"
        last: dict[str, Any] = events[-1]
        return last

    def native(self, version: str) -> Path:
        import mlflow

        uri = f"models:/{self.name}/{version}/artifacts/native"
        return Path(mlflow.artifacts.download_artifacts(uri, dst_path=str(self.folder / f"got-{version}")))


@pytest.fixture
def bench(mlflow: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    import prometheus_client  # noqa: F401  # before the variable is set: it would keep to files for the whole session
    from mlflow import MlflowClient

    monkeypatch.setenv("MLCP_MODELS", str(tmp_path / "models"))
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path / "metrics"))
    return Bench(f"loans-{uuid.uuid4().hex[:8]}", tmp_path, mlflow, MlflowClient(mlflow, mlflow))


@pytest.mark.parametrize("candidates", ["[logistic]", "[xgboost]", "[forest]", "[lightgbm]"])
def test_a_training_leaves_a_version_with_all_that_belongs_to_it(
    bench: Bench, capsys: pytest.CaptureFixture[str], candidates: str
) -> None:
    import mlflow

    bench.declare(candidates=candidates)
    said = bench.train(frame := loans(), capsys)
    version = bench.client.get_model_version(bench.name, said["version"])
    assert version.tags["mlcp.runtime"] == "native"
    assert version.tags["mlcp.semver"] == said["semver"] == "1.0.0"
    assert json.loads(version.tags["mlcp.evidence"])["metric"]["name"] == "roc_auc"
    assert not bench.client.get_registered_model(bench.name).aliases

    folder = bench.native(said["version"])
    assert digest.of_folder(folder) == version.tags["mlcp.digest"] == said["digest"]
    evidence = json.loads((folder / "evidence.json").read_text())
    assert evidence["data"]["rows"] == 600
    assert evidence["data"]["source"] == "rows.parquet"
    assert evidence["production"] is None
    assert evidence["cost"]["currency"] == "EUR"
    assert min(evidence["cost"]["model"], evidence["cost"]["trivial"]) > 0
    assert evidence["metric"]["low"] < evidence["metric"]["value"] < evidence["metric"]["high"]
    assert (folder / "model.yaml").read_text() == (bench.folder / "models" / bench.name / "model.yaml").read_text()

    run = bench.client.get_run(version.run_id)
    assert run.info.status == "FINISHED"
    assert run.data.params["data_sha256"] == evidence["data"]["sha256"]
    assert {"roc_auc", "average_precision", "recall", "cost", "low_95"} <= set(run.data.metrics)
    children = bench.client.search_runs([run.info.experiment_id], f"tags.`mlflow.parentRunId` = '{version.run_id}'")
    assert len(children) == len(evidence["candidates"])
    assert all("validation_roc_auc" in child.data.metrics for child in children)
    pictures = {file.path for file in bench.client.list_artifacts(version.run_id, "pictures")}
    wanted = {"confusion_matrix.png", "roc_pr.png", "calibration.png", "importances.png"}
    assert pictures == {f"pictures/{name}" for name in wanted}
    picture = Path(bench.client.download_artifacts(version.run_id, "pictures/roc_pr.png", str(bench.folder)))
    assert picture.read_bytes().startswith(b"\x89PNG")
    card = Path(bench.client.download_artifacts(version.run_id, "model_card.md", str(bench.folder))).read_text()
    assert "Whether a loan will not be paid back." in card

    loaded = mlflow.pyfunc.load_model(f"models:/{bench.name}/{said['version']}")
    schema = loaded.metadata.signature.inputs
    assert [column.name for column in schema] == ["income", "age", "purpose"]
    answered = loaded.predict(frame[["income", "age", "purpose"]])
    rows = frame[["income", "age", "purpose"]].astype(object).where(frame.notna(), None).to_numpy().tolist()
    expected = native.load(folder).predict(rows)
    np.testing.assert_allclose(answered["probability"], expected, atol=1e-12)
    threshold = evidence["threshold"]
    assert (answered["decision"] == np.where(expected >= threshold, "yes", "no")).all()
    assert len(loaded.predict(loaded.input_example)) == 1  # the logged example is a valid input


def test_the_second_version_knows_what_changed_and_how_production_does(
    bench: Bench, capsys: pytest.CaptureFixture[str]
) -> None:
    bench.declare(candidates="[logistic]")
    first = bench.train(loans(), capsys)
    bench.client.set_registered_model_alias(bench.name, "production", first["version"])
    second = bench.train(loans(), capsys)
    assert (first["semver"], second["semver"]) == ("1.0.0", "1.0.1")
    evidence = json.loads((bench.native(second["version"]) / "evidence.json").read_text())
    # The same rows, seed and declaration: the same model, so Production does exactly as well on its hold-out.
    assert evidence["production"]["version"] == first["version"]
    assert evidence["production"]["value"] == pytest.approx(evidence["metric"]["value"])
    assert bench.client.get_registered_model(bench.name).aliases == {"production": first["version"]}

    bench.declare(YAML.replace("[0, 1000000]", "[0, 2000000]"), candidates="[logistic]")
    assert bench.train(loans(), capsys)["semver"] == "1.1.0"
    bench.declare(YAML.replace("  age: {type: integer, example: 41}\n", ""), candidates="[logistic]")
    assert bench.train(loans(), capsys)["semver"] == "2.0.0"


def test_refused_data_leaves_nothing_in_the_registry(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    bench.declare()
    frame = loans().assign(age=lambda rows: 20 + 10 * rows["default"])
    frame.to_parquet(bench.folder / "rows.parquet")
    argv = ["train", bench.name, "--data", str(bench.folder / "rows.parquet"), "--mlflow-url", bench.url]
    assert cli.main([*argv, "--home", str(bench.folder / "home")]) == 4
    assert "age: alone determines default" in capsys.readouterr().err
    assert not bench.client.search_registered_models(f"name = '{bench.name}'")
    assert bench.client.get_experiment_by_name(bench.name) is None


def test_an_mlflow_that_does_not_answer_is_said_with_its_own_exit_code(
    bench: Bench, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    bench.declare()
    loans().to_parquet(bench.folder / "rows.parquet")
    argv = ["train", bench.name, "--data", str(bench.folder / "rows.parquet"), "--mlflow-url", "http://127.0.0.1:9"]
    assert cli.main([*argv, "--home", str(bench.folder / "home")]) == 6
    assert "http://127.0.0.1:9" in capsys.readouterr().err


def test_the_config_in_the_artifact_is_the_one_that_was_declared(
    bench: Bench, capsys: pytest.CaptureFixture[str]
) -> None:
    import yaml
    from pydantic import TypeAdapter

    bench.declare(candidates="[logistic]")
    folder = bench.native(bench.train(loans(), capsys)["version"])
    config = TypeAdapter(ModelConfig).validate_python(yaml.safe_load((folder / "model.yaml").read_text()))
    manifest = native.load(folder).manifest
    assert [feature.name for feature in manifest.features] == list(config.features)
    example = json.loads((folder / "example.json").read_text())
    assert example == {
        "features": {"income": 30000.0, "age": 41, "purpose": example["features"]["purpose"]},
        "unit_id": "example",
    }


def test_the_features_of_a_version_are_made_by_the_code_it_was_trained_with(
    bench: Bench, capsys: pytest.CaptureFixture[str]
) -> None:
    code = "def features(raw, *, label_delay_s):\n    return raw.assign(age=raw.age + {})\n"
    bench.declare(candidates="[logistic]")
    file = bench.folder / "models" / bench.name / "features.py"
    file.write_text(code.format(1))
    version = bench.train(frame := loans(), capsys)["version"]
    file.write_text(code.format(2))
    argv = ["features", bench.name, "--data", str(bench.folder / "rows.parquet"), "--mlflow-url", bench.url]
    for more, added in ((["--version", version], 1), ([], 2)):
        assert cli.main([*argv, *more]) == 0
        ages = [json.loads(line)["age"] for line in capsys.readouterr().out.splitlines()]
        assert ages == (frame.age + added).tolist()
    assert cli.main([*argv, "--version", "9"]) == 3
    assert f"no version 9 of {bench.name}" in capsys.readouterr().err
    bench.client.set_model_version_tag(bench.name, version, "mlcp.digest", "sha256:" + "0" * 64)
    assert cli.main([*argv, "--version", version]) == 4
    assert "not what was registered" in capsys.readouterr().err


@contextmanager
def asked_for(kind: str) -> Iterator[list[str]]:
    """Options for two workers: those the training starts, or those of a scheduler that is there already."""
    if kind == "local":
        yield ["--workers", "2"]
        return
    import distributed

    with distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster:
        yield ["--scheduler", cluster.scheduler_address]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["local", "scheduler"])
def test_two_workers_register_what_one_process_registers(
    bench: Bench, capsys: pytest.CaptureFixture[str], kind: str
) -> None:
    bench.declare(candidates="[xgboost, logistic]")
    frame = loans(6_000)
    alone = bench.train(frame, capsys)
    with asked_for(kind) as options:
        spread = bench.train(frame, capsys, *options)
    assert spread["semver"] == "1.0.1"
    assert spread["metric"] == pytest.approx(alone["metric"], abs=1e-6)
    assert spread["cost"] == pytest.approx(alone["cost"])
    one, two = (native.load(bench.native(said["version"])) for said in (alone, spread))
    assert two.manifest.kind == one.manifest.kind
    assert two.manifest.threshold == pytest.approx(one.manifest.threshold, abs=1e-6)
    rows = frame[["income", "age", "purpose"]].astype(object).where(frame.notna(), None).to_numpy().tolist()
    np.testing.assert_allclose(two.predict(rows), one.predict(rows), rtol=0, atol=1e-6)


@pytest.mark.slow
def test_a_training_whose_workers_are_lost_for_good_registers_nothing(
    bench: Bench, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import psutil

    from training.common import workers

    monkeypatch.setattr(workers, "_STARTED_S", 3)
    bench.declare(candidates="[xgboost]")
    loans(200_000).to_parquet(bench.folder / "rows.parquet")
    over = threading.Event()

    def kill() -> None:
        """Every worker that computes, again and again."""
        while not over.wait(0.05):
            for child in psutil.Process().children(recursive=True):
                with suppress(psutil.NoSuchProcess, ProcessLookupError):
                    if "spawn_main" in " ".join(child.cmdline()) and child.cpu_times().user > 3:
                        os.kill(child.pid, signal.SIGKILL)

    argv = ["train", bench.name, "--data", str(bench.folder / "rows.parquet"), "--mlflow-url", bench.url]
    killer = threading.Thread(target=kill)
    killer.start()
    try:
        assert cli.main([*argv, "--home", str(bench.folder / "home"), "--cpus", "2", "--workers", "2"]) == 6
    finally:
        over.set()
        killer.join()
    assert "were lost" in capsys.readouterr().err
    assert not bench.client.search_registered_models(f"name = '{bench.name}'")
    assert not bench.client.search_experiments(filter_string=f"name = '{bench.name}'")
