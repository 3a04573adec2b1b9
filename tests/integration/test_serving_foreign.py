"""Models logged by plain MLflow, without model.yaml: served in frames, in an environment that fits."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from model_servers import environments
from tests.support.model_server import ModelServer, run_to_end, serving, spec_of

pytestmark = pytest.mark.integration

INFERRED: dict[str, Any] = {
    "name": "loans",
    "problem": "opaque",
    "features": {
        "amount": {"type": "number"},
        "visits": {"type": "integer"},
        "plan": {"type": "category"},
        "late": {"type": "number", "nullable": True},
    },
}
ROWS: list[dict[str, Any]] = [
    {"amount": 1.5, "visits": 2, "plan": "a", "late": None},
    {"amount": -40.25, "visits": 7, "plan": "b", "late": 3.5},
    {"amount": 0, "visits": 0, "plan": "never seen", "late": 0.25},
]

LOG = """
import json, sys, warnings
warnings.simplefilter("ignore")
import mlflow, numpy as np, pandas as pd
from mlflow.models import infer_signature
from sklearn.compose import make_column_transformer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder

rng = np.random.default_rng(0)
frame = pd.DataFrame({"amount": rng.normal(size=300), "visits": rng.integers(0, 9, 300),
                      "plan": rng.choice(["a", "b"], 300), "late": rng.normal(size=300)})
frame.loc[::5, "late"] = np.nan
encode = make_column_transformer((OneHotEncoder(handle_unknown="ignore"), ["plan"]), remainder=SimpleImputer())
model = make_pipeline(encode, LogisticRegression()).fit(frame, frame.amount + 0.2 * frame.visits > 0.5)
mlflow.sklearn.save_model(model, sys.argv[1], signature=infer_signature(frame, model.predict_proba(frame)),
                          input_example=frame.head(1), pyfunc_predict_fn="predict_proba",
                          serialization_format="cloudpickle", pip_requirements=["mlflow", "pandas", "scikit-learn"])
rows = pd.DataFrame(json.loads(sys.argv[3])).astype({"amount": float})
print(json.dumps(mlflow.pyfunc.load_model(sys.argv[1]).predict(rows).tolist()))

class Whole(mlflow.pyfunc.PythonModel):
    def predict(self, context, model_input, params=None):
        if (model_input.amount < 0).any():
            raise ValueError(f"SECRET {model_input.amount.tolist()}")
        return {"rows": len(model_input), "mean": float(model_input.amount.mean())}

mlflow.pyfunc.save_model(sys.argv[2], python_model=Whole(),
                         signature=infer_signature(frame[["amount"]], {"rows": 1, "mean": 0.5}),
                         pip_requirements=["mlflow"])
