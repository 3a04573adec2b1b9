"""Postgres -> the routing snapshot: built from one consistent look, saved by the leader alone, then published.

Nothing is published that is not in Postgres first, and what has not changed is not published again.
"""

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Any, cast
from uuid import UUID

import msgspec
import structlog

from control_plane.adapters import bus
from control_plane.adapters.deployers.external import endpoint
from control_plane.adapters.store import audit, snapshots
from control_plane.adapters.store import rollouts as rollout_store
from control_plane.adapters.store.rollouts import Entry
from control_plane.adapters.store.snapshots import Facts
from control_plane.adapters.store.tables import DeploymentRow, ModelRow, ModelVersionRow
from control_plane.contracts import snapshot as wire
from control_plane.contracts.snapshot import KeyGrant, ModelRoute, Snapshot, Target
from control_plane.domain import governance, routing
from control_plane.domain.assignment import BUCKETS
from control_plane.domain.routing import Release, Route, Server, Share
from control_plane.domain.stages import Stage
from control_plane.errors import BusUnavailable
from control_plane.reconciler.context import CAUSE, Context
from control_plane.reconciler.reconcile_deployments import unit_of

_CHECK_BUS_S = 2.0  # how often Redis is asked whether it still has what was published
log = structlog.get_logger()


@dataclass(slots=True)
class Memory:
    """Of this leader alone, and only to spare work."""

    revision: int | None = None  # of `models`
    models: Mapping[str, ModelRoute] | None = None  # of the newest snapshot, decoded
    bus_has: bytes | None = None  # the document known to be in Redis
    checked: float = 0.0  # monotonic


async def look(context: Context, memory: Memory) -> bool:
    """Whether everything was published already."""
    async with context.looking() as session:
        facts = await snapshots.facts(session)
        newest = await snapshots.newest(session)
        unpublished = await rollout_store.unpublished(session)
        seen = [(router.epoch, router.revision) for router in await snapshots.routers(session)]
    last = _last(memory, newest.revision if newest else None, newest.document if newest else None)
    hold_out, now = context.policy.hold_out, datetime.now(UTC)
    models = {
        model.name: _route(facts, model, last.get(model.name), hold_out, _sleeping(facts, model, now, context.patience))
        for model in facts.models
    }
    content = Snapshot(
        schema_version=wire.SCHEMA, epoch=0, revision=0, created_at="", models=models, keys=_grants(facts)
    )
    content_hash = sha256(wire.encode(content)).digest()
    published = (newest.epoch, newest.revision) if newest else (0, 0)
    changed = newest is None or newest.content_hash != content_hash
    if changed:  # its number may be one that routers know already, and no report of theirs has reached the database yet
        seen.append(await _in_redis(context))
    restored = routing.position_after_restore(published, seen)
    draining = [row.id for row in facts.deployments if row.state == "draining" and row.retired_revision is None]
    document = newest.document if newest else None
    epoch, revision = published
    if changed or restored is not None:
        epoch, revision = max(facts.epoch, published[0], restored or 0), published[1] + 1
        document = wire.encode(
            msgspec.structs.replace(content, epoch=epoch, revision=revision, created_at=_rfc3339(datetime.now(UTC)))
        )
        await _save(context, document, content_hash, epoch, revision, restored, unpublished, draining)
        log.info("snapshot", epoch=epoch, revision=revision, bytes=len(document))
        memory.revision, memory.models = revision, models
    elif unpublished or draining:
        async with context.leading() as session:
            await rollout_store.mark_published(session, unpublished, revision)
            await snapshots.drained_at(session, draining, revision)
    if document is not None:
        try:
            await _publish(context, memory, document, epoch, revision)
        except BusUnavailable:  # routers that find nothing there ask the API, which has it by now
            await _told(context, unpublished)
            raise
        await _told(context, unpublished)
    return not (changed or restored is not None or unpublished or draining)


