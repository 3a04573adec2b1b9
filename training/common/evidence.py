"""What goes into the artifact beside the model itself: evidence, example, reference profile, declaration and code."""

import json
import math
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from control_plane.domain.model_config import Feature, FeatureType, ModelConfig
from model_servers import native
from training.common import groups, profile
from training.common.data import Fingerprint
from training.common.identity import Holdout
from training.common.models import Source
from training.common.pipeline import Beside, Prepared, Trained

_EXPLAINED = 1_000  # hold-out rows the importances are averaged over


@dataclass(frozen=True, slots=True)
class Production:
    """The version that was Production when this one was trained, on the same hold-out."""

    version: str
    beside: Beside


def document(
    config: ModelConfig,
    trained: Trained,
    prepared: Prepared,
    source: Fingerprint,
    production: Production | None,
    *,
    seed: int,
    importances: Mapping[str, float],
) -> dict[str, Any]:
    """evidence.json: what the gates and the drift monitor read, and what moves the model on the whole. Values that are
    not finite are null."""
    assert config.metric is not None
    interval = trained.interval
    cost = None
    if trained.cost is not None and config.costs is not None:
        cost = {
            "model": round(trained.cost, 2),
            "trivial": round(trained.trivial_cost or 0.0, 2),
            "currency": config.costs.currency,
        }
    found = {
        "format": 1,
        "metric": {
            "name": config.metric.name,
            "value": interval.value,
            "holdout_rows": len(trained.label),
            "low": interval.low,
            "high": interval.high,
        },
        "production": _compared(production),
        "cost": cost,
        "metrics": trained.metrics,
        "threshold": trained.manifest.threshold,
        "data": {
            "validated": True,
            "leakage": prepared.leakage,
            "sha256": source.sha256,
            "holdout": asdict(prepared.holdout),
            "rows": source.rows,
            "from": source.start,
            "to": source.end,
            "source": source.source,
        },
        "candidates": [{"kind": tried.candidate.name, "metric": tried.value} for tried in trained.tried],
        "winner": trained.winner.candidate.name,
        "groups": [_group(group) for group in groups.judged(config, trained, prepared, seed=seed)],
        "importances": {
            "statistic": "mean_absolute_contribution",
            "space": "margin",
            "rows": min(len(trained.label), _EXPLAINED),
            "features": {name: float(f"{value:.6g}") for name, value in importances.items()},
        },
        "train_seconds": round(trained.seconds, 2),
        "seed": seed,
    }
    cleaned: dict[str, Any] = _finite(found)
    return cleaned


def _group(group: groups.Group) -> dict[str, Any]:
    interval = group.interval
    return {
        "column": group.column,
        "group": group.value,
        "rows": group.rows,
        "value": interval.value if interval else None,
        "low": interval.low if interval else None,
        "high": interval.high if interval else None,
        "flagged_share": group.flagged,
        "positive_share": group.positive,
    }


def _compared(production: Production | None) -> dict[str, Any] | None:
    if production is None:
        return None
    found = production.beside
    return {"version": production.version, "value": found.value, "difference": asdict(found.difference)}


def spared(folder: Path, holdout: Holdout) -> bool:
    """Whether the version in `folder`, divided without a time, kept the rows of `holdout` out of its own learning.

    Its hold-out was placed by the same columns and is at least as large. A version that does not say so did not.
    """
    try:
        found = json.loads((folder / "evidence.json").read_text(encoding="utf-8"))
        theirs = found["data"]["holdout"]
        return tuple(theirs["by"]) == holdout.by and theirs["share"] >= holdout.share
    except (OSError, ValueError, KeyError, TypeError):
        return False


def summary(found: dict[str, Any]) -> str:
    """The tag: what a person wants to see in a list. Well under MLflow's limit for tag values."""
    kept = {key: found[key] for key in ("metric", "production", "cost", "winner")}
    return json.dumps(kept | {"rows": found["data"]["rows"]}, separators=(",", ":"))


def importances(trained: Trained, prepared: Prepared) -> dict[str, float]:
    """Mean absolute contribution of each feature over hold-out rows, in margin units."""
    model = native.load(trained.folder)
    rows = prepared.parts.holdout
    some = rows[np.linspace(0, len(rows) - 1, min(len(rows), _EXPLAINED)).astype(np.int64)]
    columns = [values[some].tolist() for values in prepared.rows.arrays]
    found = model.contributions(list(zip(*columns, strict=True)))
    return dict(zip((f.name for f in model.manifest.features), np.abs(found.values).mean(axis=0).tolist(), strict=True))


def example(config: ModelConfig, prepared: Prepared) -> dict[str, Any]:
    """A valid predict body of nobody: declared examples, else medians and most frequent categories."""
    features = {
        name: _declared(feature) if feature.example is not None else _typical(feature, values)
        for (name, feature), values in zip(config.features.items(), prepared.rows.arrays, strict=True)
    }
    body: dict[str, Any] = {"features": features}
    return body | {"unit_id": "example"} if config.unit else body


def complete(source: Source, trained: Trained, prepared: Prepared, found: dict[str, Any], folder: Path) -> None:
    """Write everything that belongs to the artifact into `folder`, so that its digest can be taken."""
    config, parts = source.config, prepared.parts
    held = [values[parts.holdout] for values in prepared.rows.arrays]
    reference = profile.build(config, held, trained.prediction, trained.label, prepared.classes)
    for name, content in (
        ("evidence.json", found),
        ("profile.json", reference),
        ("example.json", example(config, prepared)),
    ):
        (folder / name).write_text(json.dumps(content, ensure_ascii=False, allow_nan=False), encoding="utf-8")
    (folder / "model.yaml").write_text(source.text, encoding="utf-8")
    if source.features_file is not None:
        shutil.copyfile(source.features_file, folder / "features.py")


def _declared(feature: Feature) -> object:
    """A whole number is read from model.yaml as 14.0, which MLflow refuses for an integer column."""
    match feature.type, feature.example:
        case FeatureType.INTEGER, bool() | str() | None as odd:
            return odd
        case FeatureType.INTEGER, float(value):
            return int(value)
        case _, value:
            return value


def _typical(feature: Feature, values: Any) -> object:
    match feature.type:
        case FeatureType.TEXT:
            return "example"
        case FeatureType.CATEGORY:
            known, counts = np.unique(values[values != None].astype(str), return_counts=True)  # noqa: E711  elementwise
            return str(known[counts.argmax()]) if len(known) else None
        case FeatureType.BOOLEAN:
            return bool(np.nanmedian(values) >= 0.5)
        case FeatureType.INTEGER:
            return int(np.nanmedian(values))
        case FeatureType.NUMBER:
            return round(float(np.nanmedian(values)), 4)


def _finite(value: Any) -> Any:
    match value:
        case dict():
            return {key: _finite(inner) for key, inner in value.items()}
        case list():
            return [_finite(inner) for inner in value]
        case float():
            return value if math.isfinite(value) else None
        case _:
            return value
