"""Looks at rollouts and what they are based on, in Postgres. Functions take the session; the edge commits."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import func, insert, select, text
from sqlalchemy.dialects import postgresql
from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.adapters.store.tables import AnalysisRunRow, ExposureRow, PredictionRow, RolloutLookRow
from control_plane.adapters.store.truth import measured, number
from control_plane.domain.analysis.forecast import Usual
from control_plane.domain.analysis.judge import Live, Tally
from control_plane.domain.targeting import Group

LIVE = timedelta(minutes=1)  # the newest requests, as fallbacks are counted among them
_LIVE_SAMPLE = 60_000  # of those requests at most: at 1,000 a second the whole minute, beyond that its newest part
_SAMPLE = 20_000  # newest predictions from which a model's traffic is estimated
_DAY = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Look:
    """The last look at a rollout; `since` names the state that `tally` belongs to."""

    looked_at: datetime
    since: datetime
    asked_at: datetime | None
    tally: Tally


@dataclass(frozen=True, slots=True)
class Run:
    """A look that was worth keeping."""

    at: datetime
    step: int
    verdict: str
    conclusion: str | None
    why: str
    decided: str | None
    evidence: Mapping[str, Any]


async def looks(session: AsyncSession, rollouts: Sequence[UUID]) -> dict[UUID, Look]:
    rows = await session.scalars(
        select(RolloutLookRow).where(RolloutLookRow.rollout_id.in_(rollouts)),
        execution_options={"populate_existing": True},
    )
    return {
        row.rollout_id: Look(row.looked_at, row.since, row.asked_at, Tally(row.inconclusive, row.errors))
        for row in rows
    }


async def save_look(session: AsyncSession, rollout_id: UUID, look: Look) -> None:
    values: dict[str, Any] = {"looked_at": look.looked_at, "since": look.since, "asked_at": look.asked_at}
    values |= {"inconclusive": look.tally.inconclusive, "errors": look.tally.errors}
    put = postgresql.insert(RolloutLookRow).values(rollout_id=rollout_id, **values)
    await session.execute(put.on_conflict_do_update(index_elements=["rollout_id"], set_=values))


async def add_run(session: AsyncSession, rollout_id: UUID, run: Run) -> None:
    values = {name: getattr(run, name) for name in ("at", "step", "verdict", "conclusion", "why", "decided")}
    await session.execute(insert(AnalysisRunRow).values(rollout_id=rollout_id, **values, evidence=dict(run.evidence)))


async def last_run(session: AsyncSession, rollout_id: UUID) -> Run | None:
    found = await runs(session, rollout_id, limit=1)
    return found[0] if found else None


async def runs(session: AsyncSession, rollout_id: UUID, *, limit: int) -> list[Run]:
    """Newest first."""
    row = AnalysisRunRow
    found = await session.scalars(select(row).where(row.rollout_id == rollout_id).order_by(row.id.desc()).limit(limit))
    return [Run(r.at, r.step, r.verdict, r.conclusion, r.why, r.decided, r.evidence) for r in found]


async def reach(session: AsyncSession, rollout_id: UUID) -> tuple[int, datetime] | None:
    """Customers first assigned to the candidate, and when the first was. None: nobody was, or it is forgotten."""
    query = select(func.count(), func.min(ExposureRow.first_at)).where(
        ExposureRow.rollout_id == rollout_id, ExposureRow.variant == "candidate"
    )
    customers, first_at = (await session.execute(query)).one()
    return (customers, first_at) if customers else None


async def live(
    session: AsyncSession, rollout_id: UUID, model: str, candidate: str, *, baking: bool, now: datetime
) -> tuple[Live, datetime | None]:
    """The candidate's newest requests, at most a minute old, and when anybody last asked in that time.

    `baking`: the candidate answers everybody, so only what nobody answered is bad.
    """
    row = PredictionRow
    failed = row.status.in_(("error", "timeout", "shed"))
    mine = row.assigned_version == candidate
    mine &= row.step.is_(None) if baking else row.assigned_variant.in_(("candidate", Group.ALLOWED))
    bad = failed if baking else failed | row.fallback_reason.is_not(None)
    newest = (
        select(mine.label("mine"), (mine & bad).label("bad"), row.received_at)
        .where(
            row.model == model,
            row.received_at > now - LIVE,
            row.day >= now - 2 * _DAY,
            row.rollout_id == rollout_id,
            row.assigned_variant.is_not(None),
            ~row.shadow,
            ~row.pinned,
        )
        .order_by(row.received_at.desc())
        .limit(_LIVE_SAMPLE)
        .subquery()
    )
    counted = (func.count().filter(newest.c.mine), func.count().filter(newest.c.bad), func.max(newest.c.received_at))
    requests, failures, asked_at = (await session.execute(select(*counted))).one()
    return Live(requests, failures), asked_at


async def usual(
    session: AsyncSession, model: str, *, limit_us: int, outcomes: Sequence[str], now: datetime
) -> tuple[float, dict[str, Usual]]:
    """Customers a day and how metrics vary between them, from the newest predictions of the last day."""
    given = {"model": model, "since": now - _DAY, "days": now - 2 * _DAY, "limit_us": limit_us, "rows": _SAMPLE}
    row = (await session.execute(_USUAL, given)).one()
    if not row.units:
        return 0.0, {}
    seconds = max((now - row.first).total_seconds(), 600.0)  # traffic that began this morning is no day's
    found = {
        name: Usual(float(mean), float(sd or 0.0))
        for name, mean, sd in (
            ("error_rate", row.error_mean, row.error_sd),
            ("latency", row.slow_mean, row.slow_sd),
            ("score", row.score_mean, row.score_sd),
        )
        if mean is not None
    }
    for name in outcomes:
        seen = await _outcome(session, model, name, row.first, row.units)
        if seen is not None:
            found[f"outcome:{name}"] = seen
    return row.units * 86_400.0 / seconds, found


async def _outcome(session: AsyncSession, model: str, name: str, since: datetime, units: int) -> Usual | None:
    """Per customer, those without one counted as 0. None: none was ever reported in that time."""
    count, total, squares = (await session.execute(_OUTCOMES, {"model": model, "name": name, "since": since})).one()
    if not count:
        return None
    mean = float(total) / units
    return Usual(mean, max(0.0, float(squares) / units - mean**2) ** 0.5)


_USUAL = text(f"""
WITH newest AS (
  SELECT unit_id, received_at, status, latency_us, fallback_reason, output FROM predictions
  WHERE model = :model AND received_at > :since AND day >= :days AND unit_id IS NOT NULL AND NOT shadow AND NOT pinned
  ORDER BY received_at DESC LIMIT :rows
), units AS (
  SELECT min(received_at) AS first, count(*) AS n,
    avg(CASE WHEN status IN ('error', 'timeout', 'shed') THEN 1.0 ELSE 0.0 END)::float8 AS error,
    avg(CASE WHEN latency_us > :limit_us THEN 1.0 ELSE 0.0 END)::float8 AS slow,
    avg({number("output->'probability'")}) AS score
  FROM newest GROUP BY unit_id
)
SELECT count(*) AS units, sum(n) AS rows, min(first) AS first, avg(error) AS error_mean, stddev_samp(error) AS error_sd,
  avg(slow) AS slow_mean, stddev_samp(slow) AS slow_sd, avg(score) AS score_mean, stddev_samp(score) AS score_sd
FROM units
""")  # noqa: S608

_OUTCOMES = text(f"""
SELECT count(*), coalesce(sum(v), 0), coalesce(sum(v * v), 0) FROM (
  SELECT {measured("value")} AS v
  FROM outcomes WHERE model = :model AND name = :name AND observed_at >= :since
) seen
""")  # noqa: S608
