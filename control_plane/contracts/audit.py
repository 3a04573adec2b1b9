"""Wire models of /audit."""

from datetime import datetime
from typing import Any

from control_plane.contracts.base import View


class ActorView(View):
    person: str
    role: str | None = None
    key: str | None = None  # the key's id


class AuditView(View):
    """One link of the chain, as its stored bytes say."""

    seq: int
    at: datetime
    action: str
    object: str
    actor: ActorView
    trigger: str  # api | cli | sdk | reconciler | init | ...: what set it off
    before: Any = None
    after: Any = None
    reasons: list[str] = []
    evidence: Any = None
    approver: ActorView | None = None
    request_id: str | None = None
    hash: str  # hex


class AuditVerification(View):
    """`ok`: every link follows the one before it. Compare `head_hash` with a copy kept elsewhere: a chain that was
    cut at its end is whole again."""

    ok: bool
    links: int
    first_bad: int | None  # seq
    head_seq: int
    head_hash: str  # hex
