"""Replays in Postgres; each is the job of the same id."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import bindparam, insert, select, text, update
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.types import TEXT

from control_plane.adapters.store.tables import JobRow, ReplayRow
from control_plane.errors import NotFound

_ALIVE = ("wanted", "queued", "running", "succeeded")

_FORGET = """
UPDATE replays SET report = jsonb_set(report, '{flips,examples}', coalesce((
  SELECT jsonb_agg(one) FROM jsonb_array_elements(report #> '{flips,examples}') AS one
  WHERE NOT (one ->> 'prediction_id' = ANY(:identities))), '[]'))
WHERE model = :model AND EXISTS (
  SELECT 1 FROM jsonb_array_elements(report #> '{flips,examples}') AS one
  WHERE one ->> 'prediction_id' = ANY(:identities))
"""


@dataclass(frozen=True, slots=True)
class Pair:
    """The two artifacts a replay is about."""

    model: str
    candidate_digest: str
    baseline_digest: str


async def add(session: AsyncSession, job_id: UUID, facts: Mapping[str, Any]) -> None:
    await session.execute(insert(ReplayRow).values(id=job_id, **facts))


async def load(session: AsyncSession, replay_id: UUID, model: str | None = None) -> tuple[ReplayRow, JobRow]:
    """Raises NotFound, also where it is another model's."""
    query = select(ReplayRow, JobRow).join(JobRow, JobRow.id == ReplayRow.id).where(ReplayRow.id == replay_id)
    if model is not None:
        query = query.where(ReplayRow.model == model)
    row = (await session.execute(query, execution_options={"populate_existing": True})).one_or_none()
    if row is None:
        raise NotFound(f"There is no replay {replay_id}.", replay=str(replay_id))
    return row[0], row[1]


async def finish(session: AsyncSession, replay_id: UUID, report: Mapping[str, Any], *, now: datetime) -> None:
    mine = update(ReplayRow).where(ReplayRow.id == replay_id)
    await session.execute(mine.values(report=dict(report), done_at=now))


async def page(
    session: AsyncSession, model: str, *, before: UUID | None, limit: int
) -> Sequence[tuple[ReplayRow, JobRow]]:
    """Newest first."""
    query = select(ReplayRow, JobRow).join(JobRow, JobRow.id == ReplayRow.id).where(ReplayRow.model == model)
    if before is not None:
        query = query.where(ReplayRow.id < before)
    found = await session.execute(query.order_by(ReplayRow.id.desc()).limit(limit))
    return [(row[0], row[1]) for row in found]


async def like(
    session: AsyncSession,
    pair: Pair,
    since: datetime,
    until: datetime,
    slack: timedelta,
    sample: float,
    segment: str | None,
) -> UUID | None:
    """The newest one under way or done that answers the same question, its window to within `slack`."""
    row = ReplayRow
    query = (
        select(row.id)
        .join(JobRow, JobRow.id == row.id)
        .where(*_of(pair), row.since <= since + slack, row.until >= until - slack, row.until <= until + slack)
        .where(row.since >= since - slack, row.sample == sample, row.segment.is_not_distinct_from(segment))
        .where(JobRow.state.in_(_ALIVE), JobRow.cancel_requested_at.is_(None))
        .order_by(row.id.desc())
    )
    return await session.scalar(query.limit(1))


async def done(session: AsyncSession, pair: Pair, *, limit: int = 20) -> Sequence[ReplayRow]:
    """Replays of all customers with a report, newest first."""
    query = select(ReplayRow).where(*_of(pair), ReplayRow.done_at.is_not(None), ReplayRow.sample == 1.0)
    found = await session.scalars(
        query.order_by(ReplayRow.done_at.desc()).limit(limit), execution_options={"populate_existing": True}
    )
    return list(found)


async def forget(session: AsyncSession, model: str, identities: Sequence[str]) -> None:
    """Remove examples of these predictions."""
    if identities:
        statement = text(_FORGET).bindparams(bindparam("identities", type_=ARRAY(TEXT)))
        await session.execute(statement, {"model": model, "identities": list(identities)})


def _of(pair: Pair) -> tuple[Any, ...]:
    row = ReplayRow
    digests = row.candidate_digest == pair.candidate_digest, row.baseline_digest == pair.baseline_digest
    return (row.model == pair.model, *digests)
