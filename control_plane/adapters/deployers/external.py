"""A model someone else serves: an Open Inference Protocol (v2) endpoint named by `serving.endpoint`.

Nothing is started or stopped here, and no digest can be verified: whoever runs the endpoint answers for what it serves.
"""

from collections.abc import Mapping
from typing import Any, cast
from urllib.parse import urlsplit
from uuid import UUID

import httpx

from control_plane.adapters.deployers.base import Seen, Unit
from control_plane.contracts import oip

_LOOK_S = 1.5


def endpoint(unit: Unit) -> tuple[str, str] | None:
    """(base URL, the model's name there) if the version is served elsewhere, else None.

    `serving.endpoint` is the server's URL, or the model's own: http://host/v2/models/other-name.
    """
    url = cast("Mapping[str, Any]", unit.config.get("serving") or {}).get("endpoint")
    if not url:
        return None
    parts = urlsplit(str(url))
    base, _, name = parts.path.partition("/v2/models/")
    return f"{parts.scheme}://{parts.netloc}{base.rstrip('/')}", name.strip("/") or unit.model


class ExternalDeployer:
    def __init__(self) -> None:
        self._client = httpx.AsyncClient(timeout=_LOOK_S, trust_env=False)

    async def aclose(self) -> None:
        await self._client.aclose()

    async def deploy(self, unit: Unit) -> None:
        """It runs already, or somebody else has to see to it."""

    async def observe(self, unit: Unit) -> Seen:
        found = endpoint(unit)
        if found is None:
            return Seen("failed", error=f"{unit.model} {unit.version} declares no serving.endpoint.")
        base, name = found
        try:
            if (await self._client.get(f"{base}/v2/models/{name}/ready")).status_code != 200:
                return Seen("starting", base)
            answer: object = (await self._client.get(f"{base}/v2/models/{name}")).json()
        except (httpx.HTTPError, ValueError):
            return Seen("starting", base)
        metadata = cast("Mapping[str, Any]", answer if isinstance(answer, dict) else {})
        try:
            return Seen("ready", base, description=oip.describe(unit.config, metadata))
        except ValueError as exc:
            return Seen("failed", base, error=f"{base} cannot serve {unit.model} {unit.version}: {exc}")

    async def retire(self, deployment_id: UUID) -> bool:
        """Not ours to stop."""
        return True

    async def sweep(self, live: frozenset[UUID]) -> None:
        """Not ours to stop."""
