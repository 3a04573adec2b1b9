"""Deployments in Postgres: which model servers should run, and what was last seen of them.

A row that is not stopped is the one deployment of its version. `desired` belongs to whoever decides, everything else
to the reconciler.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import select, update
from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.adapters.store import ids
from control_plane.adapters.store.tables import DeploymentRow


async def live(session: AsyncSession, model: str | None = None) -> Sequence[DeploymentRow]:
    """Every deployment that is not stopped, those being retired included; of one model or of all."""
    found = select(DeploymentRow).where(DeploymentRow.state != "stopped").order_by(DeploymentRow.created_at)
    if model is not None:
        found = found.where(DeploymentRow.model == model)
    return (await session.scalars(found)).all()


async def of_version(session: AsyncSession, model: str, version: str) -> DeploymentRow | None:
    """The version's deployment that is not stopped, being retired or not."""
    one = select(DeploymentRow).where(
        DeploymentRow.model == model, DeploymentRow.version == version, DeploymentRow.state != "stopped"
    )
    return (await session.scalars(one)).one_or_none()


async def ensure(
    session: AsyncSession, model: str, version: str, digest: str, *, now: datetime, retry: bool = False
) -> UUID:
    """Want servers of this version; the deployment's id. Calling twice is harmless.

    One that is being retired is kept after all. `retry`: one that failed is given up for a fresh attempt, which is
    what a person asking again means; without it a failure stays.
    """
    row = await session.scalar(
        select(DeploymentRow)
        .where(DeploymentRow.model == model, DeploymentRow.version == version, DeploymentRow.state != "stopped")
        .with_for_update()
    )
    if row is not None and not (retry and row.state == "failed"):
        if row.desired != "running":  # its process may be gone already: the next look finds out
            row.desired, row.changed_at, row.retired_revision = "running", now, None
            row.state = "starting" if row.address else "pending"
        row.warm_until = None
        return row.id
    if row is not None:
        row.desired, row.state, row.changed_at = "stopped", "stopped", now
        await session.flush()  # the one live deployment per version must be free before the next is inserted
    fresh = DeploymentRow(
        id=ids.new(),
        model=model,
        version=version,
        digest=digest,
        desired="running",
        state="pending",
        created_at=now,
        changed_at=now,
    )
    session.add(fresh)
    await session.flush()
    return fresh.id


async def keep_warm(session: AsyncSession, model: str, version: str, *, until: datetime) -> None:
    """Let the version's servers run until then though nothing routes to them."""
    await session.execute(
        update(DeploymentRow)
        .where(DeploymentRow.model == model, DeploymentRow.version == version, DeploymentRow.desired == "running")
        .values(warm_until=until)
    )


async def observed(
    session: AsyncSession,
    deployment_id: UUID,
    *,
    state: str,
    now: datetime,
    address: str | None = None,
    aux_address: str | None = None,
    description: Mapping[str, Any] | None = None,
    error: str | None = None,
) -> None:
    """Save what was seen of a deployment that is still wanted; nothing once it is being retired.

    None leaves address and description as they are: a server that is down now comes back under the same ones.
    """
    values: dict[str, object] = {"state": state, "error": error, "changed_at": now}
    if address is not None:
        values |= {"address": address, "aux_address": aux_address}
    if description is not None:
        values["description"] = dict(description)
    await session.execute(
        update(DeploymentRow)
        .where(DeploymentRow.id == deployment_id, DeploymentRow.desired == "running", DeploymentRow.state != "stopped")
        .values(values)
    )


async def drain(session: AsyncSession, deployment_id: UUID, *, now: datetime) -> None:
    """Stop wanting it: the next snapshot is without it, and after every router has that one, it is stopped."""
    await session.execute(
        update(DeploymentRow)
        .where(DeploymentRow.id == deployment_id, DeploymentRow.desired == "running")
        .values(desired="stopped", state="draining", changed_at=now, retired_revision=None)
    )


async def stopped(session: AsyncSession, deployment_id: UUID, *, now: datetime) -> None:
    """Its servers are gone; its row is history. Nothing if somebody wants it again."""
    await session.execute(
        update(DeploymentRow)
        .where(DeploymentRow.id == deployment_id, DeploymentRow.desired == "stopped")
        .values(state="stopped", changed_at=now)
    )
