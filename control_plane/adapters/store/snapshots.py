"""Published snapshots in Postgres; the reconciler writes, the API's long-poll reads."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID

from sqlalchemy import delete, func, insert, or_, select, tuple_, update
from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.adapters.store import deployments, rollouts
from control_plane.adapters.store.rollouts import Entry
from control_plane.adapters.store.tables import (
    DeploymentRow,
    InstallationRow,
    KeyRow,
    ModelRow,
    ModelVersionRow,
    PrincipalRow,
    RouterRow,
    SnapshotRow,
)
from control_plane.domain.stages import Stage

KEPT = 200  # newest rows


@dataclass(frozen=True, slots=True)
class Facts:
    """Everything a snapshot says. `versions`: those that have a deployment, are in Staging or in Production."""

    epoch: int
    models: Sequence[ModelRow]
    versions: Sequence[ModelVersionRow]
    deployments: Sequence[DeploymentRow]  # not stopped
    rollouts: Sequence[Entry]  # open
    keys: Sequence[tuple[KeyRow, PrincipalRow]]  # in force


async def facts(session: AsyncSession) -> Facts:
    """Read in a transaction that sees one moment."""
    running = await deployments.live(session)
    named = select(DeploymentRow.model, DeploymentRow.version).where(DeploymentRow.state != "stopped")
    key = tuple_(ModelVersionRow.model, ModelVersionRow.version)
    wanted = or_(ModelVersionRow.stage.in_([Stage.STAGING, Stage.PRODUCTION]), key.in_(named))
    in_force = (
        select(KeyRow, PrincipalRow)
        .join(PrincipalRow, PrincipalRow.id == KeyRow.principal_id)
        .where(
            KeyRow.revoked_at.is_(None),
            PrincipalRow.disabled_at.is_(None),
            or_(KeyRow.expires_at.is_(None), KeyRow.expires_at > func.clock_timestamp()),
        )
        .order_by(KeyRow.id)
    )
    return Facts(
        epoch=await epoch(session),
        models=(await session.scalars(select(ModelRow).order_by(ModelRow.name))).all(),
        versions=(await session.scalars(select(ModelVersionRow).where(wanted))).all(),
        deployments=running,
        rollouts=await rollouts.all_open(session),
        keys=[(row[0], row[1]) for row in await session.execute(in_force)],
    )


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


async def drained_at(session: AsyncSession, deployment_ids: Collection[UUID], revision: int) -> None:
    """Note that `revision` is the first snapshot without these deployments, which are being retired."""
    await session.execute(
        update(DeploymentRow)
        .where(
            DeploymentRow.id.in_(deployment_ids),
            DeploymentRow.state == "draining",
            DeploymentRow.retired_revision.is_(None),
        )
        .values(retired_revision=revision)
    )


async def routers(session: AsyncSession) -> Sequence[RouterRow]:
    return (await session.scalars(select(RouterRow))).all()


async def forget_routers(session: AsyncSession, silent: timedelta) -> None:
    """Remove routers not heard of for so long."""
    await session.execute(delete(RouterRow).where(RouterRow.seen_at < func.clock_timestamp() - silent))
