"""A reference for a version that brought none: the first answers it gave."""

from datetime import datetime
from typing import Any, cast

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.adapters.store import drift as store
from control_plane.adapters.store.tables import ModelVersionRow, PredictionRow
from control_plane.domain.drift import document, fold
from control_plane.domain.model_config import FeatureType, ModelConfig
from control_plane.services import evidence

ROWS = 2_000  # of the first traffic; fewer make an unsure reference


async def from_traffic(session: AsyncSession, version: ModelVersionRow, *, now: datetime) -> bool:
    """Make it once the version has answered `ROWS` customers; whether it was made. What came before is not counted."""
    config, _ = evidence.config(version)
    if config is None or not config.features:
        return False
    row = PredictionRow
    query = (
        select(row.features, row.output)
        .where(row.model == version.model, row.served_version == version.version, row.status == "ok", ~row.shadow)
        .where(row.received_at >= version.stage_since)
        .order_by(row.received_at)
        .limit(ROWS)
    )
    answers = (await session.execute(query)).all()
    if len(answers) < ROWS:
        return False
    made = build(config, [features or {} for features, _ in answers], [output for _, output in answers])
    await store.add_reference(session, version.model, version.version, "first_traffic", made, now=now)
    return True


def build(config: ModelConfig, rows: list[dict[str, Any]], outputs: list[object]) -> dict[str, Any]:
    """A profile.json from predict bodies and answers. What an answer says decides how predictions are counted."""
    columns = {name: [row.get(name, fold.MISSING) for row in rows] for name in config.features}
    ranges = {name: feature.range for name, feature in config.features.items() if feature.range is not None}
    made = fold.reference(
        columns,
        {name: feature.type for name, feature in config.features.items()},
        cells=fold.Cells(bins=config.drift.bins),
        ranges=ranges,
        prediction=_prediction(outputs),
    )
    return document.to_json(made)


def _prediction(outputs: list[object]) -> tuple[FeatureType, list[object]] | None:
    """Class where answers name one, else the number they give; None where they do neither."""
    labels = [_member(output, "label") for output in outputs]
    if sum(isinstance(label, str) for label in labels) > len(labels) / 2:
        return FeatureType.CATEGORY, labels
    numbers = [_member(output, "probability") for output in outputs]
    if not any(isinstance(number, int | float) for number in numbers):
        numbers = [_value(output) for output in outputs]
    if any(isinstance(number, int | float) and not isinstance(number, bool) for number in numbers):
        return FeatureType.NUMBER, numbers
    return None


def _value(output: object) -> object:
    """A foreign server may answer the bare number."""
    return output if not isinstance(output, dict) else _member(cast("object", output), "value")


def _member(output: object, name: str) -> object:
    return cast("dict[str, object]", output).get(name) if isinstance(output, dict) else None
