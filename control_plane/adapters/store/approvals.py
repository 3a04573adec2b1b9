"""Approvals in Postgres. Functions take the session; the edge commits."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from typing import Any
from uuid import UUID

from sqlalchemy import insert, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.adapters.store import ids
from control_plane.adapters.store.tables import ApprovalRow, ApprovalVoteRow
from control_plane.domain.audit import Actor
from control_plane.domain.governance.approvals import Approval, State
from control_plane.errors import NotFound, StaleRevision

_FRESH = {"populate_existing": True}


@dataclass(frozen=True, slots=True)
class Entry:
    """An approval as it was read: its row, and who voted in the order they did."""

    row: ApprovalRow
    votes: tuple[ApprovalVoteRow, ...]

    @property
    def state(self) -> Approval:
        row = self.row
        agreed = tuple(vote.person for vote in self.votes if vote.agrees)
        author = None if row.automated else row.author
        return Approval(author, row.quorum, row.expires_at, row.content_sha256, State(row.state), agreed, row.why)

    @property
    def author(self) -> Actor:
        return Actor(self.row.author, self.row.author_role, self.row.author_key)


async def add(
    session: AsyncSession,
    *,
    operation: str,
    model: str | None,
    request: Mapping[str, Any],
    content: bytes,
    author: Actor,
    automated: bool,
    trigger: str,
    reason: str,
    quorum: int,
    now: datetime,
    expires_at: datetime,
) -> Entry:
    """A second pending one of the same content violates `one_pending_approval` (IntegrityError)."""
    new = ids.new()
    facts = {"id": new, "operation": operation, "model": model, "request": dict(request), "content": content}
    facts |= {"content_sha256": sha256(content).digest(), "author": author.person, "automated": automated}
    facts |= {"author_role": author.role, "author_key": author.key, "trigger": trigger, "reason": reason}
    facts |= {"quorum": quorum, "state": State.PENDING.value, "created_at": now, "expires_at": expires_at}
    await session.execute(insert(ApprovalRow).values(**facts, why="", revision=1))
    return await load(session, new)


async def load(session: AsyncSession, approval_id: UUID, *, lock: bool = False) -> Entry:
    query = select(ApprovalRow).where(ApprovalRow.id == approval_id)
    row = await session.scalar(query.with_for_update() if lock else query, execution_options=_FRESH)
    if row is None:
        raise NotFound(f"There is no approval {approval_id}.", approval=str(approval_id))
    return (await _with_votes(session, [row]))[0]


async def pending_with(session: AsyncSession, content: bytes) -> Entry | None:
    """The pending approval of exactly this content."""
    mine = (ApprovalRow.content_sha256 == sha256(content).digest(), ApprovalRow.state == State.PENDING)
    row = await session.scalar(select(ApprovalRow).where(*mine), execution_options=_FRESH)
    return None if row is None else (await _with_votes(session, [row]))[0]


async def pending(session: AsyncSession) -> list[UUID]:
    """Oldest first."""
    query = select(ApprovalRow.id).where(ApprovalRow.state == State.PENDING).order_by(ApprovalRow.id)
    return list(await session.scalars(query))


async def page(
    session: AsyncSession, *, before: UUID | None, limit: int, state: str | None = None, model: str | None = None
) -> list[Entry]:
    """Newest first."""
    query = select(ApprovalRow).order_by(ApprovalRow.id.desc()).limit(limit)
    if before is not None:
        query = query.where(ApprovalRow.id < before)
    if state is not None:
        query = query.where(ApprovalRow.state == state)
    if model is not None:
        query = query.where(ApprovalRow.model == model)
    return await _with_votes(session, list(await session.scalars(query, execution_options=_FRESH)))


async def vote(session: AsyncSession, entry: Entry, who: Actor, *, agrees: bool, reason: str, now: datetime) -> None:
    facts = {"approval_id": entry.row.id, "person": who.person, "agrees": agrees, "role": who.role, "key": who.key}
    await session.execute(insert(ApprovalVoteRow).values(**facts, reason=reason, at=now))


async def save(
    session: AsyncSession, entry: Entry, new: Approval, *, result: Mapping[str, Any] | None = None, now: datetime
) -> Entry:
    """Compare-and-swap on the revision. StaleRevision when somebody was faster."""
    row = entry.row
    closed = None if new.state is State.PENDING else now
    changed = {"state": new.state.value, "why": new.why, "closed_at": closed, "revision": row.revision + 1}
    swapped = await session.execute(
        update(ApprovalRow)
        .where(ApprovalRow.id == row.id, ApprovalRow.revision == row.revision, ApprovalRow.state == State.PENDING)
        .values(**changed, result=None if result is None else dict(result))
        .returning(ApprovalRow.revision)
    )
    if swapped.scalar_one_or_none() is None:
        raise StaleRevision(f"Approval {row.id} is no longer at revision {row.revision}.", expected=row.revision)
    return await load(session, row.id)


async def _with_votes(session: AsyncSession, rows: Sequence[ApprovalRow]) -> list[Entry]:
    wanted = [row.id for row in rows]
    query = select(ApprovalVoteRow).where(ApprovalVoteRow.approval_id.in_(wanted)).order_by(ApprovalVoteRow.at)
    votes = list(await session.scalars(query, execution_options=_FRESH)) if wanted else []
    return [Entry(row, tuple(vote for vote in votes if vote.approval_id == row.id)) for row in rows]
