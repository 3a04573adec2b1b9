"""What a rollout measures and what it accepts: declared in model.yaml or in the request, fixed before the start.

Metrics by name:

error_rate     share of a customer's requests that failed or were answered by the fallback
latency        share of a customer's requests slower than `limit_ms` (model.yaml's slo.p95_ms): p95 is below the limit
               exactly while this share is below 5 %
score          mean score of a customer; as a guardrail it may move by at most `margin` in either direction
disagreement   of a shadow: share of customers whose request the two versions decided otherwise
label_error    share of a customer's labelled predictions that were wrong, by the version that answered
cost           mean cost of a customer's labelled predictions by `costs` of model.yaml, by the version that answered
recall         share of the true positives that were decided so: customers' hits over customers' positives
auc            probability that a positive is scored above a negative; of a customer the first labelled prediction
average_precision   area under precision over recall; of a customer the first labelled prediction
ratio:NAME     `numerator` over `denominator`, e.g. outcome:spent over requests: of all customers together
outcome:NAME   a business metric declared under `outcomes` in model.yaml, by the version assigned (intention to treat)
promql:NAME    any number Prometheus knows, against `at_most` / `at_least`
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import ClassVar, Literal

LEAST_INTERVAL_S = 0.2
REQUESTS = "requests"  # as a denominator: how often the customer asked in the observation
_OF_REQUESTS = ("error_rate", "latency", "score", "disagreement")
_BUILT_IN = (*_OF_REQUESTS, "label_error", "cost", "recall", "auc", "average_precision")
PAIRED = _OF_REQUESTS  # what a shadow is judged by
_OF_LABELS = frozenset({"label_error", "cost", "recall", "auc", "average_precision"})
_OF_CLASSES = frozenset({"recall", "auc", "average_precision"})  # of binary problems, and more is better
_MARGINS = {
    "error_rate": 0.01, "latency": 0.05, "score": 0.1, "disagreement": 0.05, "label_error": 0.02,
    "recall": 0.05, "auc": 0.02, "average_precision": 0.05,
}  # fmt: skip
_LONGEST_BEFORE_S = 90 * 86_400.0


class _Declared:
    __slots__ = ()
    __pydantic_config__: ClassVar[dict[str, object]] = {"extra": "forbid", "allow_inf_nan": False}


class Role(StrEnum):
    GOAL = "goal"  # must be better; worse ends the rollout, no difference too
    GUARDRAIL = "guardrail"  # must not be worse than the margin
    REPORT = "report"  # is shown and decides nothing


class Source(StrEnum):
    ERROR_RATE = "error_rate"
    LATENCY = "latency"
    SCORE = "score"
    DISAGREEMENT = "disagreement"
    LABEL_ERROR = "label_error"
    COST = "cost"
    RECALL = "recall"
    AUC = "auc"
    AVERAGE_PRECISION = "average_precision"
    RATIO = "ratio"
    OUTCOME = "outcome"
    PROMQL = "promql"


@dataclass(frozen=True, slots=True)
class OutcomeMetric(_Declared):
    """An outcome that product services report, under the same name, per customer or per prediction.

    yes_no: whether a customer ever had it; amount: the customer's sum, in its own unit. Absent means no and 0.
    `low`, `high`: the range no customer's amount can leave, if there is one: then few customers are enough to begin.
    `delay_s`: from the end of the observation until its value can be trusted.
    """

    kind: Literal["yes_no", "amount"] = "yes_no"
    higher_is_better: bool = True
    delay_s: float = 0.0
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True, slots=True)
class Metric(_Declared):
    """`margin`: the harm accepted (guardrail) or the difference that matters (goal), absolute, in the metric's unit."""

    name: str
    role: Role = Role.GUARDRAIL
    margin: float | None = None
    limit_ms: float | None = None  # latency only
    query: str | None = None  # promql only; {model}, {candidate} and {stable} are filled in
    at_most: float | None = None
    at_least: float | None = None
    numerator: str | None = None  # ratio only: outcome:NAME
    denominator: str | None = None  # ratio only: outcome:NAME or requests
    cuped_s: float | None = None  # outcome only: so long before the first request is what explains it

    @property
    def source(self) -> Source:
        """Raises ValueError for a name that `problems` refuses."""
        return Source(self.name.partition(":")[0])

    @property
    def outcome(self) -> str:
        return self.name.partition(":")[2]


