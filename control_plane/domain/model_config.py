"""What a model declares about itself: the typed form of `model.yaml`.

Frozen dataclasses of the standard library, so that training and the control plane read the same type; pydantic's
`TypeAdapter(ModelConfig)` parses and validates it at either edge. A registered version's config never changes.
Serving, rollout and monitoring read their own section and nothing else.
"""

import re
from dataclasses import asdict, dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import ClassVar, Literal

from control_plane.domain import storable
from control_plane.domain.analysis.plan import AnalysisPlan, OutcomeMetric
from control_plane.domain.replay import gate
from control_plane.domain.replay.gate import ReplayGate

MOST_WORKERS = 256  # Dask processes of one host
MODEL_NAME = r"^[a-z][a-z0-9_-]{0,39}$"  # matched with re.fullmatch: "$" alone would accept a trailing newline


class _Declared:
    """Base of every section: a key nobody declared is an error, not a silent default."""

    __slots__ = ()
    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}


class Problem(StrEnum):
    BINARY = "binary"
    MULTICLASS = "multiclass"
    REGRESSION = "regression"
    OPAQUE = "opaque"  # a foreign model whose output has no declared meaning; no gate on a metric can pass


class FeatureType(StrEnum):
    NUMBER = "number"  # float64; NaN and infinity are refused
    INTEGER = "integer"
    BOOLEAN = "boolean"
    CATEGORY = "category"  # a string out of `categories`; others are served as unseen and counted
    TEXT = "text"


@dataclass(frozen=True, slots=True)
class Feature(_Declared):
    """One column of the predict body.

    `range` is inclusive, in the feature's own unit. A value outside it is an error in training data and a counted
    warning in production: customers do not wait for our schema.
    """

    type: FeatureType
    nullable: bool = False
    range: tuple[float, float] | None = None
    categories: tuple[str, ...] | None = None
    pii: bool = False
    description: str = ""
    example: float | bool | str | None = None


@dataclass(frozen=True, slots=True)
class Target(_Declared):
    column: str
    positive: str | int | bool | None = None  # binary: the value that means "yes"
    top: int | None = None  # multiclass: keep the `top` most frequent training classes ...
    other: str = "OTHER"  # ... and call the rest this


@dataclass(frozen=True, slots=True)
class Label(_Declared):
    """When the truth is known. `delay_s`: seconds from prediction until its label can be trusted."""

    delay_s: int = 0
    absence_means: Literal["negative", "unknown"] = "unknown"
    depends_on_decision: bool = False  # a blocked payment never shows whether it was fraud


@dataclass(frozen=True, slots=True)
class Metric(_Declared):
    """The declared metric; candidates are selected and gated by it. `minimum`: in the metric's own unit."""

    name: Literal["roc_auc", "average_precision", "accuracy", "macro_f1", "log_loss", "rmse", "mae", "r2"]
    minimum: float | None = None

    @property
    def higher_is_better(self) -> bool:
        return self.name not in {"log_loss", "rmse", "mae"}


@dataclass(frozen=True, slots=True)
class Costs(_Declared):
    """Cost of one prediction by its outcome, in whole `currency` units; a gain is negative.

    `false_negative_column`: the row's own amount replaces the constant (a missed fraud costs the payment).
    """

    false_positive: float = 1.0
    false_negative: float = 1.0
    true_positive: float = 0.0
    true_negative: float = 0.0
    currency: str = "EUR"
    false_negative_column: str | None = None


@dataclass(frozen=True, slots=True)
class Decision(_Declared):
    """`threshold` None: chosen by training from the costs. `words`: what a product service reads in the answer."""

    threshold: float | None = None
    positive: str = "yes"
    negative: str = "no"


@dataclass(frozen=True, slots=True)
class Slo(_Declared):
    p95_ms: float = 50.0
    error_rate: float = 0.01  # share of requests
    deadline_ms: int = 500  # the router answers by then, with the candidate, the fallback or an error
    availability: float = 0.999


@dataclass(frozen=True, slots=True)
class Drift(_Declared):
    """`psi`: practical threshold per feature (PSI, no unit). `bins`: quantile bins of the reference per feature."""

    psi: float = 0.1
    bins: int = 16
    performance_drop: float = 0.05  # in the metric's unit
    alpha: float = 0.01


@dataclass(frozen=True, slots=True)
class StepPlan(_Declared):
    weight: float  # percent of traffic
    hold_s: float


