"""Something was noticed: kept once, for the policy in force to decide about."""

from datetime import datetime

from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.adapters.store import signals as store
from control_plane.adapters.store import wake
from control_plane.domain.governance.decide import Signal


async def notice(session: AsyncSession, key: str, signal: Signal, *, now: datetime) -> bool:
    """Whether it is new. `key` says what happened, so that the same, told again, is one signal."""
    fresh = await store.add(session, f"{signal.source}:{key}", signal, now=now)
    if fresh:
        await wake.notify(session, f"signal {signal.source}")
    return fresh
