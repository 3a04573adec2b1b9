"""Small valid native artifacts, written without MLflow: for tests that serve a model but do not train one."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from model_servers.native import manifest as native
from model_servers.native.manifest import Calibration, Column, Feature, Manifest, TextBlock


def write(folder: Path, manifest: Manifest, arrays: dict[str, Any] | None = None) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "manifest.json").write_text(json.dumps(native.dump(manifest)))
    if arrays is not None:
        np.savez(folder / "arrays.npz", **arrays)
    return folder


def linear_binary(folder: Path, *, semver: str = "1.0.0", shift: float = 0.0) -> Path:
    """churn-like: tenure (nullable number), contract (category), senior (boolean); `shift` moves every margin."""
    manifest = Manifest(
        model="churn",
        semver=semver,
        problem="binary",
        kind="linear",
        features=(
            Feature("tenure", "number", nullable=True, range=(0, 100)),
            Feature("contract", "category", categories=("month", "year")),
            Feature("senior", "boolean"),
        ),
        columns=(
            Column("tenure", "number", fill=30.0),
            Column("contract", "onehot", values=("month", "year")),
            Column("senior", "number"),
        ),
        classes=("no", "yes"),
        threshold=0.4,
        decision=("keep", "call"),
        calibration=Calibration("isotonic", (0.0, 0.5, 1.0), (0.0, 0.4, 1.0)),
    )
    arrays = {
        "weights": np.array([[-0.05], [1.0], [-1.0], [0.5]]),
        "bias": np.array([0.5 + shift]),
        "centre": np.array([[-1.5], [0.2], [0.1]]),
    }
    return write(folder, manifest, arrays)


def xgboost_binary(folder: Path, *, semver: str = "1.0.0", seed: int = 0) -> Path:
    """fraud-like: amount (number), night (boolean), risk (nullable number); a real booster of ten trees."""
    import xgboost

    rng = np.random.default_rng(seed)
    matrix = np.column_stack([rng.exponential(60, 500), rng.integers(0, 2, 500), rng.random(500)]).astype(np.float32)
    label = (matrix[:, 0] + 100 * matrix[:, 2] + rng.normal(0, 20, 500) > 150).astype(int)
    parameters = {"objective": "binary:logistic", "max_depth": 3, "nthread": 1, "seed": seed}
    booster = xgboost.train(parameters, xgboost.DMatrix(matrix, label, nthread=1), 10)
    folder.mkdir(parents=True, exist_ok=True)
    booster.save_model(folder / "booster.ubj")
    manifest = Manifest(
        model="fraud",
        semver=semver,
        problem="binary",
        kind="xgboost",
        features=(
            Feature("amount", "number", range=(0, 100_000)),
            Feature("night", "boolean"),
            Feature("risk", "number", nullable=True),
        ),
        columns=(Column("amount", "number"), Column("night", "number"), Column("risk", "number")),
        classes=("0", "1"),
        threshold=0.2,
        decision=("accept", "review"),
    )
    return write(folder, manifest)


def tfidf_multiclass(folder: Path, *, semver: str = "1.0.0") -> Path:
    """categorization-like: description (text), amount (number) -> food | fuel | other."""
    grams = ["coffee", "bread", "fuel", "diesel", "station"]
    block = TextBlock("description", "word", 1, 1, "vocabulary_0.json")
    manifest = Manifest(
        model="categorization",
        semver=semver,
        problem="multiclass",
        kind="tfidf_linear",
        features=(Feature("description", "text"), Feature("amount", "number")),
        columns=(Column("amount", "number"),),
        text=(block,),
        classes=("food", "fuel", "other"),
        temperature=1.25,
    )
    weights = np.array([[4, -1, -1], [4, -1, -1], [-1, 4, -1], [-1, 4, -1], [-1, 3, 0]], dtype=np.float32)
    folder = write(
        folder,
        manifest,
        {
            "weights": np.array([[-0.01, 0.01, 0.0]]),
            "bias": np.array([0.0, 0.0, 0.5]),
            "centre": np.zeros((2, 3)),
            "idf_0": np.array([1.5, 1.5, 1.2, 2.0, 1.8]),
            "weights_0": weights,
        },
    )
    (folder / block.vocabulary).write_text(json.dumps(grams))
    return folder
