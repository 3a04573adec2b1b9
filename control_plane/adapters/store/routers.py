"""What routers report, in Postgres: the snapshot each has applied."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.adapters.store.tables import RouterRow


@dataclass(frozen=True, slots=True)
class Applied:
    """Of one live router worker."""

    router_id: str
    epoch: int
    revision: int


async def report(
    session: AsyncSession,
    router_id: str,
    *,
    epoch: int,
    revision: int,
    pins: Mapping[str, Any],
    rejected: str | None,
) -> None:
    said = {"epoch": epoch, "revision": revision, "pins": dict(pins), "rejected": rejected}
    row = insert(RouterRow).values(router_id=router_id, **said, seen_at=func.clock_timestamp())
    await session.execute(
        row.on_conflict_do_update(
            index_elements=[RouterRow.router_id], set_={**said, "seen_at": func.clock_timestamp()}
        )
    )


async def live(session: AsyncSession, within: timedelta) -> list[Applied]:
    """Routers heard of within that time, by the database's clock."""
    query = select(RouterRow.router_id, RouterRow.epoch, RouterRow.revision)
    rows = await session.execute(query.where(RouterRow.seen_at > func.clock_timestamp() - within))
    return [Applied(*row) for row in rows]
