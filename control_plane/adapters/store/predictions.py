"""Logged predictions and outcomes in Postgres. Personal data."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.adapters.store import ids
from control_plane.adapters.store.tables import OutcomeRow, PredictionRow


async def load(session: AsyncSession, prediction_id: UUID) -> PredictionRow | None:
    """None: not logged, or not ingested yet. The id's own time names the partition."""
    if prediction_id.version != 7:
        return None
    try:
        born = ids.born(prediction_id)
    except (OverflowError, ValueError):  # a time beyond any calendar
        return None
    day = born.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    return await session.get(PredictionRow, (day, prediction_id), populate_existing=True)


async def outcomes_of(session: AsyncSession, prediction_id: UUID) -> Sequence[OutcomeRow]:
    """Every outcome of the prediction, corrections included, in order of observation."""
    query = select(OutcomeRow).where(OutcomeRow.prediction_id == prediction_id)
    return (await session.scalars(query.order_by(OutcomeRow.observed_at, OutcomeRow.outcome_id))).all()


async def outcomes_of_unit(
    session: AsyncSession, model: str, unit: str, since: datetime, until: datetime
) -> Sequence[OutcomeRow]:
    """Outcomes that name the unit, observed from `since` to `until`."""
    row = OutcomeRow
    query = select(row).where(row.model == model, row.unit_id == unit, row.observed_at.between(since, until))
    return (await session.scalars(query.order_by(row.observed_at, row.outcome_id))).all()


async def add_outcomes(session: AsyncSession, rows: Sequence[dict[str, Any]]) -> int:
    """Insert outcomes; return how many were new. One known by its id is left as it is."""
    new = insert(OutcomeRow).on_conflict_do_nothing(index_elements=[OutcomeRow.outcome_id])
    stored = await session.scalars(new.returning(OutcomeRow.outcome_id), list(rows))
    return len(stored.all())
