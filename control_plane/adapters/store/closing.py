"""Units that close are reduced to one number per metric in Postgres and added to the statistics of their arm, once.

A unit closes `observation` after its first request of the rollout plus the delay of a metric. Metrics of one delay are
a group; groups close in order, and `exposures.folded` counts those a unit is through. The units of a transaction are
bounded, so its time is. Intention to treat: by the variant first assigned.

Counted in no comparison: the slice between the two arms, and units of a step that compares equal slices whose
observation was not over when the candidate got more than half: from then on baseline loses units, and leaving out only
those it lost would not be fair.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import select, text
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.adapters.store.tables import ArmStatisticRow
from control_plane.domain.analysis.comparison import Arm
from control_plane.domain.analysis.plan import Prices, Source
from control_plane.domain.experiments.samples import Mean

UNITS, FALLBACKS = "units", "fallbacks"
Statistics = Mapping[tuple[str, int, str], Arm]  # metric, step, variant


@dataclass(frozen=True, slots=True)
class Measure:
    """How a metric is read from one customer's records."""

    name: str
    source: Source
    limit_us: int = 0
    outcome: str = ""
    yes_no: bool = False
    prices: Prices | None = None


@dataclass(frozen=True, slots=True)
class Truth:
    """How a label is compared with an answer. `binary`: the word of a positive decision and the positive class."""

    binary: bool = False
    word: str = ""
    positive: str = "1"
    absent_is_negative: bool = False


@dataclass(frozen=True, slots=True)
class Group:
    """Metrics that close together, `delay` after the observation. `number`: how many groups close before it."""

    number: int
    delay: timedelta
    measures: tuple[Measure, ...]


@dataclass(frozen=True, slots=True)
class Subject:
    """The rollout whose units close. `deciding`: steps that compare equal slices; `crossed`: when the last ended."""

    rollout_id: UUID
    model: str
    observation: timedelta
    deciding: tuple[int, ...]
    crossed: datetime | None
    truth: Truth = Truth()


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
    statement, values = _statement(group, subject.truth)
    rows = (await session.execute(text(statement), given | values)).all()
    names = {f"m{at}": measure.name for at, measure in enumerate(group.measures)}
    fresh: dict[tuple[str, int, str], Arm] = {
        (names.get(str(row.metric), str(row.metric)), row.step, row.variant): Arm(
            Mean(row.n, float(row.mean or 0.0), max(0.0, float(row.m2 or 0.0))), row.nonzero
        )
        for row in rows
        if row.n
    }
    await _add(session, subject.rollout_id, fresh)
    return int(span.n)


async def statistics(session: AsyncSession, rollout_id: UUID) -> dict[tuple[str, int, str], Arm]:
    """Everything folded so far, by metric, step and variant."""
    rows = await session.scalars(
        select(ArmStatisticRow).where(ArmStatisticRow.rollout_id == rollout_id),
        execution_options={"populate_existing": True},
    )
    return {(row.metric, row.step, row.variant): Arm(Mean(row.count, row.mean, row.m2), row.nonzero) for row in rows}


def groups(measures: Sequence[tuple[Measure, timedelta]]) -> tuple[Group, ...]:
    """Metrics by delay, the shortest first. The first group is always there, with delay 0: it counts the units."""
    delays = sorted({timedelta(0), *(delay for _, delay in measures)})
    return tuple(
        Group(number, delay, tuple(measure for measure, of in measures if of == delay))
        for number, delay in enumerate(delays)
    )


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
        rows.append(row)
    put = insert(ArmStatisticRow)
    changed = {name: getattr(put.excluded, name) for name in ("count", "mean", "m2", "nonzero")}
    key_columns = ["rollout_id", "metric", "step", "variant"]
    await session.execute(put.on_conflict_do_update(index_elements=key_columns, set_=changed), rows)


_SPAN = text("""
SELECT min(first_at) AS first, max(first_at) AS last, count(*) AS n FROM (
  SELECT first_at FROM exposures
  WHERE rollout_id = :rollout AND folded = :folded AND first_at <= :until ORDER BY first_at LIMIT :limit
) due
""")

