"""How right a version is now against its own hold-out: by the truths that have arrived, and before any has. Pure.

The metric is one that both can tell: AUC of a binary problem, accuracy of a multiclass one, mean absolute error of a
regression, of which nothing is known without truth.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from control_plane.domain import truth
from control_plane.domain.drift import decide, estimate, fold, monitor
from control_plane.domain.drift.decide import Policy
from control_plane.domain.drift.estimate import Estimate
from control_plane.domain.drift.monitor import Kind, Reading
from control_plane.domain.drift.profiles import HUGE, Profile
from control_plane.domain.model_config import ModelConfig, Problem
from control_plane.domain.rollouts import Verdict
from control_plane.domain.truth import Truth

LEAST: Final = 100  # answers below which nothing is said
METRIC: Final = {Problem.BINARY: "roc_auc", Problem.MULTICLASS: "accuracy", Problem.REGRESSION: "mae"}
_SHOWN: Final = 0.05  # error probability of the intervals people read


@dataclass(frozen=True, slots=True)
class Answer:
    """`score`: probability, else value. `word`: the decision's, else the label. `reported`: the newest outcome."""

    score: float | None
    word: str | None
    above: bool | None  # probability >= the threshold in force; None without one
    threshold: float | None
    reported: object = None


@dataclass(frozen=True, slots=True)
class Usual:
    """The metric on the version's own hold-out; `near`: the worse end of its interval, where that was computed."""

    value: float | None
    near: float | None = None


@dataclass(frozen=True, slots=True)
class Performance:
    """`realised`: of answers whose truth is known. `estimated`: of the newest ones, without it. `cost`: expected, of
    one of those. None: too few answers, or the problem does not define it."""

    metric: str
    usual: float | None
    realised: Estimate | None
    estimated: Estimate | None
    cost: Estimate | None
    reading: Reading


Known = tuple[Answer, Truth]


def known(config: ModelConfig, answers: Sequence[Answer]) -> list[Known]:
    """Matured answers with their truth; those without are left out."""
    found: list[Known] = []
    for answer in answers:
        said = truth.decided(config, answer.word, answer.above)
        real = truth.known(config, answer.reported, said=said)
        if real is not None:
            found.append((answer, real))
    return found


def read_target(reference: Profile, policy: Policy, truths: Sequence[Truth]) -> Reading:
    """Whether the labels that have arrived are spread as the reference's were."""
    if reference.label is None or not truths:
        return monitor.read_target(None, len(truths))
    current = fold.fold_feature(reference.label, truths)
    lasting = monitor.one_look(policy, policy.alpha * monitor.ALPHAS[Kind.TARGET])
    return monitor.read_target(decide.judge("label", reference.label, current, lasting, tests=1), len(truths))


def judge(
    config: ModelConfig, usual: Usual, policy: Policy, pairs: Sequence[Known], fresh: Sequence[Answer]
) -> Performance:
    """`pairs`: matured answers with their truth. `fresh`: the newest answers. ValueError for an opaque problem."""
    if config.problem is Problem.OPAQUE:
        raise ValueError("an opaque problem has no metric")
    metric = METRIC[config.problem]
    by_truth, by_promise = realised(config.problem, pairs), estimated(config.problem, fresh)
    reading = _read(config, metric, usual, policy, by_truth, by_promise)
    return Performance(metric, usual.value, by_truth, by_promise, expected_cost(config, fresh), reading)


def unknown(kind: Kind, why: str) -> Reading:
    return Reading(kind, Verdict.INCONCLUSIVE, False, None, why)


def shown(found: Estimate, policy: Policy) -> tuple[float, float]:
    """The interval people read: 95 %, or narrower where the model's alpha is larger."""
    return found.interval(max(policy.alpha, _SHOWN))


def realised(problem: Problem, pairs: Sequence[Known]) -> Estimate | None:
    if len(pairs) < LEAST:
        return None
    match problem:
        case Problem.BINARY:
            scored = [(p, real) for answer, real in pairs for p in _probabilities([answer])]
            if len(scored) < LEAST:
                return None
            return estimate.realised_auc([p for p, _ in scored], [bool(real) for _, real in scored])
        case Problem.MULTICLASS:
            return estimate.realised_share([answer.word == real for answer, real in pairs])
        case Problem.REGRESSION | Problem.OPAQUE:
            real = [(a.score, y) for a, y in pairs if a.score is not None and isinstance(y, float)]
            far = [abs(score - y) for score, y in real if abs(score - y) <= HUGE]  # squares of larger ones are infinite
            return estimate.realised_mean(far) if len(far) >= LEAST else None


def estimated(problem: Problem, fresh: Sequence[Answer]) -> Estimate | None:
    scores = _probabilities(fresh)
    if len(scores) < LEAST:
        return None
    match problem:
        case Problem.BINARY:
            return estimate.binary(scores, threshold=0.5).auc
        case Problem.MULTICLASS:
            return estimate.top_class(scores)
        case Problem.REGRESSION | Problem.OPAQUE:
            return None


def expected_cost(config: ModelConfig, fresh: Sequence[Answer]) -> Estimate | None:
    """Of one prediction, at the threshold most of them were decided with."""
    scores = _probabilities(fresh)
    thresholds = [answer.threshold for answer in fresh if answer.threshold is not None]
    if config.problem is not Problem.BINARY or config.costs is None or len(scores) < LEAST or not thresholds:
        return None
    common = max(set(thresholds), key=thresholds.count)
    total = estimate.binary(scores, threshold=common, costs=config.costs).cost
    return None if total is None else Estimate(total.value / total.rows, total.sd / total.rows, total.rows)


def _read(
    config: ModelConfig,
    metric: str,
    usual: Usual,
    policy: Policy,
    by_truth: Estimate | None,
    by_promise: Estimate | None,
) -> Reading:
    """The first of both that is an alarm; the truth, if both are calm."""
    if usual.value is None:
        return unknown(Kind.PERFORMANCE, f"Training reported no {metric} to compare with.")
    alpha = monitor.one_look(policy, policy.alpha * monitor.ALPHAS[Kind.PERFORMANCE]).alpha
    drop = config.drift.performance_drop
    read = [
        monitor.read_performance(metric, said, usual.value, usual.near, drop, alpha, how=how)
        for said, how in ((by_truth, "realised"), (by_promise, "estimated"))
        if said is not None
    ]
    if not read:
        return unknown(Kind.PERFORMANCE, f"Fewer than {LEAST} answers with a probability or a known truth.")
    return next((reading for reading in read if reading.alarm), read[0])


def _probabilities(answers: Sequence[Answer]) -> list[float]:
    return [answer.score for answer in answers if answer.score is not None and 0 <= answer.score <= 1]
