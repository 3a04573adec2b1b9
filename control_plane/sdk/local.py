"""Training on this machine, by the pipeline of this distribution in a process of its own."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from control_plane.errors import ControlPlaneError
from control_plane.sdk import config, subprocesses


class HoldoutMetric(BaseModel):
    """The declared metric on rows nothing was learnt from; `low` and `high` bound it with 95 % confidence."""

    model_config = ConfigDict(frozen=True)

    name: str
    value: float
    holdout_rows: int
    low: float
    high: float


class HoldoutCost(BaseModel):
    """What deciding the hold-out cost, by this version and by the best constant answer, in `currency`."""

    model_config = ConfigDict(frozen=True)

    model: float
    trivial: float
    currency: str


class Trained(BaseModel):
    """The version a training registered in MLflow, and how it did."""

    model_config = ConfigDict(frozen=True, protected_namespaces=())

    model: str
    version: str
    semver: str
    digest: str  # "sha256:..." of its artifact
    run_id: str
    metric: HoldoutMetric
    metrics: dict[str, float]
    cost: HoldoutCost | None = None  # None: model.yaml declares no costs


Told = Callable[[str, float], None]  # what is being done, and how much of all is done (0..1)


def _quiet(detail: str, fraction: float) -> None:
    """Nobody wants to know."""


def train_model(
    model: str,
    *,
    data: str | Path | None = None,
    seed: int | None = None,
    workers: int | None = None,
    scheduler: str | None = None,
    told: Told = _quiet,
) -> Trained:
    """Validate, train, choose, calibrate and register a version of `model`, as its model.yaml says.

    `data`: a CSV or Parquet file; None: rows made by the model's own simulation. The registry is MLCP_MLFLOW_URL or
    MLFLOW_TRACKING_URI of the environment, else `mlflow_url` in `$MLCP_HOME/mlcp.toml`. `workers`: XGBoost is fitted by
    so many Dask processes of this host, instead of what `training.workers` says; `scheduler`: by those of this Dask
    scheduler.

    Raises:
        InvalidData: the rows were refused; `extra["findings"]` names column, rows and examples.
        Unavailable: an extra is not installed, MLflow or the scheduler does not answer, or workers were lost for good.
    """
    last: dict[str, Any] = {}
    arguments = ["train", model, "--json", *_options(data, seed), *subprocesses.workers(workers, scheduler)]
    for event in subprocesses.events("training", "training", *arguments):
        last = event
        told(str(event.get("detail", "")), float(event.get("fraction", 0.0)))
    if "version" not in last:
        raise ControlPlaneError(f"The training of {model} ended without a version.")
    return Trained.model_validate(last)


def _options(data: str | Path | None, seed: int | None) -> list[str]:
    options = [] if data is None else ["--data", str(data)]
    if url := config.mlflow_url(folder=config.home()):
        options += ["--mlflow-url", url]
    return options if seed is None else [*options, "--seed", str(seed)]
