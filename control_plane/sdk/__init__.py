"""The control plane from Python: `ControlPlane` for operators and scripts, `PredictionClient` for product services.

Names are imported when they are first used: a command line that needs one of them does not wait for the others.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from control_plane.sdk.client import AsyncControlPlane, ControlPlane
    from control_plane.sdk.paging import async_every, every
    from control_plane.sdk.predictions import AsyncPredictionClient, Prediction, PredictionClient, Predictions
    from control_plane.sdk.transport import Patience

__all__ = [
    "AsyncControlPlane",
    "AsyncPredictionClient",
    "ControlPlane",
    "Patience",
    "Prediction",
    "PredictionClient",
    "Predictions",
    "async_every",
    "every",
]

_MODULES = {
    "client": ("AsyncControlPlane", "ControlPlane"),
    "paging": ("async_every", "every"),
    "predictions": ("AsyncPredictionClient", "Prediction", "PredictionClient", "Predictions"),
    "transport": ("Patience",),
}


def __getattr__(name: str) -> Any:
    for module, names in _MODULES.items():
        if name in names:
            return getattr(import_module(f"{__name__}.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
