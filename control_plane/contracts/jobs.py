"""Wire models of /jobs."""

from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import Field

from control_plane.contracts.base import Reason, Request, Text, View

JobState = Literal["wanted", "queued", "running", "succeeded", "failed", "cancelled"]


class JobView(View):
    id: UUID
    kind: Literal["train", "replay", "report", "notify", "archive", "erase"]
    model: str | None
    args: dict[str, Any]
    state: JobState
    progress: dict[str, Any]
    result: dict[str, Any] | None
    error: str | None
    created_at: datetime
    created_by: str
    started_at: datetime | None
    ended_at: datetime | None
    cancel_requested_at: datetime | None


class ErasureSpec(Request):
    """Who is to be forgotten, by the name predictions and outcomes carry."""

    unit_id: Annotated[Text, Field(min_length=1, max_length=128)]
    reason: Reason


class JobLogs(View):
    """A piece of the job's log. `next` is the offset to go on from; `complete`: nothing will be added."""

    text: str
    next: int
    complete: bool
