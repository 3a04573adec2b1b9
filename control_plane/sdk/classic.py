"""The calls people know from MLOps set-ups, on top of the clients. Each takes its settings from the environment.

train_model("fraud")                        train_model("categorization")
deploy_model("fraud", reason="...")         record_prediction("fraud", features)
get_performance("fraud", period="7d")       DriftDetector(reference).detect_drift(current)
"""

from collections.abc import Mapping

from control_plane.contracts.models import PerformanceView
from control_plane.contracts.rollouts import RolloutView
from control_plane.sdk.client import ControlPlane
from control_plane.sdk.drift import DriftDetector, DriftReport
from control_plane.sdk.local import Trained, train_model
from control_plane.sdk.predictions import Prediction, PredictionClient

__all__ = [
    "DriftDetector",
    "DriftReport",
    "Trained",
    "deploy_model",
    "get_performance",
    "record_prediction",
    "train_model",
]


def deploy_model(model: str, version: str | None = None, *, reason: str, timeout_s: float = 120.0) -> RolloutView:
    """Make a version Production (None: the newest whose gates let it) and return when every router answers with it.

    Raises:
        GatesNotMet: `extra["reasons"]` names every gate that does not let it.
        Conflict: the candidate could not be deployed, or the rollout was aborted.
        DeadlineExceeded: not within `timeout_s` seconds.
    """
    with ControlPlane() as cp:
        return cp.wait_rollout(cp.promote(model, version, reason=reason), timeout_s=timeout_s)


def record_prediction(
    model: str,
    features: Mapping[str, object],
    *,
    unit_id: str | None = None,
    actual: float | bool | str | None = None,
) -> Prediction:
    """Ask the model; the data plane records the answer before it is given. `actual`: the truth, if already known.

    A service that asks often keeps a `PredictionClient` instead: this opens a connection each time.
    """
    with PredictionClient() as ml:
        answer = ml.predict(model, features, unit_id=unit_id)
        if actual is not None:
            ml.outcome(model, actual, prediction_id=answer.prediction_id)
        return answer


def get_performance(model: str, *, period: str = "24h") -> PerformanceView:
    """Requests, latency and quality per version over the last `period` (such as 15m, 24h, 7d)."""
    with ControlPlane() as cp:
        return cp.performance(model, period=period)
