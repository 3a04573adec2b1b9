"""Units that close are reduced to one number per metric in Postgres and added to the statistics of their arm, once.

A unit closes `observation` after its first request of the rollout plus the delay of a metric. Metrics of one delay are
a group; groups close in order, and `exposures.folded` counts those a unit is through. The units of a transaction are
bounded, so its time is. Intention to treat: by the variant first assigned.

Counted in no comparison: the slice between the two arms, and units of a step that compares equal slices whose
observation was not over when the candidate got more than half: from then on baseline loses units, and leaving out only
those it lost would not be fair.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import Row, select, text
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.adapters.store.closing_sql import Group, Measure, Truth, statement
from control_plane.adapters.store.tables import ArmStatisticRow
from control_plane.domain.analysis.comparison import Arm
from control_plane.domain.experiments.samples import Mean

Statistics = Mapping[tuple[str, int, str], Arm]  # metric, step, variant


@dataclass(frozen=True, slots=True)
class Subject:
    """The rollout whose units close. `deciding`: steps that compare equal slices; `crossed`: when the last ended."""

    rollout_id: UUID
    model: str
    observation: timedelta
    deciding: tuple[int, ...]
    crossed: datetime | None
    truth: Truth = field(default_factory=Truth)


async def close(session: AsyncSession, subject: Subject, group: Group, *, until: datetime, limit: int) -> int:
    """Fold units whose time is over at `until`; at most `limit`, oldest first. How many; 0: none is left.

    Only one transaction at a time may do so: the leader's.
    """
    given: dict[str, Any] = {"rollout": subject.rollout_id, "folded": group.number, "limit": limit}
    last = until - subject.observation - group.delay
    span = (await session.execute(_SPAN, given | {"until": last})).one()
    if not span.n:
        return 0
    day = timedelta(days=1)
    given |= {
        "first": span.first,
        "last": span.last,
        "days_from": span.first - day,
        "days_to": span.last + subject.observation + day,
        "observation": subject.observation,
        "window": subject.observation + group.delay,
        "deciding": list(subject.deciding),
        "crossed": subject.crossed,
        "model": subject.model,
    }
    given |= {
        f"before_from{at}": span.first - measure.before - day
        for at, measure in enumerate(group.measures)
        if measure.before is not None
    }
    made, values = statement(group, subject.truth)
    rows = (await session.execute(text(made), given | values)).all()
    names = {f"m{at}": measure.name for at, measure in enumerate(group.measures)}
    fresh: dict[tuple[str, int, str], Arm] = {
        (names.get(str(row.metric), str(row.metric)), row.step, row.variant): _arm(row) for row in rows if row.n
    }
    await _add(session, subject.rollout_id, fresh)
    return int(span.n)


async def statistics(session: AsyncSession, rollout_id: UUID) -> dict[tuple[str, int, str], Arm]:
    """Everything folded so far, by metric, step and variant."""
    rows = await session.scalars(
        select(ArmStatisticRow).where(ArmStatisticRow.rollout_id == rollout_id),
        execution_options={"populate_existing": True},
    )
    return {
        (row.metric, row.step, row.variant): _filled(
            Mean(row.count, row.mean, row.m2), row.nonzero, row.x_mean, row.x_m2, row.c, row.cells
        )
        for row in rows
    }


def groups(measures: Sequence[tuple[Measure, timedelta]]) -> tuple[Group, ...]:
    """Metrics by delay, the shortest first. The first group is always there, with delay 0: it counts the units."""
    delays = sorted({timedelta(0), *(delay for _, delay in measures)})
    return tuple(
        Group(number, delay, tuple(measure for measure, of in measures if of == delay))
        for number, delay in enumerate(delays)
    )


def _arm(row: Row[Any]) -> Arm:
    """One line of sums as an arm."""
    values = Mean(row.n, float(row.mean or 0.0), max(0.0, float(row.m2 or 0.0)))
    return _filled(values, row.nonzero, row.x_mean, row.x_m2, row.c, row.cells)


def _filled(
    values: Mean, nonzero: int, x_mean: float | None, x_m2: float | None, c: float | None, cells: dict[str, int] | None
) -> Arm:
    counts = tuple(sorted((int(at), units) for at, units in (cells or {}).items()))
    if x_mean is None:
        return Arm(values, nonzero, cells=counts)
    beside = Mean(values.count, x_mean, max(0.0, x_m2 or 0.0))
    most = (values.m2 * beside.m2) ** 0.5  # rounding must not make two numbers more alike than they can be
    return Arm(values, nonzero, beside, min(max(c or 0.0, -most), most), counts)


async def _add(session: AsyncSession, rollout_id: UUID, fresh: Statistics) -> None:
    if not fresh:
        return
    known = await statistics(session, rollout_id)
    rows: list[dict[str, object]] = []
    for key, arm in fresh.items():
        both = known.get(key, Arm()) + arm
        metric, step, variant = key
        row: dict[str, object] = {"rollout_id": rollout_id, "metric": metric, "step": step, "variant": variant}
        row |= {"count": both.values.count, "mean": both.values.mean, "m2": both.values.m2, "nonzero": both.nonzero}
        pair = (both.beside.mean, both.beside.m2, both.c) if both.beside.count else (None, None, None)
        row |= dict(zip(("x_mean", "x_m2", "c"), pair, strict=True))
        row["cells"] = {str(at): units for at, units in both.cells} or None
        rows.append(row)
    put = insert(ArmStatisticRow)
    changed = {name: getattr(put.excluded, name) for name in _SUMS}
    key_columns = ["rollout_id", "metric", "step", "variant"]
    await session.execute(put.on_conflict_do_update(index_elements=key_columns, set_=changed), rows)


_SUMS = ("count", "mean", "m2", "nonzero", "x_mean", "x_m2", "c", "cells")

_SPAN = text("""
SELECT min(first_at) AS first, max(first_at) AS last, count(*) AS n FROM (
  SELECT first_at FROM exposures
  WHERE rollout_id = :rollout AND folded = :folded AND first_at <= :until ORDER BY first_at LIMIT :limit
) due
""")
