"""Wire models of /approvals."""

from datetime import datetime
from typing import Any
from uuid import UUID

from control_plane.contracts.base import View
from control_plane.domain.governance.approvals import State
from control_plane.domain.governance.policy import Operation


class VoteView(View):
    person: str
    agrees: bool
    reason: str
    at: datetime


class ApprovalView(View):
    """Something that waits, or waited, for other persons. `content` is what they agree to, and all of it: the ETag of
    GET /approvals/{id} holds its SHA-256."""

    id: UUID
    operation: Operation
    model: str | None
    state: State
    author: str
    automated: bool  # the author is a program
    reason: str
    will: list[str]  # what happens once it is approved, a sentence each
    content: dict[str, Any]
    content_sha256: str  # hex, of the content's RFC 8785 bytes
    quorum: int  # persons who have to agree
    votes: list[VoteView]
    created_at: datetime
    expires_at: datetime
    closed_at: datetime | None
    why: str  # it ended
    result: dict[str, Any] | None  # of what was carried out: {"rollout": id}, {"job": id}, {"revision": n}
    revision: int
    etag: str  # for If-Match: it names the content and every vote so far
