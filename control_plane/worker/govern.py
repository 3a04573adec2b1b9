"""The worker's side task: what was noticed is decided about, what was decided is done, and approvals that are over end.

Any number of workers may be at it: every step is claimed in the transaction that does it.
"""

import asyncio
import contextlib
from datetime import UTC, datetime

import structlog
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from control_plane.adapters import store
from control_plane.adapters.store import approvals as approval_store
from control_plane.adapters.store import signals as signal_store
from control_plane.adapters.store.wake import Wake
from control_plane.domain.audit import Actor
from control_plane.errors import ControlPlaneError, Unavailable
from control_plane.services import approvals, governor, promotion
from control_plane.services.cutover import Cause
from control_plane.services.promotion import Policy
from control_plane.settings import Releases

CAUSE = Cause(Actor("worker"), "worker", automated=True)
_LOOK_S = 10.0
_BATCH = 1_000
_REST_S = 1.0  # between two looks, however often it is woken

log = structlog.get_logger()


async def run(settings: Releases, sessions: async_sessionmaker[AsyncSession], wake: Wake) -> None:
    """Until cancelled."""
    platform, bell = promotion.platform(settings), wake.bell()
    while True:
        bell.clear()
        try:
            await govern(sessions, platform)
            await look(sessions, platform)
        except (Unavailable, SQLAlchemyError, OSError) as exc:
            log.warning("nothing can be governed", error=repr(exc))
        except Exception:
            log.exception("nothing can be governed")
        await asyncio.sleep(_REST_S)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_LOOK_S):
                await bell.wait()


async def govern(sessions: async_sessionmaker[AsyncSession], platform: Policy, *, at: datetime | None = None) -> None:
    """Everything that is to be decided, done and checked now."""
    async with store.transaction(sessions) as session:
        await governor.raise_due(session, platform=platform, now=at or datetime.now(UTC))
    async with sessions() as session:
        signals = await signal_store.undecided(session, limit=_BATCH)
    for signal_id in signals:
        async with store.transaction(sessions) as session:
            await governor.decide_one(session, signal_id, platform=platform, now=at or datetime.now(UTC))
    async with sessions() as session:
        acts = await signal_store.wanted(session)
    for act_id in acts:
        now = at or datetime.now(UTC)
        try:
            async with store.transaction(sessions) as session:
                await governor.act_one(session, act_id, platform=platform, now=now)
        except Unavailable:
            raise
        except ControlPlaneError as exc:
            log.warning("policy.act_failed", act=str(act_id), why=exc.detail)
            async with store.transaction(sessions) as session:
                await governor.fail_one(session, act_id, exc, now=now)
    async with store.transaction(sessions) as session:
        await governor.check_due(session, now=at or datetime.now(UTC))


async def look(sessions: async_sessionmaker[AsyncSession], platform: Policy) -> None:
    """One look at everything that waits, each in a transaction of its own."""
    async with sessions() as session:
        waiting = await approval_store.pending(session)
    for approval_id in waiting:
        try:
            async with store.transaction(sessions) as session:
                now = datetime.now(UTC)
                await approvals.look(session, approval_id, platform=platform, cause=CAUSE, now=now)
        except Unavailable:
            raise
        except ControlPlaneError as exc:  # somebody was faster
            log.info("an approval was left alone", approval=str(approval_id), why=exc.detail)
