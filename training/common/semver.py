"""Semantic version of a model: major = signature or meaning of the answer, minor = features, their code or their delay,
patch = a retrain. Pure."""

import hashlib
import json
import re
from dataclasses import asdict, dataclass

from control_plane.domain.model_config import ModelConfig


@dataclass(frozen=True, slots=True)
class Shape:
    """Hashes that tell what changed. `signature`: names, types and nulls in, kind and meaning of the answer out.
    `features`: ranges, categories, the code that makes features and the age of the labels it may read."""

    signature: str
    features: str


def shape(config: ModelConfig, feature_code: str) -> Shape:
    signature = {
        "problem": config.problem,
        "target": asdict(config.target) if config.target else None,  # what yes is, and which classes there are
        "decision": [config.decision.positive, config.decision.negative],
        "features": {name: [feature.type, feature.nullable] for name, feature in config.features.items()},
    }
    made = {
        "code": feature_code,
        "label": [config.label.delay_s, config.label.absence_means],
        "features": {name: [feature.range, feature.categories] for name, feature in config.features.items()},
    }
    return Shape(_hash(signature), _hash(made))


def following(newest: str | None, before: Shape | None, now: Shape) -> str:
    """The version after `newest`, which had shape `before`; the next major if that is unknown. The first is 1.0.0."""
    match = re.fullmatch(r"(\d+)\.(\d+)\.(\d+)", newest or "")
    if match is None:
        return "1.0.0"
    major, minor, patch = (int(part) for part in match.groups())
    if before is None or before.signature != now.signature:
        return f"{major + 1}.0.0"
    if before.features != now.features:
        return f"{major}.{minor + 1}.0"
    return f"{major}.{minor}.{patch + 1}"


def _hash(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]
