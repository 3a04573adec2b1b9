"""What the reconciler asks of anything that runs model servers."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol
from uuid import UUID


@dataclass(frozen=True, slots=True)
class Unit:
    """One deployment: the servers of one version."""

    id: UUID
    model: str
    version: str
    digest: str  # "sha256:<hex>" of what has to be served
    runtime: Literal["native", "pyfunc"]
    config: Mapping[str, Any]  # model.yaml as JSON
    inferred: bool = False  # no model.yaml came with the version


@dataclass(frozen=True, slots=True)
class Seen:
    """One look. Ready means: it answers, with the right digest.

    absent    nothing runs and nothing is being started: `deploy` is due
    failed    it was given up, or serves something else; `error` says why
    """

    state: Literal["absent", "starting", "ready", "failed"]
    address: str | None = None  # unix:/path or http://host:port
    aux_address: str | None = None
    description: Mapping[str, Any] | None = None  # /schema of a server that is ready
    error: str | None = None


class Deployer(Protocol):
    """Every call is idempotent, and the whole truth lies outside this process: it may die between any two calls."""

    async def deploy(self, unit: Unit) -> None:
        """See to it that its servers get started; returns before they are ready. May take as long as a download.

        Raises an `Unavailable` for what may be better later, another ControlPlaneError for what never will: no
        artifact, or one whose digest is not the recorded one.
        """
        ...

    async def observe(self, unit: Unit) -> Seen:
        """Look at it. A server that does not answer is no error; answers within two seconds or so."""
        ...

    async def retire(self, deployment_id: UUID) -> bool:
        """Stop its servers, after what they are answering now. False: they are still at it, ask again soon."""
        ...

    async def sweep(self, live: frozenset[UUID]) -> None:
        """Stop whatever runs for deployments that are not in `live`: leftovers of a crash between two steps."""
        ...

    async def aclose(self) -> None: ...
