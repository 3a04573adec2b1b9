"""Answers of one version to customers: with the truth where it is known, and the first it ever gave."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, cast

from sqlalchemy import bindparam, func, select, text
from sqlalchemy.dialects.postgresql import INTERVAL, JSONB
from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.adapters.store import truth
from control_plane.adapters.store.tables import PredictionRow
from control_plane.domain.drift.performance import Answer

_NEWEST = f"""
WITH answers AS (
  SELECT p.prediction_id, p.unit_id, p.received_at, p.threshold,
    {truth.SAID}
  FROM predictions p
  WHERE p.model = :model AND p.received_at >= :since AND p.received_at < :until AND p.day >= :first_day
    AND p.served_version = :version AND p.status = 'ok' AND NOT p.shadow AND NOT p.pinned
  ORDER BY p.received_at DESC LIMIT :limit
)"""  # noqa: S608  (constants)
_SCORED = "coalesce(probability, value), said, probability >= threshold, threshold"
_SAID = text(f"{_NEWEST} SELECT {_SCORED} FROM answers")  # noqa: S608
_JOINED = text(f"{_NEWEST}, {truth.JOINED} SELECT {_SCORED}, truth FROM joined")  # noqa: S608
_KNOWN = _JOINED.bindparams(bindparam("window", type_=INTERVAL)).columns(truth=JSONB)


async def newest(
    session: AsyncSession,
    model: str,
    version: str,
    *,
    since: datetime,
    until: datetime,
    limit: int,
    window: timedelta | None = None,
) -> Sequence[Answer]:
    """Answers given in [since, until), newest first. `window`: of a unit's outcomes; None: no outcome is asked for."""
    first_day = since.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0) - timedelta(days=1)
    given: dict[str, Any] = {"model": model, "version": version, "limit": limit}
    given |= {"since": since, "until": until, "first_day": first_day}
    if window is None:
        return [Answer(*row) for row in await session.execute(_SAID, given)]
    return [Answer(*row) for row in await session.execute(_KNOWN, given | {"window": window})]


async def first(
    session: AsyncSession, model: str, version: str, *, since: datetime, rows: int
) -> list[tuple[Mapping[str, Any], object]] | None:
    """Features and output of the first `rows` answers since; None, for the price of a count, while there are fewer."""
    row = PredictionRow
    query = select(row.received_at).where(row.model == model, row.received_at >= since)
    query = query.where(row.served_version == version, row.status == "ok", ~row.shadow)
    enough = query.limit(rows).subquery()
    if await session.scalar(select(func.count()).select_from(enough)) != rows:
        return None
    whole = query.with_only_columns(row.features, row.output).order_by(row.received_at).limit(rows)
    answers = cast("Sequence[tuple[Mapping[str, Any] | None, object]]", (await session.execute(whole)).all())
    return [(features or {}, output) for features, output in answers]
