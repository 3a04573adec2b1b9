"""Wire model of GET /health."""

from typing import Literal

from control_plane.contracts.base import View


class HealthView(View):
    status: Literal["ok", "degraded"]
    version: str
    checks: dict[str, str]  # part -> "ok" or a sentence that says what is wrong
