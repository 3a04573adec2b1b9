"""Answers given under an Idempotency-Key, kept in the transaction of what they answer for."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from hashlib import sha256
from uuid import UUID

from sqlalchemy import delete, func, select, tuple_
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.adapters.store.tables import IdempotencyRow

KEPT = timedelta(days=1)
_SWEPT = 100  # rows


@dataclass(frozen=True, slots=True)
class Answer:
    request_hash: bytes
    status: int
    body: bytes


async def claim(session: AsyncSession, principal_id: UUID, key: str, *, now: datetime) -> Answer | None:
    """The answer once given, or None and the key is this transaction's: a twin waits here until it ends.

    Sweeps some answers older than a day on the way, without waiting for anyone who does the same.
    """
    lock = int.from_bytes(sha256(f"{principal_id} {key}".encode()).digest()[:8], "big", signed=True)
    await session.execute(select(func.pg_advisory_xact_lock(lock)))
    mine = (IdempotencyRow.principal_id == principal_id, IdempotencyRow.key == key)
    old = select(IdempotencyRow.principal_id, IdempotencyRow.key).where(IdempotencyRow.at < now - KEPT).limit(_SWEPT)
    identity = tuple_(IdempotencyRow.principal_id, IdempotencyRow.key)
    await session.execute(delete(IdempotencyRow).where(identity.in_(old.with_for_update(skip_locked=True))))
    row = (
        await session.execute(
            select(IdempotencyRow.request_hash, IdempotencyRow.status, IdempotencyRow.body).where(
                *mine, IdempotencyRow.at >= now - KEPT
            )
        )
    ).first()
    return None if row is None else Answer(*row)


async def keep(session: AsyncSession, principal_id: UUID, key: str, answer: Answer, *, now: datetime) -> None:
    facts = {"request_hash": answer.request_hash, "status": answer.status, "body": answer.body, "at": now}
    row = insert(IdempotencyRow).values(principal_id=principal_id, key=key, **facts)
    await session.execute(row.on_conflict_do_update(index_elements=["principal_id", "key"], set_=facts))
