"""Principals and API keys in Postgres. Of a key only its SHA-256 is ever here."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from sqlalchemy import Select, insert, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.adapters.store import ids
from control_plane.adapters.store.tables import KeyRow, PrincipalRow
from control_plane.errors import NotFound

_TOUCH = timedelta(minutes=1)  # how exact last_used_at is


@dataclass(frozen=True, slots=True)
class Holder:
    """A key with its principal."""

    key: KeyRow
    principal: PrincipalRow


async def by_hash(session: AsyncSession, digest: bytes) -> Holder | None:
    return await _one(session, _BOTH.where(KeyRow.hash == digest))


async def load(session: AsyncSession, key_id: UUID, *, lock: bool = False) -> Holder:
    query = _BOTH.where(KeyRow.id == key_id)
    holder = await _one(session, query.with_for_update(of=KeyRow) if lock else query)
    if holder is None:
        raise NotFound(f"There is no key {key_id}.", key=str(key_id))
    return holder


async def page(session: AsyncSession, *, before: UUID | None, limit: int) -> list[Holder]:
    """Newest first."""
    query = _BOTH.order_by(KeyRow.id.desc()).limit(limit)
    rows = await session.execute(query if before is None else query.where(KeyRow.id < before))
    return [Holder(*row) for row in rows]


async def principals(session: AsyncSession, *, before: UUID | None, limit: int) -> list[PrincipalRow]:
    query = select(PrincipalRow).order_by(PrincipalRow.id.desc()).limit(limit)
    return list(await session.scalars(query if before is None else query.where(PrincipalRow.id < before)))


async def principal(
    session: AsyncSession, person: str, role: str, models: list[str], *, automated: bool = False, now: datetime
) -> UUID:
    """The enabled principal of that person (or program), role and patterns; made when there is none."""
    query = select(PrincipalRow.id).where(
        PrincipalRow.person == person,
        PrincipalRow.role == role,
        PrincipalRow.models == models,
        PrincipalRow.automated == automated,
        PrincipalRow.disabled_at.is_(None),
    )
    found = await session.scalar(query.order_by(PrincipalRow.id).limit(1))
    if found is not None:
        return found
    new = ids.new()
    facts = {"id": new, "person": person, "role": role, "models": models, "automated": automated}
    await session.execute(insert(PrincipalRow).values(**facts, created_at=now))
    return new


async def add(
    session: AsyncSession,
    principal_id: UUID,
    *,
    digest: bytes,
    prefix: str,
    scopes: list[str],
    expires_at: datetime | None,
    rate_limit_rps: float | None,
    now: datetime,
) -> UUID:
    new = ids.new()
    facts = {"id": new, "principal_id": principal_id, "prefix": prefix, "hash": digest, "scopes": scopes}
    await session.execute(
        insert(KeyRow).values(**facts, created_at=now, expires_at=expires_at, rate_limit_rps=rate_limit_rps)
    )
    return new


async def revoke(session: AsyncSession, key_id: UUID, *, now: datetime) -> None:
    """No effect on a key that is revoked already."""
    await session.execute(update(KeyRow).where(KeyRow.id == key_id, KeyRow.revoked_at.is_(None)).values(revoked_at=now))


async def used(session: AsyncSession, key: KeyRow, *, now: datetime) -> None:
    """Note the use, at most once a minute: reading must not turn into writing."""
    if key.last_used_at is None or now - key.last_used_at > _TOUCH:
        await session.execute(update(KeyRow).where(KeyRow.id == key.id).values(last_used_at=now))


_BOTH: Select[KeyRow, PrincipalRow] = select(KeyRow, PrincipalRow).join(
    PrincipalRow, PrincipalRow.id == KeyRow.principal_id
)


async def _one(session: AsyncSession, query: Select[KeyRow, PrincipalRow]) -> Holder | None:
    row = (await session.execute(query, execution_options={"populate_existing": True})).first()
    return None if row is None else Holder(row[0], row[1])
