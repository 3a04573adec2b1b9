"""Published snapshots in Postgres; the reconciler writes, the API's long-poll reads."""

from collections.abc import Sequence

from sqlalchemy import delete, func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.adapters.store.tables import InstallationRow, RolloutRow, RouterRow, SnapshotRow

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


async def carried(session: AsyncSession, states: Sequence[tuple[object, int]], revision: int) -> None:
    """Note that `revision` is the first snapshot that carries these rollouts, given as (id, the row's revision).

    A rollout that has moved on since the snapshot was built is left alone: a later one will carry it.
    """
    for rollout_id, row_revision in states:
        await session.execute(
            update(RolloutRow)
            .where(
                RolloutRow.id == rollout_id,
                RolloutRow.revision == row_revision,
                RolloutRow.published_revision.is_(None),
            )
            .values(published_revision=revision)
        )


async def routers(session: AsyncSession) -> Sequence[RouterRow]:
    return (await session.scalars(select(RouterRow))).all()
