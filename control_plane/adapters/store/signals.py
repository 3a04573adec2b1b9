"""What was noticed, what was decided about it, what was done. Functions take the session; the edge commits."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from hashlib import sha256
from operator import itemgetter
from typing import Any
from uuid import UUID

from sqlalchemy import String, cast, delete, exists, func, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.adapters.store import ids
from control_plane.adapters.store.jobs import OPEN
from control_plane.adapters.store.tables import ApprovalRow, JobRow, PolicyActRow, SignalRow, WebhookDeliveryRow
from control_plane.domain.governance.decide import Acted, Signal, Status
from control_plane.domain.governance.policy import Operation, Severity, Source

_LOCK = 7_305_005  # one decision at a time: the hour's budget is of all of them
_ROWS = 1_000  # of one statement
_FRESH = {"populate_existing": True}


async def add(session: AsyncSession, found: Mapping[str, Signal], *, now: datetime) -> int:
    """How many are new: the same key is the same signal, however often it comes."""
    rows: list[dict[str, Any]] = [
        {"id": ids.new(), "key": key, "source": signal.source, "name": signal.name, "model": signal.model}
        | {"severity": signal.severity, "status": signal.status, "facts": dict(signal.facts), "at": signal.at}
        | {"received_at": now}
        for key, signal in found.items()
    ]
    rows.sort(key=itemgetter("key"))  # so that two groups with the same alerts never wait for one another
    new = 0
    for begin in range(0, len(rows), _ROWS):
        made = insert(SignalRow).values(rows[begin : begin + _ROWS])
        made = made.on_conflict_do_nothing(index_elements=["key"])
        new += len((await session.scalars(made.returning(SignalRow.id))).all())
    return new


async def undecided(session: AsyncSession, *, limit: int) -> Sequence[UUID]:
    """Oldest first. A retraining whose version is being replayed waits for that to be over, however it ends."""
    mine = cast(JobRow.id, String) == SignalRow.facts["replay"].astext
    replayed = exists().where(SignalRow.source == Source.RETRAINING, mine, JobRow.state.in_(OPEN))
    query = select(SignalRow.id).where(SignalRow.decided_at.is_(None), ~replayed).order_by(SignalRow.id).limit(limit)
    return (await session.scalars(query)).all()


async def load(session: AsyncSession, signal_id: UUID) -> SignalRow:
    return await session.get_one(SignalRow, signal_id)


async def claim(session: AsyncSession, signal_id: UUID) -> SignalRow | None:
    """The signal, to be decided by this transaction alone; None if that was done."""
    await session.execute(select(func.pg_advisory_xact_lock(_LOCK)))
    query = select(SignalRow).where(SignalRow.id == signal_id, SignalRow.decided_at.is_(None))
    return await session.scalar(query.with_for_update(), execution_options=_FRESH)


async def decided(session: AsyncSession, signal_id: UUID, decision: Mapping[str, Any], *, now: datetime) -> None:
    mine = update(SignalRow).where(SignalRow.id == signal_id)
    await session.execute(mine.values(decided_at=now, decision=dict(decision)))


async def add_act(session: AsyncSession, signal_id: UUID, **facts: object) -> None:
    await session.execute(insert(PolicyActRow).values(id=ids.new(), signal_id=signal_id, **facts))


async def acted(session: AsyncSession, *, since: datetime) -> tuple[Acted, ...]:
    """What was done or put before persons since then, or is about to be."""
    row = PolicyActRow
    query = select(row.operation, row.model, row.created_at, row.outcome == "ask").where(
        row.created_at >= since, row.outcome.in_(["do", "ask"]), row.state.in_(["wanted", "done"])
    )
    return tuple(Acted(Operation(what), model, at, asked) for what, model, at, asked in await session.execute(query))


async def waiting(session: AsyncSession, model: str) -> frozenset[Operation]:
    """Operations on the model that wait for persons, or are about to be put before them."""
    asked = select(ApprovalRow.operation).where(ApprovalRow.model == model, ApprovalRow.state == "pending")
    row = PolicyActRow
    about_to = select(row.operation).where(row.model == model, row.outcome == "ask", row.state == "wanted")
    return frozenset(Operation(found) for found in await session.scalars(asked.union_all(about_to)))


async def wanted(session: AsyncSession) -> Sequence[UUID]:
    """Oldest first."""
    query = select(PolicyActRow.id).where(PolicyActRow.state == "wanted").order_by(PolicyActRow.id)
    return (await session.scalars(query)).all()


async def claim_act(session: AsyncSession, act_id: UUID) -> PolicyActRow | None:
    """The act, if it is still to be carried out and nobody else is at it."""
    query = select(PolicyActRow).where(PolicyActRow.id == act_id, PolicyActRow.state == "wanted")
    return await session.scalar(query.with_for_update(skip_locked=True), execution_options=_FRESH)


async def to_check(session: AsyncSession, *, now: datetime) -> Sequence[PolicyActRow]:
    row = PolicyActRow
    query = select(row).where(row.checked_at.is_(None), row.check_at <= now, row.state == "done")
    return (await session.scalars(query.with_for_update(skip_locked=True), execution_options=_FRESH)).all()


async def change_act(session: AsyncSession, act_id: UUID, **changed: object) -> None:
    await session.execute(update(PolicyActRow).where(PolicyActRow.id == act_id).values(**changed))


async def page(session: AsyncSession, *, before: UUID | None, limit: int, model: str | None) -> list[SignalRow]:
    """Newest first."""
    query = select(SignalRow).order_by(SignalRow.id.desc()).limit(limit)
    if before is not None:
        query = query.where(SignalRow.id < before)
    if model is not None:
        query = query.where(SignalRow.model == model)
    return list(await session.scalars(query, execution_options=_FRESH))


async def acts_of(session: AsyncSession, signals: Sequence[UUID]) -> Sequence[PolicyActRow]:
    query = select(PolicyActRow).where(PolicyActRow.signal_id.in_(signals)).order_by(PolicyActRow.id)
    return (await session.scalars(query, execution_options=_FRESH)).all()


async def first_delivery(session: AsyncSession, signature: str, *, forget: datetime, now: datetime) -> bool:
    """Whether this signature was not seen since `forget`."""
    await session.execute(delete(WebhookDeliveryRow).where(WebhookDeliveryRow.at < forget))
    made = insert(WebhookDeliveryRow).values(signature_sha256=sha256(signature.encode()).digest(), at=now)
    found = await session.scalar(made.on_conflict_do_nothing().returning(WebhookDeliveryRow.at))
    return found is not None


async def retrained(session: AsyncSession, signal_id: UUID) -> str | None:
    """The version a signal of a retraining is about; None of any other signal."""
    mine = (SignalRow.id == signal_id, SignalRow.source == Source.RETRAINING)
    version = (await session.scalar(select(SignalRow.facts).where(*mine)) or {}).get("version")
    return version if isinstance(version, str) else None


def signal(row: SignalRow) -> Signal:
    return Signal(
        Source(row.source), row.name, row.model, Severity(row.severity), Status(row.status), row.at, row.facts
    )
