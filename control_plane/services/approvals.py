"""Approvals: asked for, given, refused, taken back, over.

What is approved is carried out in the transaction of the last yes: either both are there after a crash, or neither.
Whoever changes an approval locks the model first, as everything that moves a model's releases does.
"""

import json
from collections.abc import Callable
from datetime import datetime, timedelta
from hashlib import sha256
from typing import Any
from uuid import UUID

import structlog
from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.adapters.store import approvals as store
from control_plane.adapters.store import audit, versions, wake
from control_plane.adapters.store.approvals import Entry
from control_plane.adapters.store.tables import ApprovalRow
from control_plane.contracts.approvals import ApprovalView, VoteView
from control_plane.domain.governance import approvals, policy
from control_plane.domain.governance.approvals import Approval, State, Voter
from control_plane.domain.governance.policy import Operation, Ruling, Severity, Tier
from control_plane.domain.notices import Notice
from control_plane.errors import ControlPlaneError, Forbidden, StaleRevision
from control_plane.services import approval_words, notices, policies, proposals
from control_plane.services.cutover import Cause
from control_plane.services.promotion import Policy
from control_plane.services.proposals import Done, Proposal

log = structlog.get_logger()
Domain = Callable[[Approval], Approval]


async def submit(
    session: AsyncSession, proposal: Proposal, *, platform: Policy, cause: Cause, now: datetime
) -> Done | ApprovalView:
    """Carry out what was asked for, or have it wait for other persons, as the policy in force says.

    The same thing asked for while it waits is that approval again.

    Raises:
        Forbidden: no program may do it.
        Whatever carrying it out raises: what cannot be done now is not put before anybody.
    """
    ruling = await _ruling(session, proposal.operation, platform, automated=cause.automated)
    match ruling.tier:
        case Tier.HUMAN_ONLY if cause.automated:
            raise Forbidden(ruling.why, operation=proposal.operation)
        case Tier.AUTOMATIC | Tier.HUMAN_ONLY:
            return await proposals.carry_out(session, proposal, policy=platform, cause=cause, now=now)
        case Tier.APPROVAL:
            return await propose(session, proposal, ruling, platform=platform, cause=cause, now=now)


async def propose(
    session: AsyncSession, proposal: Proposal, ruling: Ruling, *, platform: Policy, cause: Cause, now: datetime
) -> ApprovalView:
    """Have it wait for as many other persons as the ruling says."""
    pinned, content = await proposals.described(session, proposal, policy=platform, now=now)
    if (asked := pinned.request.get("revision")) is not None and asked != content["revision"]:
        raise StaleRevision(f"The traffic of {proposal.model} is at revision {content['revision']}.", expected=asked)
    shown = audit.canonical(content | {"quorum": ruling.quorum})
    if (waiting := await store.pending_with(session, shown)) is not None:
        return view(waiting)
    entry = await store.add(
        session,
        operation=proposal.operation,
        model=proposal.model,
        request=pinned.request,
        content=shown,
        author=cause.actor,
        automated=cause.automated,
        trigger=cause.trigger,
        reason=proposal.reason,
        quorum=ruling.quorum,
        now=now,
        expires_at=now + timedelta(seconds=ruling.expires_s),
    )
    await _notify(session, "asked", entry, Severity.WARNING, proposal.reason, now=now)
    await _tell(session, "approval.request", None, entry, cause, [proposal.reason, ruling.why])
    return view(entry)


async def approve(
    session: AsyncSession, approval_id: UUID, match: str, reason: str, *, platform: Policy, cause: Cause, now: datetime
) -> ApprovalView:
    """One more yes; the last one needed carries it out, now.

    Raises:
        StaleRevision: `match` is not what it is now, or somebody was faster.
        StaleProposal, Forbidden, Conflict: as `domain.governance.approvals` says.
        Whatever carrying it out raises: the yes is then not kept either.
    """
    entry = await _locked(session, approval_id, match)
    approvals.approve(entry.state, _voter(cause), content=entry.row.content_sha256, now=now)  # who may not is told so
    digest = sha256(await _shown_now(session, entry, platform, now)).digest()
    new = approvals.approve(entry.state, _voter(cause), content=digest, now=now)
    await store.vote(session, entry, cause.actor, agrees=True, reason=reason, now=now)
    result: dict[str, Any] | None = None
    if new.state is State.APPROVED:
        by = Cause(entry.author, entry.row.trigger, cause.request_id, entry.row.automated, approver=cause.actor)
        done = await proposals.carry_out(session, _proposal(entry.row), policy=platform, cause=by, now=now)
        result = proposals.result(done)
    saved = await store.save(session, entry, new, result=result, now=now)
    if new.state is State.APPROVED:
        await _notify(session, new.state, saved, Severity.INFO, reason, now=now)
    await wake.notify(session, f"approval {approval_id}")
    await _tell(session, "approval.approve", entry, saved, cause, [reason])
    return view(saved)


async def reject(
    session: AsyncSession, approval_id: UUID, match: str, reason: str, *, cause: Cause, now: datetime
) -> ApprovalView:
    """One no ends it, and is passed on. Raises as `approve` does."""
    entry = await _locked(session, approval_id, match)
    new = approvals.reject(entry.state, _voter(cause), reason, now=now)
    await store.vote(session, entry, cause.actor, agrees=False, reason=reason, now=now)
    return await _end(session, "approval.reject", entry, new, cause, reason, now=now)