async def _save(
    context: Context,
    document: bytes,
    content_hash: bytes,
    epoch: int,
    revision: int,
    restored: int | None,
    unpublished: Sequence[tuple[UUID, int]],
    draining: Sequence[UUID],
) -> None:
    async with context.leading() as session:
        await snapshots.add(session, epoch=epoch, revision=revision, document=document, content_hash=content_hash)
        await rollout_store.mark_published(session, unpublished, revision)
        await snapshots.drained_at(session, draining, revision)
        if restored is not None:
            await snapshots.raise_epoch(session, epoch)
            await audit.append(
                session,
                "snapshot.epoch_raised",
                actor=CAUSE.actor,
                object="installation",
                trigger=CAUSE.trigger,
                after={"epoch": epoch, "revision": revision},
                reasons=["Routers have applied a snapshot newer than any in this database: it was restored."],
            )


async def _told(context: Context, states: Sequence[tuple[UUID, int]]) -> None:
    """From here on holds count: a leader that dies before this has told nobody for all the next one knows."""
    if states:
        async with context.leading() as session:
            await rollout_store.mark_told(session, states, at=datetime.now(UTC))


async def _in_redis(context: Context) -> tuple[int, int]:
    """(epoch, revision) of the snapshot routers find there; (0, 0) if they find none."""
    try:
        document = await bus.snapshot(context.redis)
        found = wire.decode(document) if document is not None else None
    except (BusUnavailable, ValueError):
        return (0, 0)
    return (found.epoch, found.revision) if found else (0, 0)


async def _publish(context: Context, memory: Memory, document: bytes, epoch: int, revision: int) -> None:
    """Hand it to Redis, and again whenever Redis has lost it. Routers without Redis ask the API."""
    now = time.monotonic()
    if document == memory.bus_has and now - memory.checked < _CHECK_BUS_S:
        return
    if document == memory.bus_has:
        memory.bus_has = await bus.snapshot(context.redis)
    if document != memory.bus_has:
        await bus.publish_snapshot(context.redis, document, epoch, revision)
        memory.bus_has = document
    memory.checked = now


def _last(memory: Memory, revision: int | None, document: bytes | None) -> Mapping[str, ModelRoute]:
    if memory.models is None or memory.revision != revision:
        memory.revision, memory.models = revision, wire.decode(document).models if document else {}
    return memory.models


def _route(
    facts: Facts, model: ModelRow, last: ModelRoute | None, hold_out: int, sleeping: Sequence[str]
) -> ModelRoute:
    versions = {row.version: row for row in facts.versions if row.model == model.name}
    deployments = {
        str(row.id): row
        for row in facts.deployments
        if row.model == model.name and row.desired == "running" and row.address and row.version in versions
    }
    entry = next((entry for entry in facts.rollouts if entry.model == model.name), None)
    staged = [row for row in versions.values() if row.stage == Stage.STAGING]
    made = routing.route(
        routing.Facts(
            salt=model.salt,
            production=model.production_version,
            previous=model.previous_version,
            staging=frozenset(row.version for row in staged),
            traffic=_traffic(model),
            servers=tuple(Server(key, row.version, row.state == "ready") for key, row in deployments.items()),
            release=_release(entry) if entry else None,
            last=_known(last),
        )
    )
    declared = versions.get(model.production_version or "") or max(
        versions.values(), key=lambda row: int(row.version), default=None
    )
    config: Mapping[str, Any] = declared.config if declared else {}
    targets = {key: _target(deployments[key], versions[deployments[key].version]) for key in sorted(made.targets)}
    there = {target.version for target in targets.values()}
    asleep = tuple(version for version in sleeping if version not in there)
    aliases: dict[str, str | None] = {"production": model.production_version, "staging": _newest(staged)}
    slo = cast("Mapping[str, Any]", config.get("slo") or {})
    serving = cast("Mapping[str, Any]", config.get("serving") or {})
    return ModelRoute(
        targets=targets,
        arms=tuple(wire.Arm(variant=arm.variant, weight=arm.weight, target=arm.target) for arm in made.arms),
        salt=made.salt,
        rollout_id=made.rollout_id,
        step=made.step,
        shadows=tuple(wire.Shadow(target=target, weight=weight) for target, weight in made.shadows),
        targeting=_targeting(entry, made, hold_out),
        aliases={alias: version for alias, version in aliases.items() if version and version in there | {*asleep}},
        sleeping=asleep,
        previous=made.previous,
        unit=config.get("unit"),
        deadline_ms=int(slo.get("deadline_ms") or 500),
        rate_limit_rps=serving.get("rate_limit_rps"),
        problem=str(config.get("problem") or "opaque"),
    )


