"""Answers given under an Idempotency-Key, kept in the transaction of what they answer for."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from hashlib import sha256
from uuid import UUID

from sqlalchemy import delete, func, insert, select
from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.adapters.store.tables import IdempotencyRow

KEPT = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Answer:
    request_hash: bytes
    status: int
    body: bytes


async def claim(session: AsyncSession, principal_id: UUID, key: str, *, now: datetime) -> Answer | None:
    """The answer once given, or None and the key is this transaction's: a twin waits here until it ends."""
    lock = int.from_bytes(sha256(f"{principal_id} {key}".encode()).digest()[:8], "big", signed=True)
    await session.execute(select(func.pg_advisory_xact_lock(lock)))
    mine = (IdempotencyRow.principal_id == principal_id, IdempotencyRow.key == key)
    await session.execute(delete(IdempotencyRow).where(*mine, IdempotencyRow.at < now - KEPT))
    row = (
        await session.execute(
            select(IdempotencyRow.request_hash, IdempotencyRow.status, IdempotencyRow.body).where(*mine)
        )
    ).first()
    return None if row is None else Answer(*row)


async def keep(session: AsyncSession, principal_id: UUID, key: str, answer: Answer, *, now: datetime) -> None:
    facts = {"principal_id": principal_id, "key": key, "request_hash": answer.request_hash}
    await session.execute(insert(IdempotencyRow).values(**facts, status=answer.status, body=answer.body, at=now))


async def forget(session: AsyncSession, *, now: datetime) -> None:
    """Delete what is older than a day."""
    await session.execute(delete(IdempotencyRow).where(IdempotencyRow.at < now - KEPT))
