"""The calls of the admin API that govern the others: approvals, policies, keys, audit, reports. See `admin`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any
from uuid import UUID

from control_plane.sdk.transport import Call, body, path, read, write

if TYPE_CHECKING:  # `binding` resolves these from `answers` when an answer is there to be read
    from control_plane.sdk.answers import (
        ApprovalView,
        AuditVerification,
        AuditView,
        DecisionView,
        DeliveryView,
        HaltView,
        JobView,
        KeyCreated,
        KeyView,
        NoticeTold,
        Page,
        PolicyPlanView,
        PolicyView,
        PrincipalView,
        ReportView,
    )


def approvals(
    *, state: str | None = None, model: str | None = None, limit: int = 50, cursor: str | None = None
) -> Call[Page[ApprovalView]]:
    """What waits, or waited, for a second person, newest first. `state`: pending, approved, rejected, ..."""
    return read("/approvals", state=state, model=model, limit=limit, cursor=cursor)


def approval(approval_id: UUID | str) -> Call[ApprovalView]:
    """One of them: what would happen, and on what grounds. Its `etag` is what the other calls want to be shown."""
    return read(path("approvals", approval_id))


def approve(approval_id: UUID | str, *, etag: str, reason: str, key: str | None = None) -> Call[ApprovalView]:
    """Agree to exactly what was seen under `etag`. With the last person needed it is carried out.

    Raises:
        StaleRevision: it is no longer what was seen.
        StaleProposal: what it is about has changed; it has to be asked for anew.
        Forbidden: you are its author, or a program.
    """
    return _decide(approval_id, "approve", etag, reason, key)


def reject(approval_id: UUID | str, *, etag: str, reason: str, key: str | None = None) -> Call[ApprovalView]:
    """Refuse it, for everybody."""
    return _decide(approval_id, "reject", etag, reason, key)


def withdraw(approval_id: UUID | str, *, etag: str, reason: str, key: str | None = None) -> Call[ApprovalView]:
    """Take back what you asked for."""
    return _decide(approval_id, "withdraw", etag, reason, key)


def policies(*, limit: int = 50, cursor: str | None = None) -> Call[Page[PolicyView]]:
    """Policies that were applied, newest first."""
    return read("/policies", limit=limit, cursor=cursor)


def policy(name: str = "current") -> Call[PolicyView]:
    """The one in force, one version, or a template: `dev`, `prod`."""
    return read(path("policies", name))


def apply_policy(
    document: Mapping[str, object], *, reason: str, key: str | None = None
) -> Call[PolicyView | ApprovalView]:
    """Put another policy in force, at once or after an approval."""
    return write("POST", "/policies", body(document=dict(document), reason=reason), key=key)


def plan_policy(document: Mapping[str, object]) -> Call[PolicyPlanView]:
    """What `apply_policy` would change."""
    return Call("POST", "/policies/plan", body=body(document=dict(document), reason="a dry run"))


def halt(*, reason: str) -> Call[HaltView]:
    """Nothing happens by itself any more."""
    return Call("POST", "/policies/halt", body=body(reason=reason), repeatable=False)


def resume_policies(*, reason: str) -> Call[HaltView]:
    """End the halt."""
    return Call("POST", "/policies/resume", body=body(reason=reason), repeatable=False)


def try_signal(
    name: str, *, model: str | None = None, source: str = "alert", severity: str = "warning"
) -> Call[DecisionView]:
    """What would be done about such a signal now, and why. Nothing is."""
    return Call("POST", "/policies/try", body=body(name=name, model=model, source=source, severity=severity))


def decisions(*, model: str | None = None, limit: int = 50, cursor: str | None = None) -> Call[Page[DecisionView]]:
    """What was noticed, what was decided about it, what was done, and whether it helped; newest first."""
    return read("/policies/decisions", model=model, limit=limit, cursor=cursor)


def keys(*, limit: int = 200, cursor: str | None = None) -> Call[Page[KeyView]]:
    """API keys, never their secrets."""
    return read("/keys", limit=limit, cursor=cursor)


def create_key(
    person: str,
    role: str,
    *,
    reason: str,
    models: Sequence[str] = ("*",),
    scopes: Sequence[str] = (),
    expires_in_s: int | None = None,
    rate_limit_rps: float | None = None,
    automated: bool | None = None,
    key: str | None = None,
) -> Call[KeyCreated]:
    """A new key for a person (or a product service) in a role. Its `secret` is shown this once.

    `automated`: it is for a program, which approval tiers bind and which never approves anything.
    `rate_limit_rps`: predictions a second that it may ask for, of all models and routers together.
    """
    spec = body(
        person=person,
        role=role,
        models=list(models),
        scopes=list(scopes),
        expires_in_s=expires_in_s,
        rate_limit_rps=rate_limit_rps,
        automated=automated,
        reason=reason,
    )
    return write("POST", "/keys", spec, key=key)


def revoke_key(key_id: UUID | str, *, reason: str, key: str | None = None) -> Call[KeyView]:
    return write("POST", path("keys", key_id, "revoke"), body(reason=reason), key=key)


def rotate_key(key_id: UUID | str, *, reason: str, key: str | None = None) -> Call[KeyCreated]:
    """A new key in place of an old one."""
    return write("POST", path("keys", key_id, "rotate"), body(reason=reason), key=key)


def principals(*, limit: int = 200, cursor: str | None = None) -> Call[Page[PrincipalView]]:
    """Persons and product services with their roles."""
    return read("/principals", limit=limit, cursor=cursor)


def audit(
    *,
    object: str | None = None,
    action: str | None = None,
    actor: str | None = None,
    since: datetime | None = None,
    until: datetime | None = None,
    limit: int = 50,
    cursor: str | None = None,
) -> Call[Page[AuditView]]:
    """Links of the audit chain, newest first. `object` is kind:name, such as model:fraud."""
    return read(
        "/audit", object=object, action=action, actor=actor, since=since, until=until, limit=limit, cursor=cursor
    )


def verify_audit() -> Call[AuditVerification]:
    """Walk the whole chain: hashes, columns, signed checkpoints. `ok` is False where anything is wrong."""
    return read("/audit/verify")


def export_audit() -> Call[bytes]:
    """The whole audit as JSON lines, piece by piece, to be verified anywhere with `domain.audit_export.verify`."""
    return read("/audit/export")


def reports(
    *, model: str | None = None, kind: str | None = None, limit: int = 50, cursor: str | None = None
) -> Call[Page[ReportView]]:
    """Reports that were made, newest first."""
    return read("/reports", model=model, kind=kind, limit=limit, cursor=cursor)


def report(report_id: UUID | str) -> Call[ReportView]:
    """What a report is about, its summary and the digests of its two forms."""
    return read(path("reports", report_id))


def make_report(
    model: str,
    kind: str,
    *,
    reason: str,
    rollout_id: UUID | str | None = None,
    version: str | None = None,
    month: str | None = None,
    key: str | None = None,
) -> Call[JobView]:
    """Have a report made: deployment, rollback, retraining, drift, incident or monthly. Its id is the job's.

    `month`: of a monthly report, such as 2026-10; left out, the last 30 days.
    """
    spec = body(
        model=model, kind=kind, rollout_id=rollout_id and str(rollout_id), version=version, month=month, reason=reason
    )
    return write("POST", "/reports", spec, key=key)


def report_json(report_id: UUID | str) -> Call[bytes]:
    """A report's JSON document."""
    return read(f"{path('reports', report_id)}.json")


def report_pdf(report_id: UUID | str) -> Call[bytes]:
    """The same as PDF."""
    return read(f"{path('reports', report_id)}.pdf")


def notifications(*, model: str | None = None, limit: int = 50, cursor: str | None = None) -> Call[Page[DeliveryView]]:
    """What people were told, one line per receiver, newest first, and whether it reached them."""
    return read("/notifications", model=model, limit=limit, cursor=cursor)


def try_notification(*, reason: str, severity: str = "info", key: str | None = None) -> Call[NoticeTold]:
    """Tell the receivers of a severity that this is a trial; then look at `notifications`."""
    return write("POST", "/notifications/try", body(severity=severity, reason=reason), key=key)


def report_schema() -> Call[dict[str, Any]]:
    """JSON schema of the JSON documents of reports."""
    return read("/reports/schema")


def _decide(approval_id: UUID | str, verb: str, etag: str, reason: str, key: str | None) -> Call[ApprovalView]:
    return write("POST", path("approvals", approval_id, verb), body(reason=reason), key=key, match=etag)
