"""Requests that a shadow answered, too, reduced to one pair per customer in Postgres.

A copy's id is its request's with the last bit flipped: that is how the two find each other.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.adapters.store.truth import number
from control_plane.domain.analysis.shadow import Pairs
from control_plane.domain.experiments.samples import Mean

MOST: Final = 50_000  # copies, the oldest: what has not decided by then is looked at by a person
METRICS: Final = ("error_rate", "latency", "score", "disagreement")


@dataclass(frozen=True, slots=True)
class Found:
    """Each metric over the customers' first pairs; when the newest of these came; and whether no more are read."""

    metrics: Mapping[str, Pairs]
    newest: datetime | None
    exhausted: bool


async def pairs(
    session: AsyncSession, model: str, candidate: str, stable: str, *, since: datetime, until: datetime, limit_us: int
) -> Found:
    """`limit_us`: what counts as a slow answer."""
    given = {"model": model, "candidate": candidate, "stable": stable, "since": since, "until": until}
    given |= {"days": since - timedelta(days=1), "limit_us": limit_us, "most": MOST}
    row = (await session.execute(_PAIRS, given)).one()
    made: dict[str, Pairs] = {}
    for name in METRICS:
        count = int(getattr(row, f"{name}_n"))
        if count:
            means = (float(getattr(row, f"{name}_{side}")) for side in ("d", "c", "b"))
            difference, candidate_mean, baseline_mean = means
            m2 = max(0.0, float(getattr(row, f"{name}_m2") or 0.0))
            made[name] = Pairs(Mean(count, difference, m2), Mean(count, candidate_mean), Mean(count, baseline_mean))
    return Found(made, row.newest, int(row.copies) >= MOST)


def _sums(name: str, candidate: str, baseline: str, where: str, difference: str | None = None) -> str:
    apart = difference or f"({candidate}) - ({baseline})"
    picked = f"FILTER (WHERE {where})"
    return f"""
  count(*) {picked} AS {name}_n,
  avg({apart}) {picked} AS {name}_d,
  (var_pop({apart}) {picked}) * count(*) {picked} AS {name}_m2,
  avg({candidate}) {picked} AS {name}_c,
  avg({baseline}) {picked} AS {name}_b"""


_FAILED = "CASE WHEN {0}_status = 'ok' THEN 0.0 ELSE 1.0 END::float8"
_SLOW = "CASE WHEN {0}_latency > :limit_us THEN 1.0 ELSE 0.0 END::float8"
_BOTH = "c_status = 'ok' AND b_status = 'ok'"
_SAID = "coalesce({0}.decision, {0}.output ->> 'label')"
_SCORE = number("{0}.output -> 'probability'")
_CLAMPED = "least(greatest({0}_score, 0), 1)"
_OTHER = "CASE WHEN c_said = b_said THEN 0.0 ELSE 1.0 END::float8"

_PAIRS = text(
    f"""
WITH copies AS (
  SELECT * FROM predictions
  WHERE model = :model AND received_at >= :since AND received_at <= :until AND day >= :days AND shadow
    AND served_version = :candidate AND status <> 'shed'
  ORDER BY received_at LIMIT :most
), pairs AS (
  SELECT DISTINCT ON (coalesce(c.unit_id, c.prediction_id::text)) c.received_at,
    c.status AS c_status, b.status AS b_status, c.latency_us AS c_latency, b.latency_us AS b_latency,
    {_SAID.format("c")} AS c_said, {_SAID.format("b")} AS b_said,
    {_SCORE.format("c")} AS c_score, {_SCORE.format("b")} AS b_score
  FROM copies c JOIN predictions b ON b.day = c.day AND b.prediction_id = (left(c.prediction_id::text, 35)
    || translate(right(c.prediction_id::text, 1), '0123456789abcdef', '1032547698badcfe'))::uuid
  WHERE NOT b.shadow AND NOT b.pinned AND b.served_version = :stable
  ORDER BY coalesce(c.unit_id, c.prediction_id::text), c.received_at, c.prediction_id
)
SELECT max(received_at) AS newest, (SELECT count(*) FROM copies) AS copies,
  {
        ", ".join(
            [
                _sums("error_rate", _FAILED.format("c"), _FAILED.format("b"), "true"),
                _sums("latency", _SLOW.format("c"), _SLOW.format("b"), _BOTH),
                _sums(
                    "score",
                    _CLAMPED.format("c"),
                    _CLAMPED.format("b"),
                    f"{_BOTH} AND c_score IS NOT NULL AND b_score IS NOT NULL",
                ),
                _sums(
                    "disagreement",
                    _OTHER,
                    "0.0::float8",
                    f"{_BOTH} AND c_said IS NOT NULL AND b_said IS NOT NULL",
                    _OTHER,
                ),
            ]
        )
    }
FROM pairs
"""  # noqa: S608  (every part is written here, values are bound)
)
