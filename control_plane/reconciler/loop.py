"""One leader, one task per resource.

Each task looks when it is woken and once a period, and nothing it meets stops another: with MLflow or Redis dead a
rollback is routed as fast as ever. While nothing has been under way for a while, what is told by wake-ups anyway is
looked at less often.
"""

import asyncio
import os
import socket
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import structlog
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from control_plane.adapters import bus, kubeconfig, store
from control_plane.adapters.artifacts import ArtifactCache
from control_plane.adapters.deployers.base import Deployer
from control_plane.adapters.deployers.external import ExternalDeployer
from control_plane.adapters.deployers.kubernetes import KubernetesDeployer
from control_plane.adapters.deployers.local import LocalDeployer
from control_plane.adapters.kubernetes import Cluster
from control_plane.adapters.metrics import Metrics
from control_plane.adapters.registry import Registry
from control_plane.adapters.store import lease
from control_plane.adapters.store.lease import Lease, LeaseLost
from control_plane.adapters.store.wake import Wake, listening
from control_plane.errors import Unavailable
from control_plane.reconciler import (
    reconcile_aliases,
    reconcile_analysis,
    reconcile_audit,
    reconcile_deployments,
    reconcile_registry,
    reconcile_rollouts,
    reconcile_routers,
    reconcile_snapshot,
)
from control_plane.reconciler.context import Context
from control_plane.settings import ReconcilerSettings
from control_plane.telemetry import mark_ready

LEASE = "reconciler"
_LOOK_S = 1.0
_BUSY_S = 10.0  # after a wake-up, or a look that found something under way, looks are that long a second apart
_YIELD_S = 0.1  # what does not route waits that long when woken: all of it shares one processor with what does
_REST_S = 0.02  # between two looks of one resource, however often it is woken
_LONGEST_S = 5.0  # between two looks of a resource that keeps failing
_SIGN_S = 5.0  # between two looks at what of the audit is to be signed
_STALLED_MS = 4_000  # a transaction idle for longer is ended: it would hold the lease row of a stopped leader

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Resource:
    """`look`: told whether it was woken; whether all was as it should be, so that nothing needs to be followed.

    `calm_s`: between two looks while nobody wakes it and nothing is under way. `yield_s`: its wait when woken.
    """

    look: Callable[[bool], Awaitable[bool]]
    calm_s: float
    yield_s: float = _YIELD_S
    busy_s: float = _LOOK_S


async def run(settings: ReconcilerSettings) -> None:
    """Lead whenever nobody else does, until cancelled."""
    dsn = settings.postgres_dsn.get_secret_value()
    holder = f"{socket.gethostname()}:{os.getpid()}:{uuid4().hex[:8]}"
    ttl = timedelta(seconds=settings.lease_s)
    async with AsyncExitStack() as stack:
        metrics = Metrics(settings.run / "metrics", "reconciler")
        await stack.enter_async_context(metrics.alive("reconciler", settings.metrics_host, settings.metrics_port))
        engine = store.create_engine(dsn, stalled_ms=_STALLED_MS)
        stack.push_async_callback(engine.dispose)
        sessions = store.sessions(engine)
        redis = bus.connect(settings.redis_url)
        stack.push_async_callback(redis.aclose)
        registry = Registry(settings.mlflow_url)
        stack.push_async_callback(registry.aclose)
        artifacts = ArtifactCache(settings.home, registry)
        servers, elsewhere = _deployer(settings, artifacts), ExternalDeployer()
        stack.push_async_callback(servers.aclose)
        stack.push_async_callback(elsewhere.aclose)
        signed = reconcile_audit.Memory.fresh(metrics)
        wake = await stack.enter_async_context(listening(dsn))
        mark_ready()  # waiting for the lease is what a second reconciler is for
        while True:
            mine = await _next_lease(sessions, holder, ttl)
            context = Context(
                settings, sessions, redis, registry, artifacts, servers, elsewhere, mine, datetime.now(UTC)
            )
            log.info("leading", epoch=mine.epoch)
            try:
                signed.exported = None  # another leader may have gone on meanwhile
                await _lead(context, wake, ttl, signed)
            except* LeaseLost as lost:
                log.warning("leadership lost", epoch=mine.epoch, why=str(lost.exceptions[0]))
            finally:
                await _give_back(sessions, mine)


def _deployer(settings: ReconcilerSettings, artifacts: ArtifactCache) -> Deployer:
    match settings.deployer:
        case "local":
            return LocalDeployer(settings.home, artifacts)
        case "kubernetes":
            cluster = Cluster(kubeconfig.access(os.environ), settings.kubernetes_namespace)
            return KubernetesDeployer(cluster, settings.mlflow_url)


