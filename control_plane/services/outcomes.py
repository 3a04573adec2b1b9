"""Outcomes: what really happened, stored before it is acknowledged."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import cast
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.adapters.store import erasures, ids, log_hours, predictions, versions
from control_plane.contracts.outcomes import OutcomesAccepted, OutcomeSpec
from control_plane.domain.governance import Grant, covers
from control_plane.errors import Forbidden, InvalidInput, NotFound


async def report(
    session: AsyncSession, specs: Sequence[OutcomeSpec], *, grant: Grant, now: datetime
) -> OutcomesAccepted:
    """Store all of them or none. Raises InvalidInput with a reason for each that cannot be placed."""
    reasons: list[str] = []
    rows = dict[UUID, dict[str, object]]()
    known: dict[str, bool] = {}
    for index, spec in enumerate(specs):
        name = spec.model or await _model_of(session, spec.prediction_id)
        if name is None:
            reasons.append(f"{index}.model: prediction {spec.prediction_id} is not in the log (yet); name its model")
            continue
        if name not in known:
            known[name] = await _exists(session, name)
        if not known[name]:
            reasons.append(f"{index}.model: there is no model {name}")
        elif not covers(grant.models, name):
            raise Forbidden(f"The key covers the models {', '.join(grant.models)}, not {name}.")
        identity = spec.outcome_id or ids.new()
        rows[identity] = {
            "outcome_id": identity,
            "model": name,
            "name": spec.name,
            "value": spec.value,
            "currency": spec.currency,
            "observed_at": spec.observed_at or now,
            "received_at": now,
            "prediction_id": spec.prediction_id,
            "unit_id": spec.unit_id,
        }
    if reasons:
        raise InvalidInput("Some outcomes cannot be stored; none was.", reasons=reasons)
    connection = await log_hours.driver(session)
    if (asked := await erasures.standing(connection)) is not None:
        rows = {identity: row for identity, row in rows.items() if not _forgotten(row, asked)}
    fresh = await predictions.add_outcomes(session, list(rows.values())) if rows else 0
    subjects = [(row["model"], row["prediction_id"], row["unit_id"], row["observed_at"]) for row in rows.values()]
    changed = await log_hours.of_outcomes(connection, cast("list[log_hours.Subject]", subjects), now=now)
    await log_hours.mark(connection, changed)
    return OutcomesAccepted(accepted=fresh, known=len(specs) - fresh)


def _forgotten(row: Mapping[str, object], asked: erasures.Standing) -> bool:
    """Whether it speaks of a time before its unit was to be erased: nobody could join it any more."""
    unit, at = row["unit_id"], row["observed_at"]
    return isinstance(unit, str) and isinstance(at, datetime) and asked.covers(unit, at)


async def _model_of(session: AsyncSession, prediction_id: UUID | None) -> str | None:
    row = None if prediction_id is None else await predictions.load(session, prediction_id)
    return None if row is None else row.model


async def _exists(session: AsyncSession, name: str) -> bool:
    try:
        await versions.model(session, name)
    except NotFound:
        return False
    return True
