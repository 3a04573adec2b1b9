"""One logged prediction, and what really happened to it."""

import asyncio
import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.adapters.store import log_hours, predictions, rollouts
from control_plane.contracts.models import OutcomeView, PredictionView
from control_plane.domain import quality as domain
from control_plane.domain.model_config import Label
from control_plane.errors import NotFound
from control_plane.services import quality

if TYPE_CHECKING:  # pyarrow is loaded where an archive is opened, not by every process that knows of one
    from control_plane.adapters.archive import Archive


async def view(
    session: AsyncSession, prediction_id: UUID, *, archive: "Callable[[], Archive] | None" = None
) -> PredictionView:
    """One prediction out of Postgres, or out of the archive, opened when its day is no longer in Postgres."""
    row = await predictions.load(session, prediction_id)
    if row is not None:
        facts: dict[str, Any] = {name: getattr(row, name) for name in PredictionView.model_fields if hasattr(row, name)}
        facts["latency_ms"] = row.latency_us / 1_000
    else:
        hour = log_hours.of(prediction_id)
        found = None
        if archive is not None and hour is not None:
            found = await asyncio.to_thread(lambda: archive().find(hour, str(prediction_id)))
        if found is None:
            detail = f"There is no prediction {prediction_id} in the log; one just made takes a moment to get there."
            raise NotFound(detail, prediction_id=str(prediction_id))
        read = {name: None if found[name] is None else json.loads(found[name]) for name in ("features", "output")}
        facts = {**found, **read, "latency_ms": found["latency_us"] / 1_000, "archived": True}
    outcomes = list(await predictions.outcomes_of(session, prediction_id))
    if (unit := facts["unit_id"]) is not None:
        config = await quality.config_of(session, facts["model"])
        until = facts["received_at"] + domain.window(config.label if config else Label())
        outcomes += await predictions.outcomes_of_unit(session, facts["model"], unit, facts["received_at"], until)
    views = {outcome.outcome_id: OutcomeView.model_validate(outcome, from_attributes=True) for outcome in outcomes}
    for kept in facts.get("outcomes") or ():  # what the archive knows and Postgres may have no more
        identity = UUID(kept["outcome_id"])
        views.setdefault(identity, OutcomeView.model_validate({**kept, "value": json.loads(kept["value"])}))
    shown = {name: value for name, value in facts.items() if name in PredictionView.model_fields}
    in_order = sorted(views.values(), key=lambda outcome: outcome.observed_at)
    made = PredictionView.model_validate({**shown, "outcomes": in_order})
    return made.model_copy(update={"story": await _story(session, made)})


async def _story(session: AsyncSession, made: PredictionView) -> list[str]:
    """Why this version, why this answer, and what came of it."""
    told = [_assigned(made)]
    if made.rollout_id is not None:
        try:
            rollout = await rollouts.load(session, made.rollout_id)
            told.append(
                f"Rollout {made.rollout_id} ({rollout.kind} of version {rollout.candidate_version}, "
                f"by {rollout.created_by}) was at step {made.step}."
            )
        except NotFound:
            told.append(f"Rollout {made.rollout_id} was at step {made.step}; it is no longer known.")
    told.append(f"Decided under snapshot {made.epoch}:{made.revision}.")
    output: object = made.output
    probability = cast("dict[str, object]", output).get("probability") if isinstance(output, dict) else None
    if made.decision is not None and made.threshold is not None and isinstance(probability, int | float):
        side = "at or above" if probability >= made.threshold else "below"
        told.append(f"{probability:.4g} is {side} the threshold {made.threshold:g}: {made.decision}.")
    labels = [outcome for outcome in made.outcomes if outcome.name == "label"]
    if labels:
        told.append(f"It turned out as {labels[-1].value} (observed {labels[-1].observed_at:%Y-%m-%d %H:%M} UTC).")
    return told


def _assigned(made: PredictionView) -> str:
    if made.pinned:
        return f"Version {made.served_version} was named by the caller or pinned by an operator."
    if made.assigned_version is None:
        return f"It had no unit_id, so it belongs to no variant; version {made.served_version} answered."
    variant = f"version {made.assigned_version} ({made.assigned_variant})"
    if made.served_version == made.assigned_version:
        return f"Its unit is in the slice of {variant}, which answered."
    who = f"version {made.served_version} answered instead" if made.served_version else "nobody answered"
    return f"Its unit is in the slice of {variant}, but {who}: {made.fallback_reason or made.status}."
