"""Wire models of /audit."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from control_plane.contracts.base import View
from control_plane.domain.audit import Walk
from control_plane.domain.checkpoints import Trusted


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
    """`ok`: nothing is wrong. Whatever was changed at or before the link `signed_to` would have been found, whoever
    changed it; after it a chain that was cut, or rebuilt to its end, looks whole."""

    ok: bool
    links: int  # good ones, up to the first bad one
    first_bad: int | None  # seq
    why: str | None = None  # what is wrong with it
    head_seq: int
    head_hash: str  # hex
    signed_to: int = 0  # the newest link under a signature that holds; 0: none is
    signed_at: datetime | None = None
    checkpoints: int = 0  # that hold
    exported_to: int | None = None  # the newest link signed outside of the database; None: nothing there, or unread
    reasons: list[str] = []  # everything that is wrong, the first bad link included
    notes: list[str] = []  # what could not be looked at


def verdict(
    seen: Walk, trusted: Trusted, *, exported_to: int | None = None, notes: Sequence[str] = ()
) -> AuditVerification:
    """What a walk over a chain comes to, online and offline."""
    reasons = [*([seen.why] if seen.why else []), *trusted.reasons]
    return AuditVerification(
        ok=not reasons,
        links=seen.links,
        first_bad=seen.first_bad,
        why=seen.why,
        head_seq=seen.head.seq,
        head_hash=seen.head.hash.hex(),
        signed_to=trusted.seq,
        signed_at=trusted.at,
        checkpoints=len(trusted.checkpoints),
        exported_to=exported_to,
        reasons=reasons,
        notes=list(notes),
    )
