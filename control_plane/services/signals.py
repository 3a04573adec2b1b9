"""Something was noticed: kept once, for the policy in force to decide about."""

from collections.abc import Mapping
from datetime import datetime

from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.adapters.store import signals as store
from control_plane.adapters.store import wake
from control_plane.domain.governance.decide import Signal


async def notice(session: AsyncSession, key: str, signal: Signal, *, now: datetime) -> bool:
    """Whether it is new. `key` says what happened, so that the same, told again, is one signal."""
    return await notice_all(session, {key: signal}, now=now) == 1


async def notice_all(session: AsyncSession, found: Mapping[str, Signal], *, now: datetime) -> int:
    """How many of these, by key, are new."""
    new = await store.add(session, {f"{signal.source}:{key}": signal for key, signal in found.items()}, now=now)
    if new:
        for source in sorted({signal.source for signal in found.values()}):
            await wake.notify(session, f"signal {source}")
    return new
