"""The control plane from Python: `ControlPlane` for operators and scripts, `PredictionClient` for product services.

Names are imported when they are first used: a command line that needs one of them does not wait for the others.
"""

from typing import TYPE_CHECKING

from control_plane.sdk import lazy

if TYPE_CHECKING:
    from control_plane.sdk.classic import deploy_model, get_performance, record_prediction
    from control_plane.sdk.client import AsyncControlPlane, ControlPlane
    from control_plane.sdk.drift import DriftDetector, DriftReport
    from control_plane.sdk.local import Trained, train_model
    from control_plane.sdk.paging import async_every, every
    from control_plane.sdk.predictions import AsyncPredictionClient, Prediction, PredictionClient, Predictions
    from control_plane.sdk.transport import Patience

__all__ = [
    "AsyncControlPlane",
    "AsyncPredictionClient",
    "ControlPlane",
    "DriftDetector",
    "DriftReport",
    "Patience",
    "Prediction",
    "PredictionClient",
    "Predictions",
    "Trained",
    "async_every",
    "deploy_model",
    "every",
    "get_performance",
    "record_prediction",
    "train_model",
]

_MODULES = {
    "classic": ("deploy_model", "get_performance", "record_prediction"),
    "client": ("AsyncControlPlane", "ControlPlane"),
    "drift": ("DriftDetector", "DriftReport"),
    "local": ("Trained", "train_model"),
    "paging": ("async_every", "every"),
    "predictions": ("AsyncPredictionClient", "Prediction", "PredictionClient", "Predictions"),
    "transport": ("Patience",),
}

__getattr__ = lazy.names(__name__, __name__, _MODULES)
