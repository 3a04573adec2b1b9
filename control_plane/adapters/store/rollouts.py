"""Rollouts in Postgres. Functions take the session; the edge commits."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from uuid import UUID

from pydantic import TypeAdapter
from sqlalchemy import func, insert, or_, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.adapters.store import ids
from control_plane.adapters.store.tables import RolloutRow
from control_plane.domain.rollouts import OPEN, TERMINAL, Conclusion, Phase, Plan, Rollout
from control_plane.errors import NotFound, StaleRevision

_PLAN = TypeAdapter(Plan)
_FRESH = {"populate_existing": True}  # what the database says now, not what this session read before


@dataclass(frozen=True, slots=True)
class Entry:
    """A rollout with what it is about, at the revision it was read."""

    id: UUID
    model: str
    kind: str  # promotion | rollback
    candidate_version: str
    stable_version: str | None
    rollout: Rollout
    created_at: datetime
    created_by: str
    closed_at: datetime | None
    revision: int
    published_revision: int | None  # first snapshot that carries this state; None: not published yet
    told_at: datetime | None  # when routers were handed one that carries this phase and step; None: not yet


async def add(
    session: AsyncSession,
    new: Rollout,
    *,
    model: str,
    kind: str,
    candidate: str,
    stable: str | None,
    created_by: str,
    now: datetime,
) -> Entry:
    """Insert a rollout with its plan, which never changes. A second open one of the model violates
    `one_open_rollout` (IntegrityError)."""
    closed = now if new.phase in TERMINAL else None
    entry = Entry(ids.new(), model, kind, candidate, stable, new, now, created_by, closed, 1, None, None)
    facts = {"id": entry.id, "model": model, "kind": kind, "candidate_version": candidate, "stable_version": stable}
    facts |= {"plan": _PLAN.dump_python(new.plan, mode="json"), "created_at": now, "created_by": created_by}
    await session.execute(insert(RolloutRow).values(**facts, **_state(new), closed_at=closed, revision=1))
    return entry


async def load(session: AsyncSession, rollout_id: UUID) -> Entry:
    row = await session.scalar(select(RolloutRow).where(RolloutRow.id == rollout_id), execution_options=_FRESH)
    if row is None:
        raise NotFound(f"Rollout {rollout_id} does not exist.", rollout_id=str(rollout_id))
    return _entry(row)


async def open_of(session: AsyncSession, model: str) -> Entry | None:
    """The one open rollout of `model`, if there is one."""
    query = select(RolloutRow).where(RolloutRow.model == model, RolloutRow.phase.in_(OPEN))
    row = await session.scalar(query, execution_options=_FRESH)
    return None if row is None else _entry(row)


async def all_open(session: AsyncSession) -> list[Entry]:
    query = select(RolloutRow).where(RolloutRow.phase.in_(OPEN)).order_by(RolloutRow.id)
    rows = await session.scalars(query, execution_options=_FRESH)
    return [_entry(row) for row in rows]


async def lock_layer(session: AsyncSession, name: str) -> None:
    """Nobody else decides on this layer's slices until the transaction ends."""
    await session.execute(select(func.pg_advisory_xact_lock(func.hashtext(f"layer {name}"))))


async def page(
    session: AsyncSession,
    *,
    before: UUID | None,
    limit: int,
    model: str | None = None,
    open_only: bool = False,
    strategies: Sequence[str] = (),
) -> list[Entry]:
    """Newest first (ids are UUIDv7), `before` excluded."""
    query = select(RolloutRow).order_by(RolloutRow.id.desc()).limit(limit)
    if before is not None:
        query = query.where(RolloutRow.id < before)
    if model is not None:
        query = query.where(RolloutRow.model == model)
    if open_only:
        query = query.where(RolloutRow.phase.in_(OPEN))
    if strategies:
        query = query.where(RolloutRow.plan["strategy"].astext.in_(strategies))
    return [_entry(row) for row in await session.scalars(query)]


async def save(session: AsyncSession, entry: Entry, new: Rollout, *, now: datetime) -> Entry:
    """Compare-and-swap: write `new` if the row is still at `entry.revision`, else StaleRevision; the caller re-reads.

    A new state is unpublished: `published_revision` is for the reconciler to set again, and `told_at` where the phase
    or step is another one or begins anew.
    """
    closed = now if new.phase in TERMINAL else None
    same = (new.phase, new.step, new.since) == (entry.rollout.phase, entry.rollout.step, entry.rollout.since)
    told = RolloutRow.told_at if same else None  # as the database has it: routers may have been told since the look
    swapped = await session.execute(
        update(RolloutRow)
        .where(RolloutRow.id == entry.id, RolloutRow.revision == entry.revision)
        .values(**_state(new), closed_at=closed, published_revision=None, told_at=told, revision=entry.revision + 1)
        .returning(RolloutRow.told_at)
    )
    found = swapped.one_or_none()
    if found is None:
        raise StaleRevision(f"Rollout {entry.id} is no longer at revision {entry.revision}.", expected=entry.revision)
    unpublished = replace(entry, rollout=new, closed_at=closed, published_revision=None, told_at=found.told_at)
    return replace(unpublished, revision=entry.revision + 1)


async def mark_published(session: AsyncSession, states: Sequence[tuple[UUID, int]], snapshot_revision: int) -> None:
    """Note the snapshot that first carries each (rollout, revision); a state that has moved on since is left alone."""
    for rollout_id, revision in states:
        await session.execute(
            update(RolloutRow)
            .where(RolloutRow.id == rollout_id, RolloutRow.revision == revision)
            .where(RolloutRow.published_revision.is_(None))
            .values(published_revision=snapshot_revision)
        )


async def mark_told(session: AsyncSession, states: Sequence[tuple[UUID, int]], *, at: datetime) -> None:
    """Note that routers were handed a snapshot that carries each (rollout, revision); the first time counts."""
    for rollout_id, revision in states:
        await session.execute(
            update(RolloutRow)
            .where(RolloutRow.id == rollout_id, RolloutRow.revision == revision, RolloutRow.told_at.is_(None))
            .values(told_at=at)
        )


async def unpublished(session: AsyncSession) -> list[tuple[UUID, int]]:
    """(rollout, revision) of every state no snapshot carries yet, or routers were not handed; closed ones included."""
    waits = or_(RolloutRow.published_revision.is_(None), RolloutRow.told_at.is_(None))
    query = select(RolloutRow.id, RolloutRow.revision).where(waits)
    return [(row.id, row.revision) for row in await session.execute(query)]


def _state(new: Rollout) -> dict[str, object]:
    return {
        "phase": new.phase.value,
        "step": new.step,
        "since": new.since,
        "failures": new.failures,
        "paused_from": new.paused_from.value if new.paused_from else None,
        "reason": new.reason,
        "conclusion": new.conclusion.value if new.conclusion else None,
        "crossed_at": new.crossed,
    }


def _entry(row: RolloutRow) -> Entry:
    paused_from = Phase(row.paused_from) if row.paused_from else None
    plan = _PLAN.validate_python(row.plan)
    state = Rollout(
        plan,
        row.since,
        Phase(row.phase),
        row.step,
        row.failures,
        paused_from,
        row.reason,
        Conclusion(row.conclusion) if row.conclusion else None,
        row.crossed_at,
    )
    return Entry(
        row.id,
        row.model,
        row.kind,
        row.candidate_version,
        row.stable_version,
        state,
        row.created_at,
        row.created_by,
        row.closed_at,
        row.revision,
        row.published_revision,
        row.told_at,
    )
