"""Published snapshots in Postgres; the reconciler writes, the API's long-poll reads."""

from collections.abc import Sequence

from sqlalchemy import delete, func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.adapters.store.tables import InstallationRow, RouterRow, SnapshotRow

KEPT = 200  # newest rows


async def newest(session: AsyncSession) -> SnapshotRow | None:
    return (await session.scalars(select(SnapshotRow).order_by(SnapshotRow.revision.desc()).limit(1))).one_or_none()


async def add(session: AsyncSession, *, epoch: int, revision: int, document: bytes, content_hash: bytes) -> None:
    """Save one and forget those older than the newest `KEPT`."""
    await session.execute(
        insert(SnapshotRow).values(
            revision=revision,
            epoch=epoch,
            document=document,
            content_hash=content_hash,
            published_at=func.clock_timestamp(),
        )
    )
    await session.execute(delete(SnapshotRow).where(SnapshotRow.revision <= revision - KEPT))


async def epoch(session: AsyncSession) -> int:
    """The installation's epoch; 1 before there is an installation row."""
    return await session.scalar(select(InstallationRow.epoch)) or 1


async def raise_epoch(session: AsyncSession, to: int) -> None:
    """After a restore: routers have seen revisions this database knows nothing of, and only a higher epoch wins."""
    await session.execute(update(InstallationRow).where(InstallationRow.epoch < to).values(epoch=to))


async def routers(session: AsyncSession) -> Sequence[RouterRow]:
    return (await session.scalars(select(RouterRow))).all()
