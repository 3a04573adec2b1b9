"""Whether two versions can be replayed against each other, said before anything runs: `unusable`, `mismatches`.

Apart from the replay itself, for whoever refuses a request needs none of what reads an archive.
"""

from typing import Final

from control_plane.adapters.store.tables import ModelVersionRow
from control_plane.domain.model_config import FeatureType, ModelConfig
from control_plane.services import evidence

_SEGMENTED: Final = frozenset({FeatureType.CATEGORY, FeatureType.BOOLEAN, FeatureType.INTEGER})


def unusable(row: ModelVersionRow) -> list[str]:
    """Why this version cannot be replayed."""
    parsed, _ = evidence.config(row)
    found: list[str] = []
    if row.deleted_at is not None:
        found.append(f"version {row.version} is gone from MLflow.")
    if row.digest is None:
        found.append(f"the artifact of version {row.version} has not been read yet.")
    if parsed is not None and parsed.serving.endpoint:
        found.append(f"version {row.version} runs at somebody else's endpoint; there is nothing to run here.")
    return found


def mismatches(
    baseline: ModelVersionRow, candidate: ModelVersionRow, *, sample: float, segment: str | None
) -> list[str]:
    """Why the two cannot be compared so."""
    before, after = (evidence.config(row)[0] for row in (baseline, candidate))
    wrong: list[str] = []
    if before and after and before.problem is not after.problem:
        wrong.append(f"version {baseline.version} is {before.problem}, version {candidate.version} is {after.problem}.")
    if not 0 < sample <= 1:
        wrong.append(f"sample: a share of the customers, above 0 and at most 1, not {sample:g}.")
    if segment is not None:
        wrong += _segment_problems(before, segment)
    return wrong


def _segment_problems(config: ModelConfig | None, segment: str) -> list[str]:
    feature = config.features.get(segment) if config else None
    if config is None or feature is None:
        return [f"segment: the model has no feature {segment}."]
    if feature.pii or segment in {config.unit, config.id}:
        return [f"segment: {segment} is personal."]
    if feature.type not in _SEGMENTED:
        return [f"segment: {segment} is a {feature.type}; name a category, a boolean or an integer."]
    return []