def _sleeping(facts: Facts, model: ModelRow, now: datetime, patience: timedelta) -> list[str]:
    """Versions in Staging that may be without servers for want of requests, those being started again included."""
    failed = {row.version for row in facts.deployments if row.model == model.name and row.state == "failed"}
    staged = (row for row in facts.versions if row.model == model.name and row.stage == Stage.STAGING)
    return sorted(
        row.version
        for row in staged
        if row.version not in failed
        and (row.asked_at is not None or routing.is_idle(row.stage_since, row.asked_at, now, patience))
    )


def _targeting(entry: Entry | None, made: Route, hold_out: int) -> wire.Targeting | None:
    """None where everybody is divided by buckets, or nobody gets a candidate."""
    shared = any(arm.variant == "candidate" for arm in made.arms)
    if not (shared or made.allowed):
        return None
    plan = entry.rollout.plan.targeting if entry and made.rollout_id == str(entry.id) else None
    if plan is None:
        return wire.Targeting(hold_out=hold_out) if hold_out else None
    layer = plan.layer
    return wire.Targeting(
        hold_out=hold_out,
        key=plan.key,
        exclude=plan.exclude,
        allow=plan.allow,
        candidate=made.allowed,
        layer=layer.name if layer else None,
        first=layer.first if layer else 0,
        last=layer.last if layer else BUCKETS,
    )


def _newest(rows: Sequence[ModelVersionRow]) -> str | None:
    return max((row.version for row in rows), key=int, default=None)


def _traffic(model: ModelRow) -> tuple[Share, ...]:
    return tuple(Share(str(part["version"]), int(part["weight"])) for part in model.traffic or ())


def _release(entry: Entry) -> Release:
    return Release(str(entry.id), entry.candidate_version, entry.stable_version, entry.rollout)


def _known(last: ModelRoute | None) -> Route:
    """The published route in the domain's words."""
    if last is None:
        return Route()
    arms = tuple(routing.Arm(arm.variant, arm.weight, arm.target) for arm in last.arms)
    return Route(arms=arms, salt=last.salt, rollout_id=last.rollout_id, step=last.step)


def _target(row: DeploymentRow, version: ModelVersionRow) -> Target:
    described = row.description or {}
    elsewhere = endpoint(unit_of(row, version))
    return Target(
        id=str(row.id),
        version=row.version,
        digest=row.digest,
        address=row.address or "",
        aux_address=row.aux_address,
        protocol="oip" if elsewhere else "native",
        remote_name=elsewhere[1] if elsewhere else None,
        features=tuple(str(name) for name in cast("list[object]", described.get("features") or [])),
        # Postgres keeps no order of members: sorted, the same description is the same bytes.
        schema=msgspec.Raw(json.dumps(described, sort_keys=True).encode()) if described else msgspec.Raw(b"null"),
    )


def _grants(facts: Facts) -> dict[str, KeyGrant]:
    """Hashes of the keys that may predict, with what they may predict."""
    grants: dict[str, KeyGrant] = {}
    for key, principal in facts.keys:
        grant = governance.Grant(governance.Role(principal.role), tuple(principal.models), tuple(key.scopes))
        if governance.refusal(grant, governance.Action.PREDICT) is None:
            grants[key.hash.hex()] = KeyGrant(
                key_id=str(key.id),
                models=tuple(principal.models),
                pin=governance.may_pin(grant),
                expires_at=key.expires_at.timestamp() if key.expires_at else None,
                rate_limit_rps=key.rate_limit_rps,
            )
    return grants


def _rfc3339(at: datetime) -> str:
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")