@dataclass(frozen=True, slots=True)
class RolloutPlan(_Declared):
    """The plan a promotion takes when the request names none.

    `analysis`: what decides the steps of a canary or ab_test; left out: error rate and latency, as guardrails.
    `failure_limit`: failed looks that are tolerated.
    """

    strategy: Literal["immediate", "blue_green", "canary", "ab_test", "shadow"] = "blue_green"
    steps: tuple[StepPlan, ...] = ()
    bake_s: float = 600.0  # the previous version stays warm this long
    analysis: AnalysisPlan | None = None
    failure_limit: int = 0


@dataclass(frozen=True, slots=True)
class Gates(_Declared):
    max_degradation: float = 0.05  # against Production on the same hold-out, in the metric's unit
    better_than_trivial: bool = True  # on cost where costs are declared, else on the metric
    validated_data: bool = True
    replay: ReplayGate | None = None  # what a replay of logged traffic against Production has to show; None: nothing


@dataclass(frozen=True, slots=True)
class Registry(_Declared):
    """`alias_policy`: a hand-moved alias is set back (revert) or becomes a promotion request (adopt)."""

    alias_policy: Literal["revert", "adopt"] = "revert"
    gates: Gates = field(default_factory=Gates)


@dataclass(frozen=True, slots=True)
class Serving(_Declared):
    explain: Literal["none", "top", "full"] = "none"  # top: reasons in words inside the answer
    batch: bool = True
    workers: int = 2
    endpoint: str | None = None  # an OIP v2 server of someone else, instead of one of ours
    rate_limit_rps: float | None = None  # predictions a second of all callers together; more are refused with 429


@dataclass(frozen=True, slots=True)
class BusinessMetric(_Declared):
    """What logged predictions add up to, in `unit`.

    sum: a feature's values. count: predictions. expected_saving: what the decision is expected to save against never
    deciding `positive`, from the model's probability and the costs. `decision`: only predictions decided so.
    """

    kind: Literal["sum", "count", "expected_saving"]
    feature: str | None = None
    decision: str | None = None
    unit: str = ""


@dataclass(frozen=True, slots=True)
class Resources(_Declared):
    """Kubernetes quantities; the local deployer reads only `memory_request`, as a hint."""

    cpu_request: str = "250m"
    memory_request: str = "256Mi"
    min_replicas: int = 2
    max_replicas: int = 6


@dataclass(frozen=True, slots=True)
class Training(_Declared):
    """How the pipeline makes a version. `rows`: rows `simulate.py` makes when no file is given."""

    candidates: tuple[Literal["logistic", "forest", "xgboost", "lightgbm", "tfidf_linear"], ...] | None = None
    test_share: float = 0.3  # of rows, or the newest rows where `time` is declared
    test_from: str | None = None  # ISO date: the hold-out starts here instead
    train_from: str | None = None  # ISO date: older rows only warm up the features
    warm_up_days: int = 0  # rows of the first days of a file only warm up the features
    rows: int = 20_000
    retrain_rows: int = 500  # labelled rows of the log a retraining takes at least
    slower_model_margin: float = 0.01  # in the metric's unit: what a slower kind must gain to win
    half_life_days: float | None = None  # a training row of this age weighs half a new one; None: all weigh the same
    unique: tuple[str, ...] = ()  # columns that together identify a row; duplicates are refused
    groups: tuple[str, ...] = ()  # columns, features or not, by whose values the hold-out is judged in parts, too
    workers: int = 0  # Dask processes of one host that XGBoost is fitted by; 0: the process of the training


@dataclass(frozen=True, slots=True)
class ModelConfig(_Declared):
    """model.yaml. `id`, `unit`, `time` name columns: the row's id, the assignment unit and the event time."""

    name: str
    problem: Problem
    features: dict[str, Feature]
    target: Target | None = None
    aliases: tuple[str, ...] = ()
    owner: str = ""
    purpose: str = ""
    materiality: Literal["low", "medium", "high"] = "medium"
    id: str | None = None
    unit: str | None = None
    time: str | None = None
    label: Label = field(default_factory=Label)
    never_features: tuple[str, ...] = ()
    metric: Metric | None = None
    costs: Costs | None = None
    decision: Decision = field(default_factory=Decision)
    slo: Slo = field(default_factory=Slo)
    drift: Drift = field(default_factory=Drift)
    rollout: RolloutPlan = field(default_factory=RolloutPlan)
    outcomes: dict[str, OutcomeMetric] = field(default_factory=dict[str, OutcomeMetric])  # what customers do later
    registry: Registry = field(default_factory=Registry)
    serving: Serving = field(default_factory=Serving)
    resources: Resources = field(default_factory=Resources)
    training: Training = field(default_factory=Training)
    business: dict[str, BusinessMetric] = field(default_factory=dict[str, BusinessMetric])


