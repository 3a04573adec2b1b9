"""The control plane from Python: `ControlPlane` for operators and scripts, `PredictionClient` for product services.

Names are imported when they are first used: a command line that needs one of them does not wait for the others.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from control_plane.sdk.client import AsyncControlPlane, ControlPlane

__all__ = ["AsyncControlPlane", "ControlPlane"]

_MODULES = {"AsyncControlPlane": "client", "ControlPlane": "client"}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
