"""What every reconciliation may use, for as long as this process leads."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta

from redis.asyncio import Redis
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from control_plane.adapters.artifacts import ArtifactCache
from control_plane.adapters.deployers.base import Deployer, Unit
from control_plane.adapters.deployers.external import ExternalDeployer, endpoint
from control_plane.adapters.registry import Registry
from control_plane.adapters.store import lease
from control_plane.adapters.store.lease import Lease
from control_plane.domain.audit import Actor
from control_plane.services import promotion
from control_plane.services.cutover import Cause
from control_plane.services.promotion import Policy
from control_plane.settings import ReconcilerSettings

CAUSE = Cause(Actor("reconciler"), "reconciler")


@dataclass(frozen=True, slots=True)
class Context:
    settings: ReconcilerSettings
    sessions: async_sessionmaker[AsyncSession]
    redis: Redis
    registry: Registry
    artifacts: ArtifactCache
    servers: Deployer  # of this installation
    elsewhere: ExternalDeployer
    lease: Lease
    since: datetime  # when it began to lead

    @asynccontextmanager
    async def leading(self) -> AsyncGenerator[AsyncSession]:
        """A transaction only the leader can commit. LeaseLost for one that leads no more."""
        async with self.sessions.begin() as session:
            await lease.hold(session, self.lease)
            yield session

    @asynccontextmanager
    async def looking(self) -> AsyncGenerator[AsyncSession]:
        """Everything read in here is of one moment. Nothing is written."""
        async with self.sessions() as session:
            await session.connection(execution_options={"isolation_level": "REPEATABLE READ"})
            yield session
            await session.commit()  # of nothing; a rollback would expire the rows just read

    def deployer(self, unit: Unit) -> Deployer:
        return self.elsewhere if endpoint(unit) else self.servers

    @property
    def warm(self) -> timedelta:
        return timedelta(seconds=self.settings.warm_s)

    @property
    def patience(self) -> timedelta:
        """With a version in Staging that nobody asks for."""
        return timedelta(seconds=self.settings.staging_idle_s)

    @property
    def policy(self) -> Policy:
        """The same gates as the API's: it is told here what would be asked there."""
        return promotion.platform(self.settings)
