"""The clients of the commands, imported when a command needs one."""

import sys
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from control_plane.sdk import ControlPlane
    from control_plane.sdk.predictions import AsyncPredictionClient, PredictionClient


def admin() -> "ControlPlane":
    _quick_httpx()
    from control_plane.sdk import ControlPlane

    return ControlPlane(program="cli")


def predictions() -> "PredictionClient":
    _quick_httpx()
    from control_plane.sdk import PredictionClient

    return PredictionClient(timeout_s=10.0)


def pinning() -> "PredictionClient":
    """The data plane under the admin's key, which may name the version that answers."""
    _quick_httpx()
    from control_plane.sdk import PredictionClient, config

    key = config.key(None, variable="MLCP_API_KEY", folder=config.home(None), name="admin")
    return PredictionClient(key=key, timeout_s=10.0)


def async_predictions(connections: int) -> "AsyncPredictionClient":
    _quick_httpx()
    from control_plane.sdk import AsyncPredictionClient

    return AsyncPredictionClient(timeout_s=10.0, connections=connections)


def _quick_httpx() -> None:
    """Keep httpx from importing its own command line, which costs a quarter of a second where click is installed.

    A rollback should be on its way by then. httpx itself does without where click is missing.
    """
    if "httpx" not in sys.modules:
        stand_in = ModuleType("httpx._main")
        stand_in.main = lambda: None  # type: ignore[attr-defined]
        sys.modules.setdefault("httpx._main", stand_in)
