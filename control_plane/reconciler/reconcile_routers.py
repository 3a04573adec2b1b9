"""What routers report: Redis -> the routers table; pins put in and taken out by hand are audited once each."""

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, cast

import structlog
from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.adapters import bus
from control_plane.adapters.store import audit, routers, snapshots, wake
from control_plane.domain.audit import Actor
from control_plane.errors import BusUnavailable
from control_plane.reconciler.context import Context
from control_plane.services.cutover import NO_REASON

_FORGOTTEN_S = 3_600.0  # a router silent for so long is taken out of Redis and of the table
_ACTIONS = {"pin": "router.pinned", "release": "router.released"}  # entry of a host's journal -> audit action
_RECENT = 1_000  # audit rows an entry is looked for in; hosts report their newest 50
log = structlog.get_logger()


@dataclass(slots=True)
class Memory:
    """Of this leader alone: each router's last report, `at` by its own clock's reading."""

    at: dict[str, float] = field(default_factory=dict[str, float])
    said: dict[str, dict[str, object]] = field(default_factory=dict[str, dict[str, object]])
    asked: dict[tuple[str, str], float] = field(default_factory=dict[tuple[str, str], float])  # as noted last


async def look(context: Context, memory: Memory) -> bool:
    """Whether all of them said what they had said before."""
    try:
        reports = await bus.router_reports(context.redis)
    except BusUnavailable as exc:  # then routers post to the API, which writes the same table
        log.info("no router reports from Redis", error=exc.detail)
        reports = {}
    now = time.time()
    fresh: dict[str, dict[str, object]] = {}
    for router_id, report in reports.items():
        at = float(cast("float", report.get("at") or 0.0))
        # Fresh is what has changed since the last look: clocks of other hosts need not agree with ours.
        known = memory.at.get(router_id)
        if at != known if known is not None else abs(now - at) < context.settings.router_live_s:
            fresh[router_id] = report
        elif now - at > _FORGOTTEN_S:
            await bus.forget_router(context.redis, router_id)
        memory.at[router_id] = at
    await _catch_up(context, fresh)
    await _note_asked(context, memory, fresh)
    async with context.looking() as session:
        before = await _pinned(session)
        live = {router.router_id for router in await routers.live(session, _live(context))}
        known_pins = [row.pins for row in await snapshots.routers(session) if row.router_id in live - fresh.keys()]
    pins = _merged([*known_pins, *(_object(report.get("pins")) for report in fresh.values())])
    if fresh:
        async with context.leading() as session:
            for router_id, report in fresh.items():
                await routers.report(
                    session,
                    router_id,
                    epoch=int(cast("int", report.get("epoch") or 0)),
                    revision=int(cast("int", report.get("revision") or 0)),
                    pins=_object(report.get("pins")),
                    rejected=cast("str | None", report.get("rejected")),
                )
            await snapshots.forget_routers(session, timedelta(seconds=_FORGOTTEN_S))
    if live or fresh:  # nobody reporting is no news about pins
        await _audit(context, before, pins)
    said = {name: {key: value for key, value in report.items() if key != "at"} for name, report in reports.items()}
    same, memory.said = said == memory.said, said
    return same


async def _catch_up(context: Context, fresh: Mapping[str, Mapping[str, object]]) -> None:
    """Audit what routers' hosts wrote down while nobody could: pins and releases in their own order, once each."""
    told: dict[tuple[str, str, str], Mapping[str, Any]] = {}
    for report in fresh.values():
        for entry in cast("list[object]", report.get("journal") or []):
            found = _object(entry)
            told[_key(found)] = found
    if not told:
        return
    async with context.looking() as session:
        audited = {
            _key(_object(record.get("evidence")))
            for record in await audit.recent_of(session, tuple(_ACTIONS.values()), _RECENT)
        }
    for key in sorted(told.keys() - audited, key=lambda key: key[2]):
        entry = told[key]
        if (action := _ACTIONS.get(key[1])) is None:
            continue
        pin = {name: value for name, value in entry.items() if name != "action"}
        async with context.leading() as session:
            await audit.append(
                session,
                action,
                actor=Actor(str(entry.get("person") or "unknown")),
                object=f"model:{key[0]}",
                trigger="router",
                after=pin if key[1] == "pin" else None,
                reasons=[str(entry.get("reason") or NO_REASON)],
                evidence=entry,
            )


async def _note_asked(context: Context, memory: Memory, fresh: Mapping[str, Mapping[str, object]]) -> None:
    """Which versions requests named: one in Staging that was stopped is started again by that."""
    newer: dict[tuple[str, str], float] = {}
    for report in fresh.values():
        told = {model: _object(versions) for model, versions in _object(report.get("asked")).items()}
        for key, at in routers.flat(told).items():
            if float(at) > max(memory.asked.get(key, 0.0), newer.get(key, 0.0)):
                newer[key] = float(at)
    if not newer:
        return
    async with context.leading() as session:
        await routers.asked(session, newer)
        await wake.notify(session, "deployments")
    memory.asked |= newer


def _key(entry: Mapping[str, Any]) -> tuple[str, str, str]:
    return str(entry.get("model")), str(entry.get("action")), str(entry.get("at"))


def _live(context: Context) -> timedelta:
    return timedelta(seconds=context.settings.router_live_s)


def _merged(reported: list[Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
    """The newest pin per model over all routers: they read one folder, at slightly different times."""
    merged: dict[str, Mapping[str, Any]] = {}
    for pins in reported:
        for model, pin in pins.items():
            found = _object(pin)
            if model not in merged or str(found.get("at")) > str(merged[model].get("at")):
                merged[model] = found
    return merged


async def _pinned(session: AsyncSession) -> dict[str, Mapping[str, Any]]:
    """Pins in force as the audit chain tells it: what is in it once is never written again."""
    newest: dict[str, Mapping[str, Any]] = {}
    for record in await audit.newest_of(session, tuple(_ACTIONS.values())):
        if record["action"] == "router.pinned":
            newest[str(record["object"]).removeprefix("model:")] = _object(record.get("after"))
    return newest


async def _audit(
    context: Context, before: Mapping[str, Mapping[str, Any]], pins: Mapping[str, Mapping[str, Any]]
) -> None:
    for model in sorted(before.keys() | pins.keys()):
        was, now = before.get(model), pins.get(model)
        if (was and was.get("at")) == (now and now.get("at")):
            continue
        person = str((now or was or {}).get("person") or "unknown")
        async with context.leading() as session:
            await audit.append(
                session,
                "router.pinned" if now else "router.released",
                actor=Actor(person),
                object=f"model:{model}",
                trigger="router",
                before=was,
                after=now,
                reasons=[str((now or was or {}).get("reason") or NO_REASON)],
            )


def _object(value: object) -> Mapping[str, Any]:
    return cast("Mapping[str, Any]", json.loads(json.dumps(value))) if isinstance(value, dict) else {}
