"""Every call of the admin API, as a pure function from arguments to a `Call`. Both clients are made of these.

`reason` is kept in the audit. `key` is the Idempotency-Key, made for you when left out: give one of your own to make
a change safe to ask for again after your own process has died. The server checks what is sent and answers with every
reason at once; nothing is checked twice here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any
from uuid import UUID

from control_plane.sdk.transport import Call, path, read, write

if TYPE_CHECKING:  # `binding` resolves these from `answers` when an answer is there to be read
    from control_plane.sdk.answers import (
        ApprovalView,
        AuditVerification,
        AuditView,
        DecisionView,
        DriftView,
        HaltView,
        HealthView,
        ImportancesView,
        JobLogs,
        JobView,
        KeyCreated,
        KeyView,
        ModelView,
        OutcomesAccepted,
        OutcomeSpec,
        Page,
        PerformanceView,
        PlanView,
        PolicyPlanView,
        PolicyView,
        PredictionView,
        PrincipalView,
        RolloutView,
        StageChangeView,
        TimelineView,
        TrafficView,
        VersionDetail,
        VersionView,
    )


def health() -> Call[HealthView]:
    """Whether the API and what it stands on answer."""
    return read("/health")


def models(*, limit: int = 200, cursor: str | None = None) -> Call[Page[ModelView]]:
    """Registered models and who is Production of each, by name."""
    return read("/models", limit=limit, cursor=cursor)


def model(name: str) -> Call[ModelView]:
    return read(path("models", name))


def versions(model: str, *, limit: int = 50, cursor: str | None = None) -> Call[Page[VersionView]]:
    """Versions of a model, newest first, each with its stage and its model servers."""
    return read(path("models", model, "versions"), limit=limit, cursor=cursor)


def version(model: str, version: str) -> Call[VersionDetail]:
    """One version with its model.yaml, its evidence and what its gates say now."""
    return read(path("models", model, "versions", version))


def timeline(model: str, *, as_of: datetime | None = None, limit: int = 200) -> Call[TimelineView]:
    """Who was Production and Staging at `as_of` (aware; None: now), and the changes up to then, newest first."""
    return read(path("models", model, "timeline"), as_of=as_of, limit=limit)


def importances(model: str, *, version: str | None = None) -> Call[ImportancesView]:
    """What moves the answers of a version on the whole; None: of the one in Production."""
    return read(path("models", model, "explain"), version=version)


def performance(model: str, *, period: str = "24h") -> Call[PerformanceView]:
    """Requests, latency and quality per version over the last `period` (such as 15m, 24h, 7d)."""
    return read(path("models", model, "performance"), period=period)


def drift(model: str, *, days: int = 7) -> Call[DriftView]:
    """Drift of the Production version: scores, evidence, estimated and realised performance, incidents, history."""
    return read(path("models", model, "drift"), days=days)


def prediction(prediction_id: UUID | str) -> Call[PredictionView]:
    """One logged prediction with its outcomes. Personal data."""
    return read(path("predictions", prediction_id))


def promote(
    model: str,
    version: str | None = None,
    *,
    reason: str,
    strategy: str | None = None,
    steps: Sequence[tuple[float, float]] | None = None,
    bake_s: float | None = None,
    analysis: Mapping[str, object] | None = None,
    by_hand: bool | None = None,
    failure_limit: int | None = None,
    key: str | None = None,
) -> Call[RolloutView | ApprovalView]:
    """Make a version Production; None: the newest whose gates let it. What is left out comes from its model.yaml.

    `steps`: (percent of traffic, shortest seconds there) each; `bake_s`: how long the old version stays warm;
    `analysis`: what decides the steps, as under `rollout` in model.yaml; `by_hand`: nothing does, `complete` has to.

    Returns as soon as the wish is stored and audited; `wait_rollout` waits until every router answers so. Where the
    policy in force asks for an approval, that is what is returned, and `wait_rollout` waits for it too.

    Raises:
        GatesNotMet: `extra["reasons"]` names every gate that does not let it.
        RolloutOpen: another rollout of the model is on its way.
        InvalidInput: the plan cannot be carried out, or would not decide in time; `extra["reasons"]` says why.
    """
    spec = _plan(version, strategy, steps, bake_s, analysis, by_hand, failure_limit)
    return write("POST", path("models", model, "promote", "production"), spec | {"reason": reason}, key=key)


def plan(
    model: str,
    version: str | None = None,
    *,
    strategy: str | None = None,
    steps: Sequence[tuple[float, float]] | None = None,
    bake_s: float | None = None,
    analysis: Mapping[str, object] | None = None,
    by_hand: bool | None = None,
    failure_limit: int | None = None,
) -> Call[PlanView]:
    """What `promote` would do with the same arguments, how long it would take, and everything in its way."""
    spec = _plan(version, strategy, steps, bake_s, analysis, by_hand, failure_limit)
    return Call("POST", path("models", model, "plan"), body=spec)


def set_stage(
    model: str, version: str | None = None, *, stage: str, reason: str, key: str | None = None
) -> Call[StageChangeView | ApprovalView]:
    """Move a version to `staging`, `archived` or `development`, where it answers no customer."""
    spec = _body(version=version, reason=reason)
    return write("POST", path("models", model, "promote", stage.lower()), spec, key=key)


def rollback(model: str, *, reason: str, key: str | None = None) -> Call[RolloutView | ApprovalView]:
    """Abort the open rollout; with none open, make the previous Production version Production again.

    A person's at once. A program's may wait for an approval, by the policy in force.
    """
    return write("POST", path("models", model, "rollback"), _body(reason=reason), key=key)


def rollouts(
    *, model: str | None = None, open: bool | None = None, limit: int = 50, cursor: str | None = None
) -> Call[Page[RolloutView]]:
    """Rollouts, newest first."""
    return read("/rollouts", model=model, open=open, limit=limit, cursor=cursor)


def rollout(rollout_id: UUID | str) -> Call[RolloutView]:
    """One rollout with the analyses that were kept of it, oldest first."""
    return read(path("rollouts", rollout_id))


def pause(rollout_id: UUID | str, *, reason: str, key: str | None = None) -> Call[RolloutView | ApprovalView]:
    """Hold the weights as they are."""
    return _steer(rollout_id, "pause", reason, key)


def resume(rollout_id: UUID | str, *, reason: str, key: str | None = None) -> Call[RolloutView]:
    """Go on where it was paused; hold and bake begin anew."""
    return _steer(rollout_id, "resume", reason, key)


def abort(rollout_id: UUID | str, *, reason: str, key: str | None = None) -> Call[RolloutView | ApprovalView]:
    """Give all traffic back to the stable version."""
    return _steer(rollout_id, "abort", reason, key)


def complete(rollout_id: UUID | str, *, reason: str, key: str | None = None) -> Call[RolloutView | ApprovalView]:
    """Skip the remaining steps (`promote` of a rollout)."""
    return _steer(rollout_id, "promote", reason, key)


def traffic(model: str) -> Call[TrafficView]:
    """Which versions should answer customers, and each one's share."""
    return read(path("models", model, "traffic"))


