"""Registers the fixed model in an MLflow server as a version the control plane serves natively, as a pipeline would.

    python -m benchmarks.serving.register BOOSTER VERSIONS      (MLFLOW_TRACKING_URI says where)

Its evidence is measured: the ROC AUC on fresh rows of the distribution it learnt from. All versions hold the same
booster and differ in their semantic version alone.
"""

import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.serving.fixed import FEATURES, hold_out
from model_servers.native import digest, manifest
from model_servers.native.manifest import Column, Feature, Manifest

ROOT = Path(__file__).parents[2]
MODEL = "fixed"
CONFIG = {
    "name": MODEL,
    "problem": "binary",
    "owner": "benchmarks",
    "purpose": "The one model every system serves in benchmarks/serving.",
    "features": {name: {"type": "number"} for name in FEATURES},
    "target": {"column": "y", "positive": True},
    "metric": {"name": "roc_auc", "minimum": 0.7},
    "serving": {"explain": "none", "workers": 2},
    "rollout": {"strategy": "immediate"},
}


def write(folder: Path, booster: Path, semver: str) -> None:
    """A native artifact around `booster`."""
    folder.mkdir(parents=True)
    described = Manifest(
        model=MODEL,
        semver=semver,
        problem="binary",
        kind="xgboost",
        features=tuple(Feature(name, "number") for name in FEATURES),
        columns=tuple(Column(name, "number") for name in FEATURES),
        classes=("False", "True"),
        threshold=0.5,
        decision=("no", "yes"),
    )
    example = {"features": dict.fromkeys(FEATURES, 0.0), "unit_id": "example"}
    files = {
        "manifest.json": json.dumps(manifest.dump(described)),
        "model.yaml": json.dumps(CONFIG),  # JSON is YAML
        "evidence.json": json.dumps(_evidence(booster)),
        "example.json": json.dumps(example),
    }
    for name, text in files.items():
        (folder / name).write_text(text)
    (folder / "booster.ubj").write_bytes(booster.read_bytes())


def _evidence(booster: Path) -> dict[str, Any]:
    import hashlib

    import xgboost
    from sklearn.metrics import roc_auc_score

    x, y = hold_out()
    scores = xgboost.Booster(model_file=str(booster)).inplace_predict(x)
    found = {"name": "roc_auc", "value": float(roc_auc_score(y, scores)), "holdout_rows": len(y)}
    sha = hashlib.sha256(np.ascontiguousarray(x).tobytes()).hexdigest()
    return {
        "format": 1,
        "metric": found,
        "data": {"validated": True, "sha256": sha, "rows": len(y), "holdout": {"sha256": sha}},
    }


def main(booster: Path, versions: int) -> None:
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    import mlflow
    import pandas as pd
    from mlflow import MlflowClient
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, Schema

    mlflow.set_experiment(MODEL)
    inputs = Schema([ColSpec("double", name) for name in FEATURES])
    signature = ModelSignature(inputs, Schema([ColSpec("double", "probability"), ColSpec("string", "decision")]))
    client = MlflowClient()
    client.create_registered_model(MODEL)
    for number in range(1, versions + 1):
        with tempfile.TemporaryDirectory() as temporary, mlflow.start_run() as run:
            native = Path(temporary) / "native"
            write(native, booster, f"1.0.{number}")
            info = mlflow.pyfunc.log_model(
                name="model",
                python_model=str(ROOT / "training" / "common" / "pyfunc_entry.py"),
                artifacts={"native": str(native)},
                signature=signature,
                input_example=pd.DataFrame([dict.fromkeys(FEATURES, 0.0)]),
                pip_requirements=["mlflow", "numpy", "pandas", "xgboost-cpu"],
            )
            tags = {"mlcp.runtime": "native", "mlcp.digest": digest.of_folder(native), "mlcp.semver": f"1.0.{number}"}
            client.create_model_version(
                MODEL, info.model_uri, run_id=run.info.run_id, model_id=info.model_id, tags=tags
            )


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
