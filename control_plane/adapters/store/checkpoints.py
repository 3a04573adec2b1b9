"""Signed checkpoints of the audit chain in Postgres. Append-only, as the chain is."""

from sqlalchemy import func, insert, select
from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.adapters.store.tables import AuditRow, CheckpointRow, InstallationRow
from control_plane.domain.checkpoints import Checkpoint, Signed

_BOTH = select(CheckpointRow.body, CheckpointRow.signature)


async def newest(session: AsyncSession) -> Signed | None:
    row = (await session.execute(_BOTH.order_by(CheckpointRow.seq.desc()).limit(1))).first()
    return Signed(*row) if row else None


async def every(session: AsyncSession, *, after: int | None = None) -> list[Signed]:
    """In order of the last link they cover, those beyond the link `after`. About 100 bytes a link."""
    query = _BOTH.order_by(CheckpointRow.seq)
    query = query if after is None else query.where(CheckpointRow.seq > after)
    return [Signed(*row) for row in await session.execute(query)]


async def add(session: AsyncSession, checkpoint: Checkpoint, signed: Signed) -> None:
    """Of two for the same link the second violates the primary key."""
    row = {"seq": checkpoint.seq, "body": signed.body, "signature": signed.signature, "at": checkpoint.at}
    await session.execute(insert(CheckpointRow).values(**row))


async def head(session: AsyncSession) -> int:
    """seq of the chain's last link; 0: there is none."""
    return await session.scalar(select(func.max(AuditRow.seq))) or 0


async def installation(session: AsyncSession) -> str:
    """The id checkpoints name, so that those of two installations cannot be taken for each other."""
    return str(await session.scalar(select(InstallationRow.id)) or "")