@dataclass(frozen=True, slots=True)
class AnalysisPlan(_Declared):
    """`alpha`: probability that anything at all is called better or worse wrongly, however often it is looked at.

    A customer counts once: `observation_s` after the first request of the rollout, plus the delay of the metric.
    Limits: `max_contamination` and `fallback_limit` are shares of the candidate's requests that others had to answer;
    above the first no comparison counts, above the second the candidate fails.
    """

    metrics: tuple[Metric, ...] = field(default_factory=lambda: (Metric("error_rate"), Metric("latency")))
    alpha: float = 0.05
    observation_s: float = 60.0
    interval_s: float = 10.0  # between two looks
    max_contamination: float = 0.01
    fallback_limit: float = 0.1
    inconclusive_limit: int | None = None  # looks in a row after the hold that decide nothing; then it pauses
    error_limit: int = 5  # looks in a row in which something could not be measured; then it pauses
    no_traffic_s: float = 3_600.0  # nobody asks for so long: it pauses
    decide_within_s: float = 30 * 86_400.0  # a plan that takes longer is refused
    on_equal: Literal["keep", "promote"] = "keep"  # what follows from "no difference"

    @property
    def judged(self) -> tuple[Metric, ...]:
        """Metrics that decide by comparison; alpha is divided among them."""
        return tuple(m for m in self.metrics if m.role is not Role.REPORT and m.source is not Source.PROMQL)


SHADOW = AnalysisPlan(metrics=tuple(Metric(name) for name in PAIRED))  # of a shadow that names none


@dataclass(frozen=True, slots=True)
class Resolved:
    """A metric with everything model.yaml says about it. `low`, `high` None: unbounded."""

    metric: Metric
    margin: float
    higher_is_better: bool
    yes_no: bool = False
    low: float | None = None
    high: float | None = None
    delay_s: float = 0.0

    @property
    def name(self) -> str:
        return self.metric.name


@dataclass(frozen=True, slots=True)
class Prices:
    """What an answer costs by its truth, in one currency; a gain is negative.

    `own`: the feature that is the price of a missed positive, where a request has it: then a cost has no bounds.
    """

    false_positive: float
    false_negative: float
    true_positive: float
    true_negative: float
    own: str | None = None

    @property
    def bounds(self) -> tuple[float, float] | None:
        each = (self.false_positive, self.false_negative, self.true_positive, self.true_negative)
        return None if self.own is not None or min(each) == max(each) else (min(each), max(each))


@dataclass(frozen=True, slots=True)
class Declared:
    """What a version's model.yaml says that metrics depend on."""

    outcomes: Mapping[str, OutcomeMetric] = field(default_factory=dict[str, OutcomeMetric])
    p95_ms: float = 50.0
    label_delay_s: float = 0.0
    label_depends_on_decision: bool = False
    labelled: bool = True  # the problem has labels that can be right or wrong
    prices: Prices | None = None
    binary: bool = False  # there is a positive class, and a probability of it


def resolve(metric: Metric, declared: Declared) -> Resolved:
    """Raises ValueError for a metric that `problems` refuses."""
    source = metric.source
    margin = metric.margin if metric.margin is not None else _MARGINS.get(source, 0.0)
    if source is Source.OUTCOME:
        business = declared.outcomes.get(metric.outcome)
        if business is None:
            raise ValueError(f"{metric.name} is not declared")
        yes_no = business.kind == "yes_no"
        low, high = (0.0, 1.0) if yes_no else (business.low, business.high)
        return Resolved(metric, margin, business.higher_is_better, yes_no, low, high, business.delay_s)
    if source is Source.PROMQL:
        return Resolved(metric, margin, higher_is_better=False)
    if source is Source.RATIO:
        parts = [declared.outcomes[name] for name in _outcomes(metric) if name in declared.outcomes]
        if not parts:
            raise ValueError(f"{metric.name} has no declared numerator")
        return Resolved(metric, margin, parts[0].higher_is_better, delay_s=max(part.delay_s for part in parts))
    delay = declared.label_delay_s if source in _OF_LABELS else 0.0
    if source is Source.COST:
        if declared.prices is None:
            raise ValueError("costs are not declared")
        low, high = declared.prices.bounds or (None, None)
        return Resolved(metric, margin, higher_is_better=False, low=low, high=high, delay_s=delay)
    if source in _OF_CLASSES:
        return Resolved(metric, margin, higher_is_better=True, delay_s=delay)
    return Resolved(metric, margin, higher_is_better=False, low=0.0, high=1.0, delay_s=delay)


def _outcomes(metric: Metric) -> list[str]:
    """The outcomes a ratio is made of, the numerator first."""
    parts = [part for part in (metric.numerator, metric.denominator) if part and part != REQUESTS]
    return [part.partition(":")[2] for part in parts]


def limit_ms(metric: Metric, declared: Declared) -> float:
    return metric.limit_ms if metric.limit_ms is not None else declared.p95_ms