_BAD = "(p.status IN ('error', 'timeout', 'shed') OR p.fallback_reason IS NOT NULL)"
_SCORE = """
  CASE WHEN jsonb_typeof(p.output->'probability') = 'number' THEN (p.output->>'probability')::float8 END
"""
_NUMBER = """
  CASE jsonb_typeof({0}) WHEN 'number' THEN least(greatest(({0})::numeric, -1e15), 1e15)::float8
    WHEN 'boolean' THEN CASE WHEN ({0})::boolean THEN 1.0 ELSE 0.0 END END
"""
_LABEL = """
  LEFT JOIN LATERAL (
    SELECT o.value FROM outcomes o
    WHERE o.name = 'label' AND o.observed_at < c.first_at + :window
      AND (o.prediction_id = p.prediction_id OR (o.model = :model AND o.unit_id = p.unit_id))
    ORDER BY o.prediction_id IS NULL, o.observed_at DESC, o.received_at DESC LIMIT 1
  ) label ON true
"""
_TRUE_YES = """
  CASE jsonb_typeof(label.value) WHEN 'boolean' THEN label.value::boolean
    ELSE lower(label.value #>> '{}') IN (lower(:positive), 'true', 'yes')
      OR (jsonb_typeof(label.value) = 'number' AND :positive !~ '^[0-9.]+$' AND (label.value)::numeric = 1) END
"""


def _statement(group: Group, truth: Truth) -> tuple[str, dict[str, object]]:
    """The SQL of one group, and its values beyond those every group has."""
    values: dict[str, object] = {}
    per_request: list[str] = []  # one row per customer out of his requests
    outcomes: list[str] = []
    labelled = False
    for at, measure in enumerate(group.measures):
        match measure.source:
            case Source.ERROR_RATE:
                per_request.append(f"avg(CASE WHEN {_BAD} THEN 1.0 ELSE 0.0 END)::float8 AS m{at}")
            case Source.LATENCY:
                values[f"limit{at}"] = measure.limit_us
                slow = f"CASE WHEN p.latency_us > :limit{at} THEN 1.0 ELSE 0.0 END"
                per_request.append(f"avg({slow}) FILTER (WHERE p.status = 'ok')::float8 AS m{at}")
            case Source.SCORE:
                own = "p.served_version = p.assigned_version"
                per_request.append(f"least(greatest(avg({_SCORE}) FILTER (WHERE {own}), 0), 1)::float8 AS m{at}")
            case Source.LABEL_ERROR:
                labelled = True
                per_request.append(f"avg({_wrong(truth)})::float8 AS m{at}")
                if truth.binary:
                    values |= {"positive": truth.positive, "word": truth.word}
            case Source.COST:
                labelled = True
                if measure.prices is None or not truth.binary:
                    raise ValueError(f"{measure.name} needs prices and a binary problem")
                per_request.append(f"avg({_cost(at, truth, own=measure.prices.own is not None)})::float8 AS m{at}")
                values |= {"positive": truth.positive, "word": truth.word} | _paid(at, measure.prices)
            case Source.OUTCOME:
                values[f"outcome{at}"] = measure.outcome
                outcomes.append(_outcome(at, yes_no=measure.yes_no))
            case Source.PROMQL:
                raise ValueError(f"{measure.name} is not read from records")
    columns = [f"m{at}" for at in range(len(group.measures))]
    costs = {f"m{at}" for at, measure in enumerate(group.measures) if measure.source is Source.COST}
    usual = {
        column: f"CAST(:tn{column[1:]} AS float8)" for column in costs
    }  # a right no is no event, whatever it costs
    if group.number == 0:
        per_request.append(f"avg(CASE WHEN {_BAD} THEN 1.0 ELSE 0.0 END)::float8 AS fallbacks")
        columns.append(FALLBACKS)
    reduced = ", ".join(["c.unit_hash, c.variant, c.step, c.first_at, min(p.unit_id) AS unit_id", *per_request])
    selects = [
        f"SELECT '{column}' AS metric, step, variant, count({column}) AS n, avg({column}) AS mean, "  # noqa: S608
        f"var_pop({column}) * count({column}) AS m2, "
        f"count(*) FILTER (WHERE {column} <> {usual.get(column, '0')}) AS nonzero "
        "FROM valued GROUP BY 2, 3"
        for column in columns
    ]
    if group.number == 0:
        selects.append(
            f"SELECT '{UNITS}', step, variant, count(*), 1.0, 0.0, count(*) FROM due GROUP BY 2, 3"  # noqa: S608
        )
    statement = f"""
WITH due AS MATERIALIZED (
  SELECT unit_hash, variant, step, first_at FROM exposures
  WHERE rollout_id = :rollout AND folded = :folded AND first_at BETWEEN :first AND :last
  ORDER BY unit_hash FOR UPDATE  -- in the order of the ingester, so that neither waits for the other in a circle
), marked AS (
  UPDATE exposures e SET folded = :folded + 1 FROM due
  WHERE e.rollout_id = :rollout AND e.unit_hash = due.unit_hash
), compared AS (
  SELECT * FROM due WHERE variant IN ('candidate', 'baseline')
    AND NOT coalesce(step = ANY(:deciding) AND first_at + :observation > CAST(:crossed AS timestamptz), false)
), units AS (
  SELECT {reduced}, array_agg(p.prediction_id) AS predictions
  FROM compared c JOIN predictions p ON p.rollout_id = :rollout AND p.unit_hash = c.unit_hash
    AND p.received_at >= c.first_at AND p.received_at <= c.first_at + :observation
    AND p.day BETWEEN :days_from AND :days_to AND NOT p.shadow AND NOT p.pinned
  {_LABEL if labelled else ""}
  GROUP BY 1, 2, 3, 4
), valued AS (
  SELECT units.* {"".join(f", {column}" for column in outcomes)} FROM units
)
{" UNION ALL ".join(selects)}
"""  # noqa: S608  (columns are numbered by us, values are bound)
    return statement, values