async def _next_lease(sessions: async_sessionmaker[AsyncSession], holder: str, ttl: timedelta) -> Lease:
    while True:
        try:
            async with sessions.begin() as session:
                if mine := await lease.acquire(session, LEASE, holder, ttl):
                    return mine
        except (SQLAlchemyError, OSError) as exc:
            log.warning("the lease cannot be asked for", error=repr(exc))
        await asyncio.sleep(_LOOK_S)


async def _lead(context: Context, wake: Wake, ttl: timedelta, signed: reconcile_audit.Memory) -> None:
    """Until the lease is lost. A task that ends otherwise is a mistake of ours and ends the process."""
    published, deployments = reconcile_snapshot.Memory(), reconcile_deployments.Memory()
    routers, registered, mirrored = reconcile_routers.Memory(), reconcile_registry.Memory(), reconcile_aliases.Memory()

    async def routing(woken: bool) -> bool:
        moving = True
        try:
            moving = await reconcile_rollouts.look(context)
        finally:  # what is to be routed is published whatever keeps a rollout from moving
            settled = await reconcile_snapshot.look(context, published)
        return settled and not moving

    async def registry_side(woken: bool) -> bool:
        listing = await reconcile_registry.look(context, registered, woken=woken)
        if listing is not None:
            await reconcile_aliases.look(context, mirrored, listing)
            registered.mirrored = listing.models
        return listing is None

    poll_s = context.settings.registry_poll_s
    resources = {
        "routing": Resource(routing, 5.0, yield_s=0.0),  # also how soon an emptied Redis has its snapshot again
        "analysis": Resource(lambda woken: reconcile_analysis.look(context), 5.0),
        "deployments": Resource(lambda woken: reconcile_deployments.look(context, deployments), 3.0),
        "routers": Resource(lambda woken: reconcile_routers.look(context, routers), 2.0),  # well below router_live_s
        "registry": Resource(registry_side, poll_s, busy_s=poll_s),
    }
    signing = Resource(lambda woken: reconcile_audit.look(context, signed), _SIGN_S, busy_s=_SIGN_S)
    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(_renew(context, ttl), name="lease")
            for name, resource in resources.items():
                group.create_task(_repeat(name, resource, wake.bell()), name=name)
            group.create_task(_repeat("audit", signing, asyncio.Event()), name="audit")  # nothing makes it more urgent
    finally:
        wake.forget()
        await deployments.aclose()
        await registered.aclose()


async def _renew(context: Context, ttl: timedelta) -> None:
    renewed = time.monotonic()
    while True:
        await asyncio.sleep(min(1.0, ttl.total_seconds() / 5))
        try:
            async with context.sessions.begin() as session:
                await lease.renew(session, context.lease, ttl)
            renewed = time.monotonic()
        except (SQLAlchemyError, OSError) as exc:
            log.warning("the lease cannot be renewed", error=repr(exc))
            if time.monotonic() - renewed > ttl.total_seconds():
                raise LeaseLost("The database did not answer for as long as the lease lasts.") from exc


async def _repeat(name: str, resource: Resource, bell: asyncio.Event) -> None:
    failures, woken, busy_at = 0, True, time.monotonic()
    while True:
        bell.clear()
        try:
            if not await resource.look(woken) or woken:
                busy_at = time.monotonic()
            failures, woken = 0, False
        except LeaseLost:
            raise
        except Exception as exc:
            failures += 1
            busy_at = time.monotonic()
            expected = isinstance(exc, (Unavailable, SQLAlchemyError, OSError))
            log.warning("a look failed", resource=name, failures=failures, error=repr(exc), exc_info=not expected)
        rest_s = min(_REST_S * 2**failures, _LONGEST_S)
        await asyncio.sleep(rest_s)
        period_s = resource.busy_s if time.monotonic() - busy_at < _BUSY_S else resource.calm_s
        try:
            async with asyncio.timeout(max(period_s - rest_s, 0)):
                await bell.wait()
            woken = True
            await asyncio.sleep(resource.yield_s)
        except TimeoutError:
            pass


async def _give_back(sessions: async_sessionmaker[AsyncSession], mine: Lease) -> None:
    """So that the next leader need not wait for the lease to expire."""
    try:
        async with sessions.begin() as session:
            await lease.release(session, mine)
    except (SQLAlchemyError, OSError) as exc:
        log.warning("the lease cannot be given back", error=repr(exc))