"""


@pytest.fixture(scope="module")
def logged(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, list[list[float]]]:
    """A scikit-learn pipeline, a python function that answers for the whole frame, and what the first says to ROWS."""
    folder = tmp_path_factory.mktemp("foreign")
    paths = folder / "sklearn", folder / "whole"
    argv = [sys.executable, "-c", LOG, *map(str, paths), json.dumps(ROWS)]
    done = subprocess.run(argv, check=True, capture_output=True, timeout=240)
    return *paths, json.loads(done.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def server(logged: tuple[Path, Path, list[list[float]]]) -> Iterator[ModelServer]:
    requirements = (logged[0] / "requirements.txt").read_text().splitlines()
    changes: dict[str, Any] = {"runtime": "pyfunc", "inferred": True, "workers": 1, "requirements": requirements}
    with serving(logged[0], INFERRED, module="model_servers.launch", **changes) as running:
        yield running


def test_a_plain_mlflow_model_answers_what_mlflow_answers(
    server: ModelServer, logged: tuple[Path, Path, list[list[float]]]
) -> None:
    with server.client() as http, server.client(aux=True) as aux:
        single = [http.post("/predict", json={"features": row}).json()["output"]["value"] for row in ROWS]
        batch = aux.post("/batch_predict", json={"rows": ROWS}, timeout=240).json()["predictions"]
    for value, one, many in zip(logged[2], single, batch, strict=True):
        assert one == pytest.approx(value)
        assert many["output"]["value"] == pytest.approx(value)


def test_its_inputs_are_checked_like_any_other_models(server: ModelServer) -> None:
    with server.client() as http:
        answer = http.post("/predict", json={"features": {"amount": "x", "visits": 1.5, "late": None, "more": 1}})
    assert answer.status_code == 422
    assert len(answer.json()["reasons"]) == 4


def test_it_cannot_be_explained_and_says_so(server: ModelServer) -> None:
    with server.client(aux=True) as aux:
        answer = aux.post("/explain", json={"features": ROWS[0]}, timeout=240)
    assert (answer.status_code, answer.json()["type"].rpartition("/")[2]) == (422, "not-explainable")


def test_its_example_is_the_one_logged_with_it(server: ModelServer) -> None:
    with server.client() as http:
        example = http.get("/schema").json()["example"]
        assert set(example["features"]) == set(INFERRED["features"])
        assert http.post("/predict", json=example).status_code == 200


def test_a_model_that_answers_for_the_frame_gets_one_row_at_a_time_and_its_errors_name_no_values(
    logged: tuple[Path, Path, list[list[float]]],
) -> None:
    config = INFERRED | {"features": {"amount": {"type": "number"}}}
    with serving(logged[1], config, runtime="pyfunc", workers=1, aux_socket=None) as running:
        with running.client() as http:
            answers = [http.post("/predict", json={"features": {"amount": value}}).json() for value in (1, 2.5)]
            failed = http.post("/predict", json={"features": {"amount": -777_777}})
        assert [answer["output"]["value"] for answer in answers] == [{"rows": 1, "mean": 1.0}, {"rows": 1, "mean": 2.5}]
        assert (failed.status_code, failed.json()["type"].rpartition("/")[2]) == (500, "model-failed")
        trace = failed.json()["detail"].rpartition("trace ")[2].rstrip(".")
        (event,) = (event for event in running.events() if event["event"] == "the model failed")
        assert event["trace_id"] == trace
        assert event["exception"][0] == "ValueError"
        assert "777" not in running.log.read_text() + failed.text
        assert "SECRET" not in running.log.read_text()


def test_a_signature_that_lacks_a_declared_feature_is_told_and_never_ready(
    logged: tuple[Path, Path, list[list[float]]], tmp_path: Path
) -> None:
    config = INFERRED | {"features": INFERRED["features"] | {"shoe_size": {"type": "number"}}}
    spec = spec_of(logged[0], tmp_path, config, runtime="pyfunc", workers=1, aux_socket=None)
    code, log = run_to_end(spec, tmp_path)
    assert code == 4
    assert "shoe_size not in the artifact's signature" in log


def test_an_environment_is_built_once_and_has_what_was_asked(tmp_path: Path) -> None:
    python = environments.prepare(["iniconfig==2.1.0"], tmp_path / "envs")
    script = "import importlib.metadata as m, sys; print(m.version('iniconfig'), sys.prefix)"
    done = subprocess.run([python, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["2.1.0", str(python.parents[1])]
    built = python.parents[1].stat().st_ino
    assert environments.prepare([" iniconfig==2.1.0 "], tmp_path / "envs") == python
    assert python.parents[1].stat().st_ino == built
    assert sorted(path.name for path in (tmp_path / "envs").iterdir()) == [
        python.parents[1].name,
        f"{python.parents[1].name}.lock",
    ]


def test_an_install_that_fails_is_exit_5_with_the_installers_last_lines(
    tmp_path: Path, logged: tuple[Path, Path, list[list[float]]]
) -> None:
    spec = spec_of(logged[0], tmp_path, INFERRED, runtime="pyfunc", requirements=["iniconfig==0.0.0.dev999"])
    code, log = run_to_end(spec, tmp_path, module="model_servers.launch")
    assert code == 5
    assert "iniconfig==0.0.0.dev999" in log
    assert not [path for path in (tmp_path / "cache").iterdir() if path.suffix != ".lock"]


def test_a_file_among_the_requirements_is_an_error_of_the_installer_not_ours(tmp_path: Path) -> None:
    with pytest.raises(environments.CannotInstall):
        environments.prepare(["-r /nowhere/requirements.txt"], tmp_path)
