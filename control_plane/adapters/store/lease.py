"""Leadership: one row, judged by the database's clock alone, so that nobody's own clock matters.

A leader that is stopped and wakes up late finds its epoch gone: every transaction it writes in begins with `hold`.
"""

from dataclasses import dataclass
from datetime import timedelta

from sqlalchemy import ColumnElement, func, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.adapters.store.tables import LeaseRow
from control_plane.errors import ControlPlaneError


class LeaseLost(ControlPlaneError):
    """Someone else leads, or may lead from now on: what this process was about to write is void."""

    type, title, status = "lease-lost", "This process no longer leads", 409


@dataclass(frozen=True, slots=True)
class Lease:
    """`epoch` rises with every takeover."""

    name: str
    holder: str
    epoch: int


async def acquire(session: AsyncSession, name: str, holder: str, ttl: timedelta) -> Lease | None:
    """Take the lease if it is free or has expired; None while another holds it. `holder` is unique per process."""
    expires = func.clock_timestamp() + ttl
    taken = insert(LeaseRow).values(name=name, holder=holder, epoch=1, expires_at=expires)
    taken = taken.on_conflict_do_update(
        index_elements=[LeaseRow.name],
        set_={"holder": holder, "epoch": LeaseRow.epoch + 1, "expires_at": expires},
        where=LeaseRow.expires_at <= func.clock_timestamp(),
    )
    epoch = await session.scalar(taken.returning(LeaseRow.epoch))
    return None if epoch is None else Lease(name, holder, epoch)


async def renew(session: AsyncSession, lease: Lease, ttl: timedelta) -> None:
    """Raises LeaseLost if it has expired, even if nobody took it yet: work done meanwhile may have been judged late."""
    renewed = await session.scalar(
        update(LeaseRow).where(*_mine(lease)).values(expires_at=func.clock_timestamp() + ttl).returning(LeaseRow.epoch)
    )
    if renewed is None:
        raise LeaseLost(f"The lease {lease.name!r} of epoch {lease.epoch} was lost.")


async def release(session: AsyncSession, lease: Lease) -> None:
    """Give the lease back before it expires. No error if it is ours no more."""
    await session.execute(update(LeaseRow).where(*_mine(lease)).values(expires_at=func.clock_timestamp()))


async def hold(session: AsyncSession, lease: Lease) -> None:
    """Make this transaction the leader's: nobody takes over before it ends. Its first statement.

    Raises LeaseLost for a stale leader. The row is locked for sharing, so keep the transaction short; one that stalls
    is ended by Postgres (`idle_in_transaction_session_timeout`), or its holder's death would outlast the lease.
    """
    mine = await session.scalar(select(LeaseRow.epoch).where(*_mine(lease)).with_for_update(read=True))
    if mine is None:
        raise LeaseLost(f"The lease {lease.name!r} of epoch {lease.epoch} was lost.")


def _mine(lease: Lease) -> tuple[ColumnElement[bool], ...]:
    return (
        LeaseRow.name == lease.name,
        LeaseRow.holder == lease.holder,
        LeaseRow.epoch == lease.epoch,
        LeaseRow.expires_at > func.clock_timestamp(),
    )
