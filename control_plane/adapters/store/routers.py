"""What routers report, in Postgres: the snapshot each has applied."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import func, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.adapters.store.tables import ModelVersionRow, RouterRow


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


def flat(asked: Mapping[str, Mapping[str, float]]) -> dict[tuple[str, str], float]:
    """By (model, version)."""
    return {(model, version): at for model, versions in asked.items() for version, at in versions.items()}


async def asked(session: AsyncSession, at: Mapping[tuple[str, str], float]) -> None:
    """Note when (model, version) was last named in a request, in Unix seconds; the newest stays, never a future one."""
    for (model, version), seconds in sorted(at.items()):
        when = func.least(datetime.fromtimestamp(seconds, UTC), func.clock_timestamp())
        row = ModelVersionRow
        await session.execute(
            update(row)
            .where(row.model == model, row.version == version)
            .values(asked_at=func.greatest(func.coalesce(row.asked_at, when), when))
        )


async def live(session: AsyncSession, within: timedelta) -> list[Applied]:
    """Routers heard of within that time, by the database's clock."""
    query = select(RouterRow.router_id, RouterRow.epoch, RouterRow.revision)
    rows = await session.execute(query.where(RouterRow.seen_at > func.clock_timestamp() - within))
    return [Applied(*row) for row in rows]
