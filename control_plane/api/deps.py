"""What a route may ask for. One Annotated alias per dependency."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Annotated
from uuid import UUID

from fastapi import Depends, Query, Request
from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.adapters import store
from control_plane.contracts.base import Text
from control_plane.services import promotion
from control_plane.services.promotion import Policy
from control_plane.settings import ApiSettings


async def _session(request: Request) -> AsyncIterator[AsyncSession]:
    """One request, one transaction: commit on success, before the answer leaves; roll back on any exception."""
    async with store.transaction(request.state.sessionmaker) as session:
        yield session


def _now() -> datetime:
    return datetime.now(UTC)


def _settings(request: Request) -> ApiSettings:
    settings: ApiSettings = request.state.settings
    return settings


Session = Annotated[AsyncSession, Depends(_session, scope="function")]
Now = Annotated[datetime, Depends(_now)]
Settings = Annotated[ApiSettings, Depends(_settings)]


def _policy(settings: Settings) -> Policy:
    return promotion.platform(settings)


def _live_within(settings: Settings) -> timedelta:
    return timedelta(seconds=settings.router_live_s)


PolicyDep = Annotated[Policy, Depends(_policy)]
LiveWithin = Annotated[timedelta, Depends(_live_within)]
Limit = Annotated[int, Query(ge=1, le=200, description="Items in one answer.")]
_CURSOR = "`next` of the page before."
NameCursor = Annotated[Text | None, Query(max_length=100, description=_CURSOR)]
IdCursor = Annotated[str | None, Query(pattern=r"^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$", description=_CURSOR)]
NumberCursor = Annotated[str | None, Query(pattern=r"^[0-9]{1,18}$", description=_CURSOR)]
Filter = Annotated[Text | None, Query(max_length=200)]


def uuid_cursor(cursor: str | None) -> UUID | None:
    return None if cursor is None else UUID(cursor)


def number_cursor(cursor: str | None) -> int | None:
    return None if cursor is None else int(cursor)