async def withdraw(
    session: AsyncSession, approval_id: UUID, match: str, reason: str, *, admin: bool, cause: Cause, now: datetime
) -> ApprovalView:
    """By its author or an admin. Raises as `approve` does."""
    entry = await _locked(session, approval_id, match)
    new = approvals.withdraw(entry.state, _voter(cause), reason, admin=admin, now=now)
    return await _end(session, "approval.withdraw", entry, new, cause, reason, now=now)


async def look(
    session: AsyncSession, approval_id: UUID, *, platform: Policy, cause: Cause, now: datetime
) -> ApprovalView:
    """End one whose time is up, or which shows what is no longer so."""
    entry = await _locked(session, approval_id, None)
    digest, refused = None, ""
    try:
        digest = sha256(await _shown_now(session, entry, platform, now)).digest()
    except ControlPlaneError as exc:
        refused = exc.detail
    new = approvals.look(entry.state, content=digest, refused=refused, now=now)
    if new == entry.state:
        return view(entry)
    action = "approval.expire" if new.state is State.EXPIRED else "approval.stale"
    return await _end(session, action, entry, new, cause, new.why, now=now)


def view(entry: Entry) -> ApprovalView:
    row, content = entry.row, json.loads(entry.row.content)
    votes = [VoteView.model_validate(vote, from_attributes=True) for vote in entry.votes]
    facts = {name: getattr(row, name) for name in ApprovalView.model_fields.keys() & set(row.__table__.columns.keys())}
    facts |= {"content": content, "content_sha256": row.content_sha256.hex(), "votes": votes}
    return ApprovalView.model_validate(facts | {"will": approval_words.will(content), "etag": etag(entry)})


def etag(entry: Entry) -> str:
    """Names what is shown, to the last vote."""
    return f'"{entry.row.revision}-{entry.row.content_sha256.hex()}"'


async def _locked(session: AsyncSession, approval_id: UUID, match: str | None) -> Entry:
    """The approval as nobody else can change it now. StaleRevision unless `match` is its ETag."""
    known = await store.load(session, approval_id)
    if known.row.model is not None:
        await versions.model(session, known.row.model, lock=True)
    entry = await store.load(session, approval_id, lock=True)
    if match is not None and match != etag(entry):
        raise StaleRevision(f"Approval {approval_id} is {entry.row.state} at revision {entry.row.revision} now.")
    return entry


async def _shown_now(session: AsyncSession, entry: Entry, platform: Policy, now: datetime) -> bytes:
    """The bytes it would show if it were asked for now."""
    operation = Operation(entry.row.operation)
    ruling = await _ruling(session, operation, platform, automated=entry.row.automated)
    _, content = await proposals.described(session, _proposal(entry.row), policy=platform, now=now)
    return audit.canonical(content | {"quorum": ruling.quorum})


async def _ruling(session: AsyncSession, operation: Operation, platform: Policy, *, automated: bool) -> Ruling:
    return policy.ruling(await policies.in_force(session, platform.governance), operation, automated=automated)


async def _end(
    session: AsyncSession, action: str, entry: Entry, new: Approval, cause: Cause, reason: str, *, now: datetime
) -> ApprovalView:
    saved = await store.save(session, entry, new, now=now)
    severity = Severity.CRITICAL if new.state in approvals.ESCALATES else Severity.INFO
    await _notify(session, new.state, saved, severity, reason, now=now)
    await _tell(session, action, entry, saved, cause, [reason])
    if new.state in approvals.ESCALATES:
        log.warning("approval.escalated", approval=str(entry.row.id), model=entry.row.model, why=new.why)
    return view(saved)


async def _notify(
    session: AsyncSession, what: str, entry: Entry, severity: Severity, reason: str, *, now: datetime
) -> None:
    row = entry.row
    title = f"Approval {what}: {row.operation.replace('_', ' ')}" + (f" of {row.model}" if row.model else "")
    lines = (*approval_words.will(json.loads(row.content)), f"Asked for by {row.author}: {row.reason}")
    if what == "asked":
        lines = (*lines, f"It needs {row.quorum} more, until {row.expires_at:%Y-%m-%d %H:%M} UTC.")
    else:
        lines = (*lines, f"{what.capitalize()}: {reason}")
    path = f"/pages/approvals/{row.id}"
    notice = Notice(f"approval:{row.id}:{what}", f"approval.{what}", severity, row.model, title, lines, path)
    await notices.tell(session, notice, now=now)


def _proposal(row: ApprovalRow) -> Proposal:
    return Proposal(Operation(row.operation), row.model, row.request, row.reason)


def _voter(cause: Cause) -> Voter:
    return Voter(cause.actor.person, cause.automated)


async def _tell(
    session: AsyncSession, action: str, before: Entry | None, after: Entry, cause: Cause, reasons: list[str]
) -> None:
    row = after.row
    shown: dict[str, object] = {
        "operation": row.operation,
        "content_sha256": row.content_sha256.hex(),
        "author": row.author,
    }
    shown |= {"quorum": row.quorum, "agreed": list(after.state.agreed), "result": row.result, "why": row.why}
    await audit.append(
        session,
        action,
        actor=cause.actor,
        object=f"approval:{row.id}" if row.model is None else f"model:{row.model}",
        trigger=cause.trigger,
        request_id=cause.request_id,
        before=None if before is None else {"approval": str(row.id), "state": before.row.state},
        after={"approval": str(row.id), "state": row.state, **shown},
        reasons=reasons,
        evidence=json.loads(row.content) if before is None else {"escalated": row.state in approvals.ESCALATES},
    )
