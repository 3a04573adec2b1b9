"""The audit chain in Postgres. Append-only: nothing here updates or deletes."""

import json
import math
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, cast

import msgspec
import rfc8785
from pydantic_core import to_jsonable_python
from sqlalchemy import func, insert, select
from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.adapters.store.tables import AuditRow
from control_plane.domain import audit
from control_plane.domain.audit import Actor, Link, Walk
from control_plane.domain.checkpoints import NOTHING, Trusted

_LOCK = 7_305_001  # any constant, one for all writers
_LINKS = select(AuditRow.seq, AuditRow.payload, AuditRow.hash)
_ROWS = "SELECT seq, payload, hash, at, action, object, actor FROM audit WHERE seq > $1 ORDER BY seq LIMIT $2"
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
class Batch:
    """Links with the columns that copy from their bytes; `torn`: the first one whose copies say something else."""

    links: list[Link]
    torn: int | None


class _Said(msgspec.Struct):
    """What the columns copy. Members of a payload that are not here are passed over."""

    action: str
    object: str
    at: datetime
    actor: dict[str, str | None]


_said = msgspec.json.Decoder(_Said).decode


async def batches(session: AsyncSession, *, size: int = 2_000) -> AsyncGenerator[Batch]:
    """The whole chain as it is stored, from its very first row on, `size` rows in memory at a time.

    Straight through the driver: SQLAlchemy's rows take longer than all the rest of a verification.
    """
    driver: Any = (await (await session.connection()).get_raw_connection()).driver_connection
    last = -(2**63)
    while rows := await driver.fetch(_ROWS, last, size):
        found, torn = list[Link](), None
        last = rows[-1][0]
        for seq, payload, digest, at, action, what, actor in rows:
            found.append(Link(seq, payload, digest))
            if torn is None and not _copies(payload, at, action, what, actor):
                torn = seq
        yield Batch(found, torn)


def _copies(payload: bytes, at: datetime, action: str, what: str, actor: str) -> bool:
    try:
        said = _said(payload)
    except msgspec.DecodeError:
        return False
    return said.action == action and said.object == what and said.at == at and said.actor.get("person") == actor


async def verify(session: AsyncSession, trusted: Trusted = NOTHING, *, size: int = 2_000) -> Walk:
    """Hold every link against the one before it, what was signed of it and its own columns, up to the first bad one."""
    walked = Walk()
    async for batch in batches(session, size=size):
        signed = trusted.hashes(walked.head.seq, batch.links[-1].seq)
        before, walked = walked, audit.walk(batch.links, signed, after=walked)
        if batch.torn is not None and (walked.first_bad is None or batch.torn < walked.first_bad):
            good = [link for link in batch.links if link.seq < batch.torn]
            head, count = (good[-1] if good else before.head), before.links + len(good)
            return Walk(head, count, batch.torn, f"The columns of link {batch.torn} are not what its record says.")
        if walked.first_bad is not None:
            return walked
    return audit.ended(walked, trusted.seq)


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