def set_traffic(
    model: str, shares: Mapping[str, float], *, revision: int, reason: str, key: str | None = None
) -> Call[TrafficView | ApprovalView]:
    """Split traffic by hand: version -> percent, in steps of 0.01, 100 in all. Nothing: all back to Production.

    `revision` is that of the `TrafficView` the split is meant to replace.

    Raises:
        StaleRevision: the traffic has changed since that view was read.
    """
    arms = [{"version": version, "percent": percent} for version, percent in shares.items()]
    spec = _body(arms=arms, reason=reason)
    return write("PUT", path("models", model, "traffic"), spec, key=key, match=f'"{revision}"')


def retrain(
    model: str, *, reason: str, seed: int | None = None, data: str | None = None, key: str | None = None
) -> Call[JobView | ApprovalView]:
    """Train a new version on the worker's host. `data`: a path there; None: the model's own source."""
    return write("POST", path("models", model, "retrain"), _body(reason=reason, seed=seed, data=data), key=key)


def jobs(
    *, model: str | None = None, state: str | None = None, limit: int = 50, cursor: str | None = None
) -> Call[Page[JobView]]:
    """Background jobs, newest first."""
    return read("/jobs", model=model, state=state, limit=limit, cursor=cursor)


def job(job_id: UUID | str) -> Call[JobView]:
    return read(path("jobs", job_id))


