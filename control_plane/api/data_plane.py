"""Routes for routers: the snapshot when the bus is down, and their reports. Not for people; outside the OpenAPI."""

import asyncio
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Query, Request, Response
from pydantic import Field

from control_plane.adapters import store
from control_plane.adapters.store import routers, snapshots
from control_plane.api.auth import router_token
from control_plane.api.body import Json
from control_plane.api.deps import Session
from control_plane.contracts.base import Request as Body
from control_plane.contracts.base import Text

router = APIRouter(include_in_schema=False, dependencies=[Depends(router_token)])
_LOOK_S = 0.5
_Counter = Annotated[int, Query(ge=0, le=2**62)]


class RouterReport(Body):
    """What one router worker has applied."""

    epoch: Annotated[int, Field(ge=0, le=2**62)]
    revision: Annotated[int, Field(ge=0, le=2**62)]
    pins: dict[str, Any] = {}
    rejected: Text | None = None
    asked: dict[str, dict[str, Annotated[float, Field(ge=0, le=2**40)]]] = {}  # model -> version -> Unix seconds
    at: float | None = None


@router.get("/snapshot")
async def get_snapshot(
    request: Request,
    epoch: _Counter = 0,
    revision: _Counter = 0,
    wait_s: Annotated[float, Query(ge=0, le=60)] = 0,
) -> Response:
    """The newest document if it is above (epoch, revision), as soon as there is one; 304 when `wait_s` are over.

    No database connection is held while it waits.
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + wait_s
    while True:
        async with store.transaction(request.state.sessionmaker) as session:
            row = await snapshots.newest(session)
        if row is not None and (row.epoch, row.revision) > (epoch, revision):
            headers = {"ETag": f'"{row.epoch}:{row.revision}"', "Cache-Control": "no-store"}
            return Response(row.document, media_type="application/json", headers=headers)
        left = deadline - loop.time()
        if left <= 0 or await request.is_disconnected():
            return Response(status_code=304)
        await asyncio.sleep(min(_LOOK_S, left))


@router.post("/routers/{router_id}", status_code=204)
async def report(
    router_id: Annotated[Text, Path(min_length=1, max_length=200)],
    body: Json[RouterReport],
    session: Session,
) -> None:
    """A router's report, while it cannot leave it on the bus."""
    at = {"epoch": body.epoch, "revision": body.revision}
    await routers.report(session, router_id, **at, pins=body.pins, rejected=body.rejected)
    await routers.asked(session, routers.flat(body.asked))
