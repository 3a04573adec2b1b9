"""The SQL that reduces a batch of closing units to sums per arm: a statement made for one group of metrics.

Columns are numbered by us: m0 is the first metric's value of a customer, x0 its second number; values are bound.
"""

from dataclasses import dataclass
from datetime import timedelta

from control_plane.adapters.store.truth import measured, number
from control_plane.domain.analysis.plan import Prices, Source
from control_plane.domain.experiments import ranking

UNITS, FALLBACKS = "units", "fallbacks"


@dataclass(frozen=True, slots=True)
class Measure:
    """How a metric is read from one customer's records."""

    name: str
    source: Source
    limit_us: int = 0
    outcome: str = ""
    yes_no: bool = False
    prices: Prices | None = None
    below: str | None = None  # of a ratio the denominator: an outcome; None: requests
    before: timedelta | None = None  # of an outcome: the time before the first request that is to explain it

    @property
    def ranks(self) -> bool:
        return self.source in {Source.AUC, Source.AVERAGE_PRECISION}

    @property
    def paired(self) -> bool:
        """Whether a customer has a second number."""
        return self.source in {Source.RATIO, Source.RECALL} or self.before is not None


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


_BAD = "(p.status IN ('error', 'timeout', 'shed') OR p.fallback_reason IS NOT NULL)"
_SCORE = number("p.output->'probability'")
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


def statement(group: Group, truth: Truth) -> tuple[str, dict[str, object]]:
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
                mean = f"avg({_SCORE}) FILTER (WHERE {own})"  # NULL without a score, which greatest() would make 0
                per_request.append(
                    f"(CASE WHEN {mean} IS NOT NULL THEN least(greatest({mean}, 0), 1) END)::float8 AS m{at}"
                )
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
            case Source.RECALL:
                labelled = True
                hits, positives = _recall(truth)
                per_request += [f"sum({hits})::float8 AS m{at}", f"sum({positives})::float8 AS x{at}"]
                values |= {"positive": truth.positive, "word": truth.word}
            case Source.AUC | Source.AVERAGE_PRECISION:
                labelled = True
                per_request.append(f"{_cell(truth)} AS m{at}")
                values |= {"positive": truth.positive, "word": truth.word} if truth.binary else {}
            case Source.RATIO:
                values[f"outcome{at}"] = measure.outcome
                outcomes.append(f"{_outcome(f'outcome{at}')} AS m{at}")
                if measure.below is None:
                    outcomes.append(f"cardinality(units.predictions)::float8 AS x{at}")
                else:
                    values[f"below{at}"] = measure.below
                    outcomes.append(f"{_outcome(f'below{at}')} AS x{at}")
            case Source.OUTCOME:
                values[f"outcome{at}"] = measure.outcome
                outcomes.append(f"{_of_kind(_outcome(f'outcome{at}'), yes_no=measure.yes_no)} AS m{at}")
                if measure.before is not None:
                    values[f"before{at}"] = measure.before
                    outcomes.append(f"{_of_kind(_before(at), yes_no=measure.yes_no)} AS x{at}")
            case Source.PROMQL | Source.DISAGREEMENT:
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
    ranked = {f"m{at}" for at, measure in enumerate(group.measures) if measure.ranks}
    paired = {f"m{at}" for at, measure in enumerate(group.measures) if measure.paired}
    selects = [
        f"SELECT '{column}' AS metric, step, variant, count({column}) AS n, avg({column}) AS mean, "  # noqa: S608
        f"var_pop({column}) * count({column}) AS m2, "
        f"count(*) FILTER (WHERE {column} <> {usual.get(column, '0')}) AS nonzero, "
        f"{_beside(column, paired=column in paired)}, CAST(NULL AS jsonb) AS cells FROM valued GROUP BY 2, 3"
        for column in columns
        if column not in ranked
    ]
    selects += [_ranks(column) for column in sorted(ranked)]
    if group.number == 0:
        nothing = _beside("", paired=False)
        selects.append(
            f"SELECT '{UNITS}' AS metric, step, variant, count(*) AS n, 1.0 AS mean, 0.0 AS m2, "  # noqa: S608
            f"count(*) AS nonzero, {nothing}, CAST(NULL AS jsonb) AS cells FROM due GROUP BY 2, 3"
        )
    made = f"""
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
    return made, values


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
        price = measured(f"(p.features -> CAST(:own{at} AS text))")
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


def _recall(truth: Truth) -> tuple[str, str]:
    """Of one answer: whether a positive was decided so, and whether it was one; NULL where there is no telling."""
    if not truth.binary:
        raise ValueError("recall needs a binary problem")
    said, true = _said_and_true(truth)
    known = f"p.status = 'ok' AND p.served_version = p.assigned_version AND {said} IS NOT NULL"
    hit = f"CASE WHEN {known} AND ({true}) THEN CASE WHEN {said} THEN 1.0 ELSE 0.0 END WHEN {known} AND NOT ({true}) "
    return f"{hit} THEN 0.0 END", f"CASE WHEN {known} AND ({true}) THEN 1.0 WHEN {known} AND NOT ({true}) THEN 0.0 END"


def _cell(truth: Truth) -> str:
    """`ranking.cell` of a customer's first answer by the version assigned whose truth is known."""
    if not truth.binary:
        raise ValueError("ranking needs a binary problem")
    true = _said_and_true(truth)[1]
    inside = f"least(greatest(({_SCORE}), 1e-9), 1 - 1e-9)"
    step = f"floor((ln({inside} / (1 - {inside})) - ({ranking.LOWEST})) / {ranking.STEP})"
    cell = f"least(greatest({step}, 0), {ranking.BINS - 1}) + CASE WHEN ({true}) THEN {ranking.BINS} ELSE 0 END"
    known = (
        f"p.status = 'ok' AND p.served_version = p.assigned_version AND ({_SCORE}) IS NOT NULL AND ({true}) IS NOT NULL"
    )
    return f"(array_agg({cell} ORDER BY p.received_at, p.prediction_id) FILTER (WHERE {known}))[1]"