def problems(plan: AnalysisPlan, declared: Declared, *, strategy: str, prometheus: bool) -> list[str]:
    """Everything that keeps this plan from being carried out, a sentence each with the field's name."""
    found: list[str] = []
    if not plan.metrics:
        found.append("analysis.metrics: name at least one.")
    names = [metric.name for metric in plan.metrics]
    found += [f"analysis.metrics: {name} is named twice." for name in sorted({n for n in names if names.count(n) > 1})]
    for metric in plan.metrics:
        found += [f"analysis.metrics.{metric.name}: {why}" for why in wrong(metric, declared, prometheus=prometheus)]
    goals = [metric.name for metric in plan.metrics if metric.role is Role.GOAL]
    if len(goals) > 1:
        found.append(f"analysis.metrics: one goal decides, not {len(goals)} ({', '.join(goals)}).")
    if strategy == "ab_test" and not goals:
        found.append("analysis.metrics: an ab_test needs a metric with the role goal; without one use canary.")
    if strategy == "shadow":
        unpaired = [metric.name for metric in plan.metrics if metric.name not in PAIRED or metric.role is Role.GOAL]
        found += [f"analysis.metrics.{n}: a shadow is judged by guardrails {', '.join(PAIRED)}." for n in unpaired]
    elif "disagreement" in names:
        found.append("analysis.metrics.disagreement: only a shadow answers the requests that others answer.")
    if not has_alpha(plan):
        found.append("analysis.alpha: must be above 0 and below 0.5.")
    for name, low in (
        ("observation_s", 0.0),
        ("no_traffic_s", 0.0),
        ("decide_within_s", 1.0),
        ("interval_s", LEAST_INTERVAL_S),
    ):
        if not low <= getattr(plan, name) < math.inf:
            found.append(f"analysis.{name}: must be at least {low:g} s.")
    if not 0 <= plan.max_contamination <= plan.fallback_limit < 1:
        found.append("analysis: 0 <= max_contamination <= fallback_limit < 1 must hold.")
    if (plan.inconclusive_limit is not None and plan.inconclusive_limit < 1) or plan.error_limit < 1:
        found.append("analysis: inconclusive_limit and error_limit are at least 1.")
    return found


def known(declared: Declared) -> Sequence[str]:
    return (*_BUILT_IN, *(f"outcome:{name}" for name in sorted(declared.outcomes)), "ratio:NAME", "promql:NAME")


def has_alpha(plan: AnalysisPlan) -> bool:
    return 0 < plan.alpha < 0.5


def wrong(metric: Metric, declared: Declared, *, prometheus: bool) -> list[str]:
    """Why one metric cannot be used; of a metric that can, nothing."""
    head, _, tail = metric.name.partition(":")
    is_known = (head in _BUILT_IN and not tail) or (head in {"promql", "ratio"} and bool(tail))
    if not is_known and not (head == "outcome" and tail in declared.outcomes):
        return [f"unknown metric; known are {', '.join(known(declared))}; declare outcomes in model.yaml."]
    found: list[str] = []
    source = metric.source
    if metric.margin is not None and not 0 <= metric.margin < math.inf:
        found.append("the margin is finite and at least 0.")
    found += _wrong_parts(metric, declared)
    if source is Source.PROMQL:
        if not prometheus:
            found.append("no Prometheus is configured (MLCP_PROMETHEUS_URL).")
        if not metric.query or (metric.at_most is None and metric.at_least is None):
            found.append("give query and at_most or at_least.")
        return [*found, "a query is a guardrail or a report."] if metric.role is Role.GOAL else found
    if metric.query or metric.at_most is not None or metric.at_least is not None:
        found.append("query, at_most and at_least belong to promql:NAME.")
    if metric.limit_ms is not None and (source is not Source.LATENCY or not 0 < metric.limit_ms < math.inf):
        found.append("limit_ms belongs to latency and is positive.")
    if source is Source.SCORE and metric.role is Role.GOAL:
        found.append("a score is no goal: higher is not better.")
    decides = metric.role is not Role.REPORT
    if source in _OF_LABELS and decides and declared.label_depends_on_decision:
        found.append("labels depend on the decision: they give bounds, not differences. Use outcome:NAME per customer.")
    if source in _OF_LABELS and not declared.labelled:
        found.append("this model has no labels that could be right or wrong.")
    if source in _OF_CLASSES and not declared.binary:
        found.append("it needs a binary problem, with a positive class and its probability.")
    if source is Source.COST and declared.prices is None:
        found.append("model.yaml declares no costs.")
    if source in {Source.OUTCOME, Source.COST, Source.RATIO} and decides and not metric.margin:
        found.append("give a margin above 0: the difference that matters, in the metric's unit.")
    return found


def _wrong_parts(metric: Metric, declared: Declared) -> list[str]:
    """What is wrong with the parts of a ratio, and with what is to explain a metric."""
    found: list[str] = []
    source = metric.source
    if source is Source.RATIO:
        known_ones = [f"outcome:{name}" for name in sorted(declared.outcomes)]
        for name, value, accepted in (
            ("numerator", metric.numerator, known_ones),
            ("denominator", metric.denominator, [*known_ones, REQUESTS]),
        ):
            if value not in accepted:
                found.append(f"{name}: give one of {', '.join(accepted) or 'the outcomes model.yaml declares'}.")
    elif metric.numerator or metric.denominator:
        found.append("numerator and denominator belong to ratio:NAME.")
    if metric.cuped_s is not None and source is not Source.OUTCOME:
        found.append("cuped_s belongs to outcome:NAME, which customers had before, too.")
    elif metric.cuped_s is not None and not 0 < metric.cuped_s <= _LONGEST_BEFORE_S:
        found.append(f"cuped_s is above 0 and at most {_LONGEST_BEFORE_S:.0f} s.")
    return found
