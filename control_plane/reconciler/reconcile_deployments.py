"""Which model servers should run, and what has become of them: desired rows -> deployer, what it sees -> rows.

pending ──deployed──> starting ──answers──> ready          draining ──every router has let go──> stopped
   └───────────────────┴──given up──> failed               (from any state, once nobody wants it)
"""

import asyncio
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Literal, cast
from uuid import UUID

import structlog
from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.adapters.deployers.base import Seen, Unit
from control_plane.adapters.store import deployments, snapshots, versions, wake
from control_plane.adapters.store.snapshots import Facts
from control_plane.adapters.store.tables import DeploymentRow, ModelRow, ModelVersionRow, RouterRow
from control_plane.domain import routing
from control_plane.domain.routing import Acknowledgement, Release, Share
from control_plane.domain.stages import Stage
from control_plane.errors import ControlPlaneError, Unavailable
from control_plane.reconciler.context import Context

_MISSES = 3  # looks in a row without an answer before a ready server counts as starting again
_RETRY_S = (1.0, 30.0)  # first and longest pause before a deployment is tried again
_SILENCE_S = 60.0  # without any live router: how long after its last snapshot a server is still left alone
_TIDY_S = 60.0

log = structlog.get_logger()


@dataclass(slots=True)
class _Attempt:
    task: asyncio.Task[None]
    failures: int = 0
    again_at: float = 0.0  # monotonic


@dataclass(slots=True)
class Memory:
    """Of this leader alone: what is being started, and how often a server did not answer."""

    attempts: dict[UUID, _Attempt] = field(default_factory=dict[UUID, _Attempt])
    misses: dict[UUID, int] = field(default_factory=dict[UUID, int])
    tidied: float = 0.0  # monotonic

    async def aclose(self) -> None:
        for attempt in self.attempts.values():
            attempt.task.cancel()
        await asyncio.gather(*(attempt.task for attempt in self.attempts.values()), return_exceptions=True)


def unit_of(row: DeploymentRow, version: ModelVersionRow) -> Unit:
    runtime = cast('Literal["native", "pyfunc"]', version.runtime)
    return Unit(row.id, row.model, row.version, row.digest, runtime, version.config, version.inferred)


async def look(context: Context, memory: Memory) -> bool:
    """Whether everything wanted was ready, and nothing is to be stopped."""
    now = datetime.now(UTC)
    async with context.looking() as session:
        facts = await snapshots.facts(session)
        routers = await snapshots.routers(session)
    pinned = frozenset(target for router in routers for target in _pins(router))
    for model in facts.models:
        if _is_off(facts, model, pinned, now, context.patience):
            async with context.leading() as session:
                await _agree(session, context, model.name, pinned, now)
    known = {(row.model, row.version): row for row in facts.versions}
    running = [row for row in facts.deployments if row.desired == "running"]
    ready = await asyncio.gather(
        *(_observe(context, memory, row, unit_of(row, known[row.model, row.version])) for row in running)
    )
    for row in facts.deployments:
        if row.desired == "stopped":
            await _retire(context, memory, row, unit_of(row, known[row.model, row.version]), routers, facts, now)
    if time.monotonic() - memory.tidied > _TIDY_S:
        await context.servers.sweep(frozenset(row.id for row in facts.deployments))
        await _prune(context)
        memory.tidied = time.monotonic()
    return all(ready) and len(running) == len(facts.deployments)


async def _prune(context: Context) -> None:
    async with context.looking() as session:
        needed = await versions.needed_digests(session)
    unused = timedelta(seconds=context.settings.artifact_cache_s)
    for digest in await context.artifacts.prune(needed, unused=unused):
        log.info("artifact pruned", digest=digest)


def _wanted(facts: Facts, model: ModelRow, now: datetime, patience: timedelta) -> frozenset[str]:
    entry = next((entry for entry in facts.rollouts if entry.model == model.name), None)
    staged = (row for row in facts.versions if row.model == model.name and row.stage == Stage.STAGING)
    awake = (row.version for row in staged if not routing.is_idle(row.stage_since, row.asked_at, now, patience))
    return routing.wanted(
        routing.Facts(
            salt=model.salt,
            production=model.production_version,
            staging=frozenset(awake),
            traffic=tuple(Share(str(part["version"]), int(part["weight"])) for part in model.traffic or ()),
            release=Release(str(entry.id), entry.candidate_version, entry.stable_version, entry.rollout)
            if entry
            else None,
        )
    )


def _is_off(facts: Facts, model: ModelRow, pinned: frozenset[str], now: datetime, patience: timedelta) -> bool:
    """Whether the model's deployments are not the ones wanted: a cheap look before the model's row is locked."""
    wanted = _wanted(facts, model, now, patience)
    mine = [row for row in facts.deployments if row.model == model.name and row.desired == "running"]
    deployable = {row.version for row in facts.versions if row.model == model.name and row.digest}
    missing = (wanted & deployable) - {row.version for row in mine}
    return bool(missing) or any(
        row.version not in wanted and str(row.id) not in pinned and (row.warm_until is None or row.warm_until <= now)
        for row in mine
    )


