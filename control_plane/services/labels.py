"""What truth says, and what is expected before it is there: target drift, realised and estimated performance."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, cast

from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.adapters.store import answered
from control_plane.adapters.store.answered import Answer
from control_plane.adapters.store.drift import Reference
from control_plane.adapters.store.tables import ModelVersionRow
from control_plane.domain import performance
from control_plane.domain.drift import decide, estimate, fold, monitor
from control_plane.domain.drift.decide import Policy
from control_plane.domain.drift.estimate import Estimate
from control_plane.domain.drift.monitor import Kind, Reading
from control_plane.domain.model_config import ModelConfig, Problem
from control_plane.domain.rollouts import Verdict

_ROWS = 10_000  # newest answers read for it
_LABELLED = timedelta(days=7)
_ESTIMATED = timedelta(hours=24)
_LEAST = 100  # answers below which nothing is said of performance
_METRIC = {Problem.BINARY: "roc_auc", Problem.MULTICLASS: "accuracy", Problem.REGRESSION: "mae"}
VALID = (
    "The estimate holds while only the customers change (covariate shift). If what makes them say yes changes, it does "
    "not notice; realised performance does. It compares this version with its own past, never two versions."
)


@dataclass(frozen=True, slots=True)
class Labels:
    """`document`: realised and estimated performance beside the reference, for the view."""

    target: Reading
    performance: Reading
    document: Mapping[str, Any]


async def look(
    session: AsyncSession,
    version: ModelVersionRow,
    reference: Reference,
    config: ModelConfig | None,
    policy: Policy,
    *,
    now: datetime,
) -> Labels:
    """Labels count once they can be trusted (`label.delay_s`)."""
    if config is None or config.problem is Problem.OPAQUE:
        why = "The model declares no problem, so its answers cannot be held against a truth."
        unknown = Reading(Kind.TARGET, Verdict.INCONCLUSIVE, False, None, why)
        return Labels(unknown, replace(unknown, kind=Kind.PERFORMANCE), {"why": why})
    matured = now - timedelta(seconds=config.label.delay_s)
    rows = await answered.newest(
        session, version.model, version.version, since=matured - _LABELLED, until=matured, limit=_ROWS
    )
    fresh = await answered.newest(
        session, version.model, version.version, since=now - _ESTIMATED, until=now + _ESTIMATED, limit=_ROWS
    )
    pairs = _known(config, rows)
    target = _target(reference, config, policy, [truth for _, truth in pairs])
    found, document = _performance(version, config, policy, pairs, fresh)
    return Labels(target, found, document)


def _known(config: ModelConfig, rows: Sequence[Answer]) -> list[tuple[Answer, float | bool | str]]:
    """Answers with their truth in the terms of the problem; what cannot be told is left out, never guessed."""
    negative = config.label.absence_means == "negative"
    positive = config.target.positive if config.target else None
    found: list[tuple[Answer, float | bool | str]] = []
    for row in rows:
        truth = row.truth
        if config.problem is Problem.BINARY:
            yes = (False if negative else None) if truth is None else performance.means_yes(truth, positive)
            if yes is not None:
                found.append((row, yes))
        elif truth is not None:
            if config.problem is Problem.MULTICLASS:
                found.append((row, str(truth)))
            elif isinstance(truth, int | float) and not isinstance(truth, bool):
                found.append((row, float(truth)))
    return found


def _target(reference: Reference, config: ModelConfig, policy: Policy, truths: list[float | bool | str]) -> Reading:
    grid = reference.profile.label
    if grid is None or not truths:
        return monitor.read_target(None, len(truths))
    current = fold.fold_feature(grid, truths)
    alpha = policy.alpha * monitor.ALPHAS[Kind.TARGET]
    lasting = monitor.one_look(policy, alpha)
    return monitor.read_target(decide.judge("label", grid, current, lasting, tests=1), len(truths))


def _performance(
    version: ModelVersionRow,
    config: ModelConfig,
    policy: Policy,
    pairs: list[tuple[Answer, float | bool | str]],
    fresh: Sequence[Answer],
) -> tuple[Reading, Mapping[str, Any]]:
    metric = _METRIC[config.problem]
    usual, low = _reference(version, metric)
    realised, estimated = _realised(config.problem, pairs), _estimated(config, fresh)
    alpha = policy.alpha * monitor.ALPHAS[Kind.PERFORMANCE] / (24 * 90)
    document = {
        "metric": metric,
        "reference": usual,
        "realised": _shown(realised, policy.alpha),
        "estimated": _shown(estimated, policy.alpha),
        "expected_cost": _cost(config, fresh),
        "validity": VALID,
    }
    drop = config.drift.performance_drop
    if usual is None:
        why = f"Training reported no {metric} to compare with."
        return Reading(Kind.PERFORMANCE, Verdict.INCONCLUSIVE, False, None, why), document | {"why": why}
    read = [
        monitor.read_performance(metric, said, usual, low, drop, alpha, how=how)
        for said, how in ((realised, "realised"), (estimated, "estimated"))
        if said is not None
    ]
    if not read:
        why = f"Fewer than {_LEAST} answers with a probability or a known truth."
        return Reading(Kind.PERFORMANCE, Verdict.INCONCLUSIVE, False, None, why), document | {"why": why}
    worst = next((reading for reading in read if reading.alarm), read[0])  # truth first, if both are calm
    return worst, document | {"why": worst.why}


def _realised(problem: Problem, pairs: list[tuple[Answer, float | bool | str]]) -> Estimate | None:
    if len(pairs) < _LEAST:
        return None
    match problem:
        case Problem.BINARY:
            scored = [(a.score, truth) for a, truth in pairs if a.score is not None and 0 <= a.score <= 1]
            if len(scored) < _LEAST:
                return None
            return estimate.realised_auc([p for p, _ in scored], [bool(truth) for _, truth in scored])
        case Problem.MULTICLASS:
            return estimate.realised_share([answer.said == truth for answer, truth in pairs])
        case Problem.REGRESSION | Problem.OPAQUE:
            far = [abs(a.score - truth) for a, truth in pairs if a.score is not None and isinstance(truth, float)]
            return estimate.realised_mean(far) if len(far) >= _LEAST else None


def _estimated(config: ModelConfig, fresh: Sequence[Answer]) -> Estimate | None:
    scores = _scores(fresh)
    if len(scores) < _LEAST:
        return None
    match config.problem:
        case Problem.BINARY:
            return estimate.binary(scores, threshold=0.5).auc
        case Problem.MULTICLASS:
            return estimate.top_class(scores)
        case Problem.REGRESSION | Problem.OPAQUE:
            return None


def _cost(config: ModelConfig, fresh: Sequence[Answer]) -> Mapping[str, Any] | None:
    """Of the fresh answers at the threshold most of them were decided with."""
    scores = _scores(fresh)
    thresholds = [a.threshold for a in fresh if a.threshold is not None]
    if config.problem is not Problem.BINARY or config.costs is None or len(scores) < _LEAST or not thresholds:
        return None
    common = max(set(thresholds), key=thresholds.count)
    cost = estimate.binary(scores, threshold=common, costs=config.costs).cost
    if cost is None:
        return None
    low, high = cost.interval(0.05)
    per = {name: value / cost.rows for name, value in (("value", cost.value), ("low", low), ("high", high))}
    return per | {"per": "prediction", "currency": config.costs.currency, "rows": cost.rows}


def _scores(fresh: Sequence[Answer]) -> list[float]:
    return [a.score for a in fresh if a.score is not None and 0 <= a.score <= 1]


def _reference(version: ModelVersionRow, metric: str) -> tuple[float | None, float | None]:
    """The metric on the version's own hold-out, and the near end of its interval where that was computed."""
    declared = cast("Mapping[str, Any]", version.evidence.get("metric") or {})
    if declared.get("name") == metric:
        near = declared.get("high" if metric == "mae" else "low")
        return _float(declared.get("value")), _float(near)
    metrics = cast("Mapping[str, Any]", version.evidence.get("metrics") or {})
    return _float(metrics.get(metric)), None


def _shown(found: Estimate | None, alpha: float) -> Mapping[str, Any] | None:
    if found is None:
        return None
    low, high = found.interval(max(alpha, 0.05))
    return {"value": found.value, "low": low, "high": high, "rows": found.rows}


def _float(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None
