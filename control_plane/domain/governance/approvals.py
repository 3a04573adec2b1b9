"""The life of an approval. The functions here are the only way one moves; all are pure.

    PENDING ──quorum of other persons──> APPROVED, and carried out in the same transaction
       ├──one person says no──> REJECTED      ├──its time is up──> EXPIRED
       ├──its author, or an admin──> WITHDRAWN └──what it shows is no longer so──> STALE

An approval binds to the SHA-256 of the exact content it showed (RFC 8785). Author and approver differ as persons, not
as keys: two keys of one person are one person. A program is no person; it never approves.
"""

import unicodedata
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum

from control_plane.errors import Conflict, Forbidden, StaleProposal


class State(StrEnum):
    PENDING = "pending"
    APPROVED = "approved"
    REJECTED = "rejected"
    WITHDRAWN = "withdrawn"
    EXPIRED = "expired"
    STALE = "stale"


ESCALATES = frozenset({State.REJECTED, State.EXPIRED})  # somebody wanted it and it did not happen: others are told


@dataclass(frozen=True, slots=True)
class Approval:
    """`author` None: a program asked. `agreed`: persons, in the order they did."""

    author: str | None
    quorum: int
    expires_at: datetime
    digest: bytes  # SHA-256 of the content shown
    state: State = State.PENDING
    agreed: tuple[str, ...] = ()
    why: str = ""  # it ended


@dataclass(frozen=True, slots=True)
class Voter:
    person: str
    automated: bool = False


def same_person(one: str, other: str) -> bool:
    """Whether two names are one person's: spaces, case and ways of writing a character make nobody somebody else."""
    return _plain(one) == _plain(other)


def approve(approval: Approval, voter: Voter, *, content: bytes, now: datetime) -> Approval:
    """One more person agrees; APPROVED with the last one needed. `content`: digest of what it would show now.

    Raises:
        Conflict: it is no longer pending, its time is up, or this person agreed before.
        Forbidden: the author, or a program.
        StaleProposal: it would show something else now.
    """
    _open(approval, now)
    _entitled(approval, voter, "approve")
    if any(same_person(voter.person, agreed) for agreed in approval.agreed):
        raise Conflict(f"{voter.person} approved this before; {_missing(approval)}.")
    if content != approval.digest:
        raise StaleProposal("What was to be approved has changed since it was proposed; ask for it anew.")
    agreed = (*approval.agreed, voter.person)
    enough = len(agreed) >= approval.quorum
    why = f"Approved by {', '.join(agreed)}." if enough else ""
    return replace(approval, agreed=agreed, state=State.APPROVED if enough else State.PENDING, why=why)


def reject(approval: Approval, voter: Voter, reason: str, *, now: datetime) -> Approval:
    """One person's no is enough. The author withdraws instead. Raises Conflict and Forbidden as `approve` does."""
    _open(approval, now)
    _entitled(approval, voter, "reject")
    return replace(approval, state=State.REJECTED, why=f"Rejected by {voter.person}: {reason}")


def withdraw(approval: Approval, voter: Voter, reason: str, *, admin: bool, now: datetime) -> Approval:
    """By its author, or by an admin whoever asked. Raises Conflict, Forbidden."""
    _open(approval, now)
    own = approval.author is not None and not voter.automated and same_person(voter.person, approval.author)
    if not own and not admin:
        raise Forbidden("Only its author or an admin withdraws it; reject it instead.")
    return replace(approval, state=State.WITHDRAWN, why=f"Withdrawn by {voter.person}: {reason}")


def look(approval: Approval, *, content: bytes | None, refused: str = "", now: datetime) -> Approval:
    """What time and the world did to it. `content` None: it could not be carried out now, which may pass: `refused`.

    Looking again changes nothing.
    """
    if approval.state is not State.PENDING:
        return approval
    if now >= approval.expires_at:
        return replace(approval, state=State.EXPIRED, why=f"Nobody decided in time. {refused}".strip())
    if content is not None and content != approval.digest:
        return replace(approval, state=State.STALE, why="What it showed is no longer so; ask for it anew.")
    return approval


def _open(approval: Approval, now: datetime) -> None:
    if approval.state is not State.PENDING:
        raise Conflict(f"This approval is {approval.state}: {approval.why}", state=approval.state)
    if now >= approval.expires_at:
        raise Conflict("The time for this approval is up; ask for it anew.", state=State.EXPIRED)


def _entitled(approval: Approval, voter: Voter, verb: str) -> None:
    if voter.automated:
        raise Forbidden(f"A program does not {verb}; a person does.")
    if approval.author is not None and same_person(voter.person, approval.author):
        raise Forbidden(f"{voter.person} asked for this; another person has to {verb} it.")


def _missing(approval: Approval) -> str:
    left = approval.quorum - len(approval.agreed)
    return "one more person is needed" if left == 1 else f"{left} more persons are needed"


def _plain(name: str) -> str:
    return " ".join(unicodedata.normalize("NFKC", name).casefold().split())