def problems(config: ModelConfig) -> list[str]:
    """Everything types cannot say that is wrong with `config`, one sentence per field; empty when it is usable."""
    found: list[str] = []
    if not re.fullmatch(MODEL_NAME, config.name):
        found.append(f"name: {config.name!r} must match {MODEL_NAME}")
    if not config.features:
        found.append("features: declare at least one")
    forbidden = {*config.never_features, *([config.target.column] if config.target else [])}
    found += [f"features.{name}: is the target or in never_features" for name in config.features if name in forbidden]
    for name, feature in config.features.items():
        if feature.range and not feature.range[0] <= feature.range[1]:
            found.append(f"features.{name}.range: {list(feature.range)} must be [low, high]")
        if feature.range and feature.type not in {FeatureType.NUMBER, FeatureType.INTEGER}:
            found.append(f"features.{name}.range: only a number or an integer has a range")
        if feature.categories is not None and feature.type is not FeatureType.CATEGORY:
            found.append(f"features.{name}.categories: only a category has categories")
    if config.problem is Problem.BINARY and config.target and config.target.positive is None:
        found.append("target.positive: a binary problem names the value that means yes")
    if config.costs is not None and config.problem in {Problem.MULTICLASS, Problem.REGRESSION}:
        found.append(f"costs: only a binary problem has costs; this one is {config.problem}")
    if config.decision.threshold is not None and not 0 <= config.decision.threshold <= 1:
        found.append("decision.threshold: must be within 0..1")
    if not 0 < config.training.test_share < 1:
        found.append("training.test_share: must be within 0..1, both excluded")
    for name in ("test_from", "train_from"):
        if (said := getattr(config.training, name)) is not None and not _is_date(said):
            found.append(f"training.{name}: {said!r} is no ISO date")
    if config.label.delay_s < 0:
        found.append("label.delay_s: must not be negative")
    if not (config.drift.psi > 0 and config.drift.bins >= 1 and 0 < config.drift.alpha < 1):
        found.append("drift: psi must be positive, bins at least 1, alpha within 0..1, both excluded")
    if config.rollout.bake_s < 0:
        found.append("rollout.bake_s: must not be negative")
    for number, step in enumerate(config.rollout.steps):
        if not (0 <= step.weight <= 100 and step.hold_s >= 0):
            found.append(f"rollout.steps.{number}: weight must be within 0..100 percent, hold_s not negative")
    if not 0 <= config.training.workers <= MOST_WORKERS:
        found.append(f"training.workers: must be within 0..{MOST_WORKERS}")
    if config.training.retrain_rows < 100:
        found.append("training.retrain_rows: at least 100, fewer rows are never learnt from")
    if config.training.half_life_days is not None and (config.training.half_life_days <= 0 or config.time is None):
        found.append("training.half_life_days: must be positive, and needs `time`")
    if config.slo.deadline_ms <= 0:
        found.append("slo.deadline_ms: must be positive")
    if config.serving.rate_limit_rps is not None and config.serving.rate_limit_rps <= 0:
        found.append("serving.rate_limit_rps: must be positive; leave it out for no limit")
    if not 1 <= config.serving.workers <= 64:
        found.append("serving.workers: must be within 1..64")
    if config.registry.gates.replay is not None:
        found += [f"registry.gates.replay.{wrong}" for wrong in gate.problems(config.registry.gates.replay)]
    return [*found, *storable.reasons(asdict(config)), *_business_problems(config)]


def _is_date(said: str) -> bool:
    try:
        datetime.fromisoformat(said)
    except ValueError:
        return False
    return True


def _business_problems(config: ModelConfig) -> list[str]:
    found: list[str] = []
    words = {config.decision.positive, config.decision.negative}
    for name, metric in config.business.items():
        where = f"business.{name}"
        if not re.fullmatch(r"[a-z][a-z0-9_]{0,39}", name):
            found.append(f"{where}: a name has small letters, digits and underscores, at most 40")
        feature = config.features.get(metric.feature or "")
        numeric = feature is not None and feature.type in {FeatureType.NUMBER, FeatureType.INTEGER}
        if metric.kind == "sum" and not numeric:
            found.append(f"{where}.feature: a sum names a feature that is a number")
        if metric.kind != "sum" and metric.feature is not None:
            found.append(f"{where}.feature: only a sum has a feature")
        if metric.kind == "expected_saving" and (config.costs is None or config.problem is not Problem.BINARY):
            found.append(f"{where}: expected_saving needs a binary problem and its costs")
        if metric.decision is not None and metric.decision not in words:
            found.append(f"{where}.decision: must be one of {', '.join(sorted(words))}")
    return found
