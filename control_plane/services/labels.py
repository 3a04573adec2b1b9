"""What truth says, and what is expected before it is there: target drift, realised and estimated performance."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final, cast

from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.adapters.store import answered
from control_plane.adapters.store.drift import Reference
from control_plane.adapters.store.tables import ModelVersionRow
from control_plane.domain import quality, truth
from control_plane.domain.business import number
from control_plane.domain.drift import performance
from control_plane.domain.drift.decide import Policy
from control_plane.domain.drift.estimate import Estimate
from control_plane.domain.drift.monitor import Kind, Reading
from control_plane.domain.drift.performance import METRIC, Performance, Usual
from control_plane.domain.model_config import ModelConfig, Problem

_ROWS: Final = 10_000  # newest answers read for it
_LABELLED: Final = timedelta(days=7)
_ESTIMATED: Final = timedelta(hours=24)
VALID: Final = (
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
        target, quiet = (performance.unknown(kind, why) for kind in (Kind.TARGET, Kind.PERFORMANCE))
        return Labels(target, quiet, {"why": why})
    matured = truth.matured(config.label, now)
    window = quality.window(config.label)
    judged = await answered.newest(
        session, version.model, version.version, since=matured - _LABELLED, until=matured, limit=_ROWS, window=window
    )
    fresh = await answered.newest(
        session, version.model, version.version, since=now - _ESTIMATED, until=now + _ESTIMATED, limit=_ROWS
    )
    pairs = performance.known(config, judged)
    target = performance.read_target(reference.profile, policy, [real for _, real in pairs])
    found = performance.judge(config, _usual(version, METRIC[config.problem]), policy, pairs, fresh)
    return Labels(target, found.reading, _document(found, config, policy))


def _usual(version: ModelVersionRow, metric: str) -> Usual:
    """As training measured it on the hold-out; its interval is of the declared metric alone."""
    declared = cast("Mapping[str, Any]", version.evidence.get("metric") or {})
    if declared.get("name") == metric:
        return Usual(number(declared.get("value")), number(declared.get("high" if metric == "mae" else "low")))
    metrics = cast("Mapping[str, Any]", version.evidence.get("metrics") or {})
    return Usual(number(metrics.get(metric)))


def _document(found: Performance, config: ModelConfig, policy: Policy) -> Mapping[str, Any]:
    told = {"realised": found.realised, "estimated": found.estimated, "expected_cost": found.cost}
    members: dict[str, Any] = {name: value and _shown(value, policy) for name, value in told.items()}
    if found.cost is not None and config.costs is not None:
        members["expected_cost"] |= {"per": "prediction", "currency": config.costs.currency}
    why = found.reading.why
    return {"metric": found.metric, "reference": found.usual, **members, "validity": VALID, "why": why}


def _shown(found: Estimate, policy: Policy) -> dict[str, Any]:
    low, high = performance.shown(found, policy)
    return {"value": found.value, "low": low, "high": high, "rows": found.rows}
