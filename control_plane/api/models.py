"""Routes of /models that read: models, versions, timeline, performance, traffic."""

from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Depends, Query, Response

from control_plane.adapters.store import versions
from control_plane.api.auth import Requires
from control_plane.api.deps import Limit, NameCursor, Now, NumberCursor, PolicyDep, Session, number_cursor
from control_plane.api.problems import responses
from control_plane.contracts.base import Moment, Page, Text
from control_plane.contracts.drift import DriftView
from control_plane.contracts.models import (
    ImportancesView,
    ModelView,
    PerformanceView,
    TimelineView,
    TrafficView,
    VersionDetail,
    VersionView,
)
from control_plane.domain.governance import Action, covers
from control_plane.errors import Forbidden, InvalidInput, NotFound, Unauthenticated
from control_plane.services import drift_view, models, performance, timeline, traffic
from control_plane.services.keys import Principal

router = APIRouter(prefix="/models", tags=["models"], responses=responses(Unauthenticated, Forbidden))
Reader = Annotated[Principal, Depends(Requires(Action.READ))]
_PERIOD = "^([1-9][0-9]{0,4}[mhdw]|hour|day|week|month)$"
Period = Annotated[
    Text, Query(max_length=20, description="At most 366 days.", json_schema_extra={"pattern": _PERIOD}, examples=["7d"])
]


@router.get("", responses=responses(InvalidInput))
async def list_models(
    session: Session, reader: Reader, limit: Limit = 50, cursor: NameCursor = None
) -> Page[ModelView]:
    """The models the key covers, by name."""
    shown: list[ModelView] = []
    after, rows = cursor, await versions.models(session, after=cursor, limit=limit)
    while rows and len(shown) < limit:
        for row in rows:
            after = row.name
            if covers(reader.grant.models, row.name):
                shown.append(await models.shown(session, row))
            if len(shown) == limit:
                break
        rows = await versions.models(session, after=after, limit=limit)
    return Page(items=shown, next=after if rows else None)


@router.get("/{model}", dependencies=[Depends(Requires(Action.READ))], responses=responses(NotFound))
async def get_model(model: str, session: Session) -> ModelView:
    return await models.shown(session, await versions.model(session, model))


@router.get(
    "/{model}/versions",
    dependencies=[Depends(Requires(Action.READ))],
    responses=responses(NotFound, InvalidInput),
)
async def list_versions(
    model: str, session: Session, limit: Limit = 50, cursor: NumberCursor = None
) -> Page[VersionView]:
    """Newest first; versions gone from MLflow stay, with `deleted_at`."""
    rows = await models.page_of_versions(session, model, before=number_cursor(cursor), limit=limit)
    return Page(items=list(rows), next=rows[-1].version if len(rows) == limit else None)


@router.get("/{model}/versions/{version}", dependencies=[Depends(Requires(Action.READ))], responses=responses(NotFound))
async def get_version(model: str, version: str, session: Session, policy: PolicyDep) -> VersionDetail:
    """One version with its model.yaml, its evidence and what its gates say now."""
    if not version.isascii() or not version.isdigit():
        raise NotFound(f"Model {model} has no such version.", model=model)
    return await models.detail(session, model, version, policy.defaults)


@router.get(
    "/{model}/timeline", dependencies=[Depends(Requires(Action.READ))], responses=responses(NotFound, InvalidInput)
)
async def get_timeline(
    model: str, session: Session, now: Now, as_of: Moment | None = None, limit: Limit = 200
) -> TimelineView:
    """Who was Production and Staging at `as_of` (RFC 3339 with its offset), and the changes up to then."""
    moment: datetime = as_of or now
    return await timeline.view(session, model, as_of=moment, limit=limit)


@router.get(
    "/{model}/performance", dependencies=[Depends(Requires(Action.READ))], responses=responses(NotFound, InvalidInput)
)
async def get_performance(model: str, session: Session, now: Now, period: Period = "24h") -> PerformanceView:
    """Requests, latency and quality per version over the last `period`: 15m, 24h, 7d, 4w, or hour, day, week, month."""
    return await performance.view(session, model, period, now=now)


@router.get(
    "/{model}/drift", dependencies=[Depends(Requires(Action.READ))], responses=responses(NotFound, InvalidInput)
)
async def get_drift(
    model: str,
    session: Session,
    now: Now,
    days: Annotated[int, Query(ge=1, le=100, description="How far back the history goes.", examples=[7])] = 7,
) -> DriftView:
    """Drift of the Production version: now, both histograms per feature, incidents, and the history hour by hour."""
    return await drift_view.view(session, model, days=days, now=now)


@router.get("/{model}/explain", dependencies=[Depends(Requires(Action.READ))], responses=responses(NotFound))
async def get_importances(
    model: str, session: Session, version: Annotated[str | None, Query(pattern=r"^[0-9]{1,10}$")] = None
) -> ImportancesView:
    """What moves the answers of a version on the whole; of the one in Production where none is named."""
    return await models.importances(session, model, version)


@router.get("/{model}/traffic", dependencies=[Depends(Requires(Action.READ))], responses=responses(NotFound))
async def get_traffic(model: str, session: Session, response: Response) -> TrafficView:
    """Which versions should answer customers. The ETag is what a PUT has to show in If-Match."""
    view = await traffic.view(session, model)
    response.headers["ETag"] = f'"{view.revision}"'
    return view
