"""What a version's model.yaml and evidence.json say to the gates. The parse boundary: nothing here trusts a shape."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

from pydantic import TypeAdapter, ValidationError

from control_plane.adapters.store.tables import ModelVersionRow
from control_plane.domain import model_config
from control_plane.domain.model_config import ModelConfig
from control_plane.domain.stages import Candidate, Gates, Incumbent, Stage

_CONFIG = TypeAdapter(ModelConfig)
_CHANCE = {"roc_auc": 0.5, "r2": 0.0}  # what any constant answer scores, by definition
_BOUNDED = frozenset({"roc_auc", "average_precision", "accuracy", "macro_f1", "r2"})  # 1 is perfect


@dataclass(frozen=True, slots=True)
class Defaults:
    """The platform's own gates, for what a model.yaml leaves open. `minimum`: of metrics whose best value is 1."""

    minimum: float = 0.85
    max_degradation: float = 0.05


def config(row: ModelVersionRow) -> tuple[ModelConfig | None, tuple[str, ...]]:
    """The version's typed model.yaml and everything that is wrong with it; None when it cannot be read at all."""
    try:
        parsed = _CONFIG.validate_python(row.config)
    except ValidationError as exc:
        return None, tuple(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in exc.errors())
    return parsed, tuple(model_config.problems(parsed))


def importances(row: ModelVersionRow) -> dict[str, float]:
    """Mean absolute contributions as training measured them, largest first; empty where it did not."""
    named = _part(_part(row.evidence, "importances"), "features")
    known = {name: value for name, given in named.items() if (value := _number(given)) is not None and value >= 0}
    return dict(sorted(known.items(), key=lambda item: -item[1]))


def candidate(row: ModelVersionRow) -> Candidate:
    parsed, problems = config(row)
    metric = parsed.metric.name if parsed and parsed.metric else None
    found = _part(row.evidence, "metric")
    measured = found if found.get("name") == metric else {}  # another metric's number would be compared as ours
    cost, data = _part(row.evidence, "cost"), _part(row.evidence, "data")
    validated = data.get("validated")
    return Candidate(
        version=row.version,
        stage=Stage(row.stage),
        digest=row.digest,
        deleted=row.deleted_at is not None,
        config_problems=(*problems, *_noted(row)),
        needs=_required(parsed) if parsed else None,
        metric=metric,
        value=_number(measured.get("value")),
        low=_number(measured.get("low")),
        high=_number(measured.get("high")),
        cost=_number(cost.get("model")),
        trivial_cost=_number(cost.get("trivial")),
        trivial_value=_trivial(row.evidence, metric),
        validated=validated if isinstance(validated, bool) else None,
    )


def incumbent(production: ModelVersionRow, challenger: ModelVersionRow) -> Incumbent:
    """Production with the one comparison on the same hold-out that exists, wherever it was made.

    Either version's training evaluated the other on its own hold-out; or the rows of both hold-outs are
    the same.
    """
    parsed, _ = config(production)
    pair = (
        _evaluated(challenger, production, swapped=False)
        or _evaluated(production, challenger, swapped=True)
        or _same_rows(production, challenger)
        or (None, None)
    )
    sends = _required(parsed) if parsed else None
    return Incumbent(production.version, sends, candidate_value=pair[0], value=pair[1])


def gates(row: ModelVersionRow, defaults: Defaults) -> Gates:
    parsed, _ = config(row)
    if parsed is None:
        return Gates(None, defaults.max_degradation)
    declared, metric = parsed.registry.gates, parsed.metric
    said = _part(_part(row.config, "registry"), "gates")
    return Gates(
        minimum=_minimum(parsed, defaults),
        max_degradation=declared.max_degradation if "max_degradation" in said else defaults.max_degradation,
        higher_is_better=metric.higher_is_better if metric else True,
        better_than_trivial=declared.better_than_trivial,
        costs_declared=parsed.costs is not None,
        validated_data=declared.validated_data,
    )


def headline(row: ModelVersionRow) -> tuple[str | None, float | None]:
    """The metric's name and value as training reported them, for lists."""
    found = _part(row.evidence, "metric")
    name = found.get("name")
    return (name if isinstance(name, str) else None), _number(found.get("value"))


def _minimum(parsed: ModelConfig, defaults: Defaults) -> float | None:
    if parsed.metric is None:
        return None
    if parsed.metric.minimum is not None:
        return parsed.metric.minimum
    return defaults.minimum if parsed.metric.name in _BOUNDED else None


def _evaluated(
    by: ModelVersionRow, other: ModelVersionRow, *, swapped: bool
) -> tuple[float | None, float | None] | None:
    """(challenger, production) from the evidence of `by`, if its training evaluated `other` too."""
    theirs, ours = _part(by.evidence, "production"), _part(by.evidence, "metric")
    values = _number(ours.get("value")), _number(theirs.get("value"))
    if str(theirs.get("version")) != other.version or None in values:
        return None
    return (values[1], values[0]) if swapped else values


def _same_rows(production: ModelVersionRow, challenger: ModelVersionRow) -> tuple[float | None, float | None] | None:
    ours, theirs = _part(challenger.evidence, "metric"), _part(production.evidence, "metric")
    prints = [_judged_on(row) for row in (production, challenger)]
    same = prints[0] is not None and prints[0] == prints[1]
    same = same and all(ours.get(key) == theirs.get(key) for key in ("name", "holdout_rows"))
    values = _number(ours.get("value")), _number(theirs.get("value"))
    return values if same and None not in values else None


def _judged_on(row: ModelVersionRow) -> tuple[object, ...] | None:
    """What tells hold-outs apart: the hash of their rows; before there was one, everything that drew them."""
    data = _part(row.evidence, "data")
    judged = _part(data, "holdout").get("sha256")
    if judged is not None:
        return ("rows", judged)
    parsed, _ = config(row)
    drawn = data.get("sha256"), row.evidence.get("seed")
    if parsed is None or None in drawn:
        return None
    return ("drawn", *drawn, parsed.training.test_share, parsed.training.test_from, parsed.training.train_from)


def _noted(row: ModelVersionRow) -> tuple[str, ...]:
    """What discovery could not make out of the artifact: no signature, a model.yaml that cannot be used, ..."""
    found = row.evidence.get("config_problems")
    return tuple(map(str, cast("list[object]", found))) if isinstance(found, list) else ()


def _required(parsed: ModelConfig) -> dict[str, str]:
    return {name: feature.type.value for name, feature in parsed.features.items() if not feature.nullable}


def _trivial(evidence: Mapping[str, Any], metric: str | None) -> float | None:
    measured = _number(_part(evidence, "metrics").get(f"trivial_{metric}"))
    return measured if measured is not None else _CHANCE.get(metric or "")


def _part(mapping: Mapping[str, Any], key: str) -> dict[str, Any]:
    found = mapping.get(key)
    return cast("dict[str, Any]", found) if isinstance(found, dict) else {}


def _number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)