async def _agree(session: AsyncSession, context: Context, name: str, pinned: frozenset[str], now: datetime) -> None:
    """Want what should run; let go of what nobody wants, routes to or has pinned, once it is warm no more."""
    model = await versions.model(session, name, lock=True)  # decided again: nobody else changes the model now
    facts = await snapshots.facts(session)
    wanted = _wanted(facts, model, now, context.patience)
    digests = {row.version: row.digest for row in facts.versions if row.model == name}
    for version in wanted:
        if digest := digests.get(version):
            await deployments.ensure(session, name, version, digest, now=now)
    for row in facts.deployments:
        if row.model != name or row.desired != "running" or row.version in wanted or str(row.id) in pinned:
            continue
        if row.warm_until is None:
            await deployments.keep_warm(session, name, row.version, until=now + context.warm)
        elif row.warm_until <= now:
            await deployments.drain(session, row.id, now=now)
            log.info("draining", model=name, version=row.version)
    await wake.notify(session, f"deployments {name}")


def _pins(router: RouterRow) -> frozenset[str]:
    """Targets a router answers from by hand; what cannot be read pins nothing."""
    pins = cast("dict[str, object]", router.pins).values()
    return frozenset(str(cast("dict[str, object]", pin).get("target")) for pin in pins if isinstance(pin, dict))


async def _observe(context: Context, memory: Memory, row: DeploymentRow, unit: Unit) -> bool:
    """Whether it is ready, or failed for good."""
    deployer = context.deployer(unit)
    seen = await deployer.observe(unit)
    if seen.state == "absent":
        if row.state != "failed":  # a failure stays until a person asks again
            await _deploy(context, memory, row, unit)
        return row.state == "failed"
    if seen.state == "ready":
        memory.misses.pop(row.id, None)
    elif row.state == "ready" and seen.state == "starting":
        memory.misses[row.id] = memory.misses.get(row.id, 0) + 1
        if memory.misses[row.id] < _MISSES:
            return False
    await _save(context, row, seen)
    return seen.state in {"ready", "failed"}


async def _deploy(context: Context, memory: Memory, row: DeploymentRow, unit: Unit) -> None:
    """Start an attempt unless one is under way or has to wait; note how the last one failed."""
    attempt = memory.attempts.get(row.id)
    if attempt is not None:
        if not attempt.task.done():
            return
        failure = None if attempt.task.cancelled() else attempt.task.exception()
        if isinstance(failure, ControlPlaneError) and not isinstance(failure, Unavailable):
            del memory.attempts[row.id]
            await _save(context, row, Seen("failed", error=failure.detail))
            return
        if failure is not None and attempt.again_at == 0.0:
            attempt.failures += 1
            attempt.again_at = time.monotonic() + min(_RETRY_S[0] * 2 ** (attempt.failures - 1), _RETRY_S[1])
            await _save(context, row, Seen("absent", error=f"Trying again: {failure}"))
        if time.monotonic() < attempt.again_at:
            return
    failures = attempt.failures if attempt else 0
    task = asyncio.create_task(context.deployer(unit).deploy(unit), name=f"deploy {unit.model} {unit.version}")
    memory.attempts[row.id] = _Attempt(task, failures)


async def _save(context: Context, row: DeploymentRow, seen: Seen) -> None:
    state = "pending" if seen.state == "absent" else seen.state
    same = row.state == state and row.error == seen.error
    same = same and (seen.address is None or (row.address, row.aux_address) == (seen.address, seen.aux_address))
    if same and (seen.description is None or row.description == seen.description):
        return
    async with context.leading() as session:
        await deployments.observed(
            session,
            row.id,
            state=state,
            now=datetime.now(UTC),
            address=seen.address,
            aux_address=seen.aux_address,
            description=seen.description,
            error=seen.error,
        )
        await wake.notify(session, f"deployment {row.id}")
    log.info("deployment", model=row.model, version=row.version, was=row.state, now=state, error=seen.error)


async def _retire(
    context: Context,
    memory: Memory,
    row: DeploymentRow,
    unit: Unit,
    routers: Iterable[RouterRow],
    facts: Facts,
    now: datetime,
) -> None:
    if row.retired_revision is None:  # still in the newest snapshot
        return
    said = [
        Acknowledgement(router.epoch, router.revision, (now - router.seen_at).total_seconds(), _pins(router))
        for router in routers
    ]
    gone = routing.may_retire(
        str(row.id),
        row.retired_revision,
        said,
        epoch=facts.epoch,
        drained_s=(now - row.changed_at).total_seconds(),
        live_s=context.settings.router_live_s,
        silence_s=_SILENCE_S,
    )
    if not gone:
        return
    if not await context.deployer(unit).retire(row.id):
        return
    async with context.leading() as session:
        await deployments.stopped(session, row.id, now=now)
    memory.misses.pop(row.id, None)
    if attempt := memory.attempts.pop(row.id, None):
        attempt.task.cancel()
    log.info("stopped", model=row.model, version=row.version)
