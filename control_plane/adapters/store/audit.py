"""The audit chain in Postgres. Append-only: nothing here updates or deletes."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, cast

import rfc8785
from pydantic_core import to_jsonable_python
from sqlalchemy import func, insert, select
from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.adapters.store.tables import AuditRow
from control_plane.domain import audit
from control_plane.domain.audit import Actor, Link

_LOCK = 7_305_001  # any constant, one for all writers
_LINKS = select(AuditRow.seq, AuditRow.payload, AuditRow.hash)
_EXACT = 2**53 - 1  # the largest integer RFC 8785 can write


async def append(
    session: AsyncSession,
    action: str,
    *,
    actor: Actor,
    object: str,
    trigger: str,
    before: object = None,
    after: object = None,
    reasons: Sequence[str] = (),
    evidence: object = None,
    approver: Actor | None = None,
    request_id: str | None = None,
) -> int:
    """Chain one record, in the transaction of the change it tells of and as its last statement; return its seq.

    All audited changes queue on the lock until commit: taken last, it is held for one insert and its holder waits for
    nobody. Head and clock are read by statements begun under it; now() would be the start of the transaction.
    `object`: "kind:name", e.g. "model:fraud"; never personal data. `trigger`: what set it off (api, reconciler, ...).
    """
    await session.execute(select(func.pg_advisory_xact_lock(_LOCK)))
    newest = (await session.execute(_LINKS.order_by(AuditRow.seq.desc()).limit(1))).first()
    head = Link(*newest) if newest else audit.GENESIS
    at = (await session.execute(select(func.clock_timestamp()))).scalar_one()
    facts = {"actor": actor, "trigger": trigger, "object": object, "before": before, "after": after}
    facts |= {"reasons": list(reasons), "evidence": evidence, "approver": approver, "request_id": request_id}
    link = audit.follow(head, canonical({**facts, "seq": head.seq + 1, "at": at, "action": action}))
    row = {"seq": link.seq, "payload": link.payload, "hash": link.hash, "at": at, "action": action}
    await session.execute(insert(AuditRow).values(**row, object=object, actor=actor.person))
    return link.seq


def canonical(record: Mapping[str, object]) -> bytes:
    """RFC 8785 bytes of a record. What JSON's numbers cannot hold exactly (NaN, 2**60) is written as text: evidence
    of a stranger's model must never be the reason why a rollback cannot be recorded."""
    return rfc8785.dumps(_exact(to_jsonable_python(record, inf_nan_mode="constants")))


def _exact(value: Any) -> Any:
    match value:
        case dict():
            return {str(key): _exact(item) for key, item in cast("dict[object, object]", value).items()}
        case list() | tuple():
            return [_exact(item) for item in cast("list[object]", value)]
        case float() if not math.isfinite(value):
            return str(value)
        case int() if abs(value) > _EXACT:
            return str(value)
        case str():
            return value.encode("utf-8", "replace").decode()  # a lone surrogate has no UTF-8 form
        case _:
            return value


async def links(session: AsyncSession, *, after: int = 0, limit: int | None = None) -> list[Link]:
    """The chain in order of seq, from the link after `after` on."""
    query = _LINKS.where(AuditRow.seq > after).order_by(AuditRow.seq).limit(limit)
    return [Link(*row) for row in await session.execute(query)]


@dataclass(frozen=True, slots=True)
class Verification:
    links: int
    first_bad: int | None
    head: Link


async def verify(session: AsyncSession, *, batch: int = 2_000) -> Verification:
    """Recompute every hash, `batch` links in memory at a time. Stops at the first link that does not follow."""
    count, head = 0, audit.GENESIS
    while found := await links(session, after=head.seq, limit=batch):
        bad = audit.first_bad(found, after=head)
        if bad is not None:
            return Verification(count, bad, head)
        count, head = count + len(found), found[-1]
    return Verification(count, None, head)


async def page(
    session: AsyncSession,
    *,
    before: int | None,
    limit: int,
    action: str | None = None,
    object: str | None = None,
    actor: str | None = None,
    since: datetime | None = None,
    until: datetime | None = None,
) -> list[tuple[dict[str, Any], bytes]]:
    """Records (parsed from their own bytes) with their hashes, newest first, `before` excluded."""
    query = _LINKS.order_by(AuditRow.seq.desc()).limit(limit)
    wanted = {AuditRow.action: action, AuditRow.object: object, AuditRow.actor: actor}
    for column, value in wanted.items():
        query = query if value is None else query.where(column == value)
    if before is not None:
        query = query.where(AuditRow.seq < before)
    if since is not None:
        query = query.where(AuditRow.at >= since)
    if until is not None:
        query = query.where(AuditRow.at <= until)
    return [(json.loads(row.payload), row.hash) for row in await session.execute(query)]


async def newest_of(session: AsyncSession, actions: Sequence[str]) -> list[dict[str, Any]]:
    """The newest record of every object among those with one of these actions, parsed."""
    newest = select(func.max(AuditRow.seq)).where(AuditRow.action.in_(actions)).group_by(AuditRow.object)
    rows = await session.scalars(select(AuditRow.payload).where(AuditRow.seq.in_(newest)).order_by(AuditRow.seq))
    return [json.loads(payload) for payload in rows]


async def recent_of(session: AsyncSession, actions: Sequence[str], limit: int) -> list[dict[str, Any]]:
    """The newest `limit` records with one of these actions, parsed, newest first."""
    query = select(AuditRow.payload).where(AuditRow.action.in_(actions)).order_by(AuditRow.seq.desc()).limit(limit)
    return [json.loads(payload) for payload in await session.scalars(query)]