def job_logs(job_id: UUID | str, *, offset: int = 0) -> Call[JobLogs]:
    """The job's log from `offset`; go on from `next` until `complete`."""
    return read(path("jobs", job_id, "logs"), offset=offset)


def cancel_job(job_id: UUID | str, *, reason: str, key: str | None = None) -> Call[JobView]:
    return write("POST", path("jobs", job_id, "cancel"), _body(reason=reason), key=key)


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
    return write("POST", "/policies", _body(document=dict(document), reason=reason), key=key)


def plan_policy(document: Mapping[str, object]) -> Call[PolicyPlanView]:
    """What `apply_policy` would change."""
    return Call("POST", "/policies/plan", body=_body(document=dict(document), reason="a dry run"))


def halt(*, reason: str) -> Call[HaltView]:
    """Nothing happens by itself any more."""
    return Call("POST", "/policies/halt", body=_body(reason=reason), repeatable=False)


def resume_policies(*, reason: str) -> Call[HaltView]:
    """End the halt."""
    return Call("POST", "/policies/resume", body=_body(reason=reason), repeatable=False)


def try_signal(
    name: str, *, model: str | None = None, source: str = "alert", severity: str = "warning"
) -> Call[DecisionView]:
    """What would be done about such a signal now, and why. Nothing is."""
    return Call("POST", "/policies/try", body=_body(name=name, model=model, source=source, severity=severity))


def decisions(*, model: str | None = None, limit: int = 50, cursor: str | None = None) -> Call[Page[DecisionView]]:
    """What was noticed, what was decided about it, what was done, and whether it helped; newest first."""
    return read("/policies/decisions", model=model, limit=limit, cursor=cursor)


def outcomes(reported: Sequence[OutcomeSpec], *, key: str | None = None) -> Call[OutcomesAccepted]:
    """Report what really happened, by prediction or by customer."""
    body = [outcome.model_dump(mode="json", exclude_none=True) for outcome in reported]
    return write("POST", "/outcomes", body, key=key)


def erase(unit_id: str, *, reason: str, key: str | None = None) -> Call[JobView]:
    """Forget a unit: what names or describes it in the log and the archive. The job's `result` counts what it was."""
    return write("POST", "/erasures", _body(unit_id=unit_id, reason=reason), key=key)


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
    spec = _body(
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
    return write("POST", path("keys", key_id, "revoke"), _body(reason=reason), key=key)


def rotate_key(key_id: UUID | str, *, reason: str, key: str | None = None) -> Call[KeyCreated]:
    """A new key in place of an old one."""
    return write("POST", path("keys", key_id, "rotate"), _body(reason=reason), key=key)


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


def _decide(approval_id: UUID | str, verb: str, etag: str, reason: str, key: str | None) -> Call[ApprovalView]:
    return write("POST", path("approvals", approval_id, verb), _body(reason=reason), key=key, match=etag)


def _steer(rollout_id: UUID | str, verb: str, reason: str, key: str | None) -> Call[Any]:
    return write("POST", path("rollouts", rollout_id, verb), _body(reason=reason), key=key)


def _plan(
    version: str | None,
    strategy: str | None,
    steps: Sequence[tuple[float, float]] | None,
    bake_s: float | None,
    analysis: Mapping[str, object] | None,
    by_hand: bool | None,
    failure_limit: int | None,
) -> dict[str, object]:
    ramp = None if steps is None else [{"weight": weight, "hold_s": hold_s} for weight, hold_s in steps]
    return _body(
        version=version, strategy=strategy, steps=ramp, bake_s=bake_s, analysis=analysis, by_hand=by_hand,
        failure_limit=failure_limit,
    )  # fmt: skip


def _body(**given: object) -> dict[str, object]:
    """The JSON-ready body; what is None is left to the server."""
    return {name: value for name, value in given.items() if value is not None}