def _ranks(column: str) -> str:
    """Units by cell of score and class."""
    return f"""
SELECT '{column}' AS metric, step, variant, sum(units)::bigint AS n, 0.0 AS mean, 0.0 AS m2,
  sum(units)::bigint AS nonzero, {_beside("", paired=False)}, jsonb_object_agg(cell, units) AS cells
FROM (SELECT step, variant, {column}::int AS cell, count(*) AS units FROM valued
      WHERE {column} IS NOT NULL GROUP BY 1, 2, 3) counted GROUP BY 2, 3"""  # noqa: S608


def _beside(column: str, *, paired: bool) -> str:
    """The second number's mean, its squared deviations and the products of deviations."""
    if not paired:
        return ", ".join(f"CAST(NULL AS float8) AS {name}" for name in ("x_mean", "x_m2", "c"))
    x = f"x{column[1:]}"
    return f"avg({x}) AS x_mean, var_pop({x}) * count({x}) AS x_m2, regr_sxy({column}, {x}) AS c"


def _outcome(name: str) -> str:
    """A customer's business metric: the newest value sent for the customer, and of each prediction its newest."""
    own = f"o.name = :{name} AND o.observed_at >= first_at AND o.observed_at < first_at + :window"
    return _total(own, "o.prediction_id = ANY(units.predictions)")


def _before(at: int) -> str:
    """The same, before the first request of the rollout."""
    begin = f"first_at - CAST(:before{at} AS interval)"
    own = f"o.name = :outcome{at} AND o.observed_at >= {begin} AND o.observed_at < first_at"
    of_unit = f"""o.prediction_id IN (
          SELECT b.prediction_id FROM predictions b WHERE b.model = :model AND b.unit_id = units.unit_id
            AND b.day BETWEEN :before_from{at} AND :days_to
            AND b.received_at >= {begin} AND b.received_at < first_at)"""  # noqa: S608
    return _total(own, of_unit)


def _total(own: str, of_predictions: str) -> str:
    newest = "o.observed_at DESC, o.received_at DESC"
    said = measured("o.value")
    by_unit = f"""
      (SELECT {said} FROM outcomes o WHERE o.model = :model AND o.unit_id = units.unit_id AND {own}
       ORDER BY {newest} LIMIT 1)"""  # noqa: S608
    by_prediction = f"""
      (SELECT sum(v) FROM (
        SELECT DISTINCT ON (o.prediction_id) {said} AS v FROM outcomes o
        WHERE {of_predictions} AND {own} ORDER BY o.prediction_id, {newest}) newest)"""  # noqa: S608
    return f"coalesce({by_unit}, 0) + coalesce({by_prediction}, 0)"


def _of_kind(total: str, *, yes_no: bool) -> str:
    return f"CASE WHEN {total} > 0 THEN 1.0 ELSE 0.0 END" if yes_no else total
