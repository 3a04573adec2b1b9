"""Training on this machine, by the pipeline of this distribution in a process of its own."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from control_plane.errors import ControlPlaneError
from control_plane.sdk import subprocesses


class Trained(BaseModel):
    """The version a training registered in MLflow; further members say how it did."""

    model_config = ConfigDict(frozen=True, extra="allow", protected_namespaces=())

    model: str
    version: str


Told = Callable[[str, float], None]  # what is being done, and how much of all is done (0..1)


def _quiet(detail: str, fraction: float) -> None:
    """Nobody wants to know."""


def train_model(model: str, *, data: str | Path | None = None, seed: int | None = None, told: Told = _quiet) -> Trained:
    """Validate, train, choose, calibrate and register a version of `model`, as its model.yaml says.

    `data`: a CSV or Parquet file; None: rows made by the model's own simulation. MLFLOW_TRACKING_URI or MLCP_MLFLOW_URL
    names the registry.

    Raises:
        InvalidData: the rows were refused; `extra["findings"]` names column, rows and examples.
        Unavailable: the extra `training` is not installed, or MLflow does not answer.
    """
    last: dict[str, Any] = {}
    for event in subprocesses.events("training", "training", "train", model, "--json", *_options(data, seed)):
        last = event
        told(str(event.get("detail", "")), float(event.get("fraction", 0.0)))
    if "version" not in last:
        raise ControlPlaneError(f"The training of {model} ended without a version.")
    return Trained.model_validate({"model": model, **last})


def _options(data: str | Path | None, seed: int | None) -> list[str]:
    options = [] if data is None else ["--data", str(data)]
    return options if seed is None else [*options, "--seed", str(seed)]