def _wrong(truth: Truth) -> str:
    """1 for a wrong answer, 0 for a right one, NULL where there is no telling; by the version that answered."""
    own = "p.status = 'ok' AND p.served_version = p.assigned_version"
    if not truth.binary:
        said = "coalesce(p.decision, p.output->>'label')"
        wrong = f"CASE WHEN {said} = label.value #>> '{{}}' THEN 0.0 ELSE 1.0 END"
        return f"CASE WHEN {own} AND label.value IS NOT NULL AND {said} IS NOT NULL THEN {wrong} END"
    said, true = _said_and_true(truth)
    return f"CASE WHEN {own} AND {said} = ({true}) THEN 0.0 WHEN {own} AND {said} <> ({true}) THEN 1.0 END"


def _said_and_true(truth: Truth) -> tuple[str, str]:
    """Of a binary problem: what the answer decided and what was true, NULL where there is no telling."""
    missing = "false" if truth.absent_is_negative else "NULL"
    true = f"CASE WHEN label.value IS NULL THEN {missing} ELSE {_TRUE_YES} END"
    return f"coalesce(p.decision = :word, ({_SCORE}) >= p.threshold)", true


def _cost(at: int, truth: Truth, *, own: bool) -> str:
    """What an answer cost, NULL where there is no telling; by the version that answered."""
    said, true = _said_and_true(truth)
    missed = f"CAST(:fn{at} AS float8)"
    if own:  # the price that the request itself names
        price = _NUMBER.format(f"(p.features -> CAST(:own{at} AS text))")
        missed = f"coalesce({price}, CAST(:fn{at} AS float8))"
    tp, fp, tn = (f"CAST(:{kind}{at} AS float8)" for kind in ("tp", "fp", "tn"))
    return f"""
  CASE WHEN p.status = 'ok' AND p.served_version = p.assigned_version THEN
    CASE WHEN {said} AND ({true}) THEN {tp} WHEN {said} AND NOT ({true}) THEN {fp}
      WHEN NOT {said} AND ({true}) THEN {missed} WHEN NOT {said} AND NOT ({true}) THEN {tn} END END"""


def _paid(at: int, prices: Prices) -> dict[str, object]:
    paid: dict[str, object] = {f"fp{at}": prices.false_positive, f"fn{at}": prices.false_negative}
    paid |= {f"tp{at}": prices.true_positive, f"tn{at}": prices.true_negative}
    return paid if prices.own is None else paid | {f"own{at}": prices.own}


def _outcome(at: int, *, yes_no: bool) -> str:
    """A customer's business metric: the newest value sent for the customer, and of each prediction its newest."""
    own = f"o.name = :outcome{at} AND o.observed_at >= first_at AND o.observed_at < first_at + :window"
    newest = "o.observed_at DESC, o.received_at DESC"
    number = _NUMBER.format("o.value")
    by_unit = f"""
      (SELECT {number} FROM outcomes o WHERE o.model = :model AND o.unit_id = units.unit_id AND {own}
       ORDER BY {newest} LIMIT 1)"""  # noqa: S608
    by_prediction = f"""
      (SELECT sum(v) FROM (
        SELECT DISTINCT ON (o.prediction_id) {number} AS v FROM outcomes o
        WHERE o.prediction_id = ANY(units.predictions) AND {own} ORDER BY o.prediction_id, {newest}) newest)"""  # noqa: S608
    total = f"coalesce({by_unit}, 0) + coalesce({by_prediction}, 0)"
    return f"CASE WHEN {total} > 0 THEN 1.0 ELSE 0.0 END AS m{at}" if yes_no else f"{total} AS m{at}"
