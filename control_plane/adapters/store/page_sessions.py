"""Who is signed in to the pages. Of a session's token only its SHA-256 is ever here."""

from datetime import datetime
from hashlib import sha256
from uuid import UUID

from sqlalchemy import delete, insert, select
from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.adapters.store import keys
from control_plane.adapters.store.keys import Holder
from control_plane.adapters.store.tables import PageSessionRow


async def begin(session: AsyncSession, token: str, key_id: UUID, *, expires_at: datetime, now: datetime) -> None:
    """Sessions whose time is up go on the way."""
    await session.execute(delete(PageSessionRow).where(PageSessionRow.expires_at <= now))
    await session.execute(
        insert(PageSessionRow).values(token_sha256=_digest(token), key_id=key_id, expires_at=expires_at)
    )


async def holder(session: AsyncSession, token: str, *, now: datetime) -> Holder | None:
    """The key a live session was begun with, whatever has become of it since."""
    mine = (PageSessionRow.token_sha256 == _digest(token), PageSessionRow.expires_at > now)
    key_id = await session.scalar(select(PageSessionRow.key_id).where(*mine))
    return None if key_id is None else await keys.load(session, key_id)


async def end(session: AsyncSession, token: str) -> None:
    await session.execute(delete(PageSessionRow).where(PageSessionRow.token_sha256 == _digest(token)))


def _digest(token: str) -> bytes:
    return sha256(token.encode()).digest()
