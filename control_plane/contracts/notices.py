"""Wire models of /notifications."""

from datetime import datetime
from typing import Literal
from uuid import UUID

from control_plane.contracts.base import Reason, Request, View
from control_plane.contracts.jobs import JobState
from control_plane.domain.governance.policy import Severity


class DeliveryView(View):
    """One notice on its way to one receiver. `error`: why the last attempt failed; `next_at`: of the next one."""

    id: UUID
    receiver: str
    event: str
    severity: Severity
    model: str | None
    title: str
    lines: list[str]
    state: JobState
    attempts: int
    error: str | None
    at: datetime
    next_at: datetime | None
    delivered_at: datetime | None


class NoticeSpec(Request):
    """A notice to try the routes with; the reason is its text."""

    severity: Severity = Severity.INFO
    reason: Reason


class NoticeTold(View):
    """The notice is kept; the worker routes it within seconds."""

    notice: UUID
    event: Literal["test"] = "test"
