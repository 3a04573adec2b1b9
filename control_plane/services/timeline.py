"""Who was what, and when."""

from datetime import datetime

from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.adapters.store import versions
from control_plane.contracts.models import TimelineEntry, TimelineView
from control_plane.domain.stages import Stage, standing


async def view(session: AsyncSession, name: str, *, as_of: datetime, limit: int = 200) -> TimelineView:
    """The standing at `as_of` from the stage events alone; the newest `limit` events up to then."""
    await versions.model(session, name)
    held = standing(await versions.changes(session, name, until=as_of))
    events = await versions.events(session, name, until=as_of, limit=limit)
    return TimelineView(
        model=name,
        as_of=as_of,
        production_version=next((version for version, stage in held.items() if stage is Stage.PRODUCTION), None),
        staging_version=max((v for v, stage in held.items() if stage is Stage.STAGING), key=int, default=None),
        events=[TimelineEntry.model_validate(event, from_attributes=True) for event in events],
    )
