"""A reference for a version that brought none: the first answers it gave."""

from datetime import datetime

from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.adapters.store import answered
from control_plane.adapters.store import drift as store
from control_plane.adapters.store.tables import ModelVersionRow
from control_plane.domain.drift import document, first_traffic
from control_plane.services import evidence


async def from_traffic(session: AsyncSession, version: ModelVersionRow, *, now: datetime) -> bool:
    """Make it once the version has answered enough customers; whether it was made. What came before is not counted."""
    config, _ = evidence.config(version)
    if config is None or not config.features:
        return False
    answers = await answered.first(
        session, version.model, version.version, since=version.stage_since, rows=first_traffic.ROWS
    )
    if answers is None:
        return False
    made = first_traffic.reference(config, [features for features, _ in answers], [output for _, output in answers])
    kept = document.to_json(made)
    await store.add_reference(session, version.model, version.version, "first_traffic", kept, now=now)
    return True
