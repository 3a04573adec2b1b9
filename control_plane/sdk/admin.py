"""Every call of the admin API, as a pure function from arguments to a `Call`. Both clients are made of these.

`reason` is kept in the audit. `key` is the Idempotency-Key, made for you when left out: give one of your own to make
a change safe to ask for again after your own process has died.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from uuid import UUID

from pydantic import BaseModel, ValidationError

from control_plane.contracts.audit import AuditVerification, AuditView
from control_plane.contracts.base import Page
from control_plane.contracts.health import HealthView
from control_plane.contracts.jobs import JobLogs, JobView
from control_plane.contracts.keys import KeyCreated, KeySpec, KeyView, PrincipalView
from control_plane.contracts.models import (
    ModelView,
    PerformanceView,
    PredictionView,
    RetrainSpec,
    TimelineView,
    TrafficSpec,
    TrafficView,
    VersionDetail,
    VersionView,
)
from control_plane.contracts.outcomes import OutcomesAccepted, OutcomeSpec
from control_plane.contracts.rollouts import PromoteSpec, ReasonSpec, RolloutView, StageChangeView, StepSpec
from control_plane.errors import InvalidInput
from control_plane.sdk.transport import Call, path, read, write


def health() -> Call[HealthView]:
    """Whether the API and what it stands on answer."""
    return read("/health", HealthView)


def models() -> Call[Page[ModelView]]:
    """Registered models and who is Production of each."""
    return read("/models", Page[ModelView])


def model(name: str) -> Call[ModelView]:
    return read(path("models", name), ModelView)


def versions(model: str) -> Call[Page[VersionView]]:
    """Versions of a model, newest first, each with its stage and its model servers."""
    return read(path("models", model, "versions"), Page[VersionView])


def version(model: str, version: str) -> Call[VersionDetail]:
    """One version with its model.yaml, its evidence and what its gates say now."""
    return read(path("models", model, "versions", version), VersionDetail)


def timeline(model: str, *, as_of: datetime | None = None) -> Call[TimelineView]:
    """Who was Production and Staging at `as_of` (aware; None: now), and every change up to then."""
    return read(path("models", model, "timeline"), TimelineView, as_of=as_of)


def performance(model: str, *, period: str = "24h") -> Call[PerformanceView]:
    """Requests, latency and quality per version over the last `period` (such as 15m, 24h, 7d)."""
    return read(path("models", model, "performance"), PerformanceView, period=period)


def prediction(prediction_id: UUID | str) -> Call[PredictionView]:
    """One logged prediction with its outcomes. Personal data."""
    return read(path("predictions", prediction_id), PredictionView)


def promote(
    model: str,
    version: str | None = None,
    *,
    reason: str,
    strategy: str | None = None,
    steps: Sequence[StepSpec] | None = None,
    bake_s: float | None = None,
    key: str | None = None,
) -> Call[RolloutView]:
    """Make a version Production; None: the newest whose gates let it. What is left out comes from its model.yaml.

    Returns as soon as the wish is stored and audited; `wait_rollout` waits until every router answers so.

    Raises:
        GatesNotMet: `extra["reasons"]` names every gate that does not let it.
        RolloutOpen: another rollout of the model is on its way.
    """
    spec = _body(PromoteSpec, version=version, strategy=strategy, steps=steps, bake_s=bake_s, reason=reason)
    return write("POST", path("models", model, "promote", "production"), RolloutView, spec, key=key)


def set_stage(
    model: str, version: str | None = None, *, stage: str, reason: str, key: str | None = None
) -> Call[StageChangeView]:
    """Move a version to `staging`, `archived` or `development`, where it answers no customer."""
    spec = _body(PromoteSpec, version=version, reason=reason)
    return write("POST", path("models", model, "promote", stage.lower()), StageChangeView, spec, key=key)


def rollback(model: str, *, reason: str, key: str | None = None) -> Call[RolloutView]:
    """Abort the open rollout; with none open, make the previous Production version Production again. At once."""
    return write("POST", path("models", model, "rollback"), RolloutView, _body(ReasonSpec, reason=reason), key=key)


def rollouts(
    *, model: str | None = None, open: bool | None = None, limit: int = 50, cursor: str | None = None
) -> Call[Page[RolloutView]]:
    """Rollouts, newest first."""
    return read("/rollouts", Page[RolloutView], model=model, open=open, limit=limit, cursor=cursor)


def rollout(rollout_id: UUID | str) -> Call[RolloutView]:
    return read(path("rollouts", rollout_id), RolloutView)


def pause(rollout_id: UUID | str, *, reason: str, key: str | None = None) -> Call[RolloutView]:
    """Hold the weights as they are."""
    return _steer(rollout_id, "pause", reason, key)


def resume(rollout_id: UUID | str, *, reason: str, key: str | None = None) -> Call[RolloutView]:
    """Go on where it was paused; hold and bake begin anew."""
    return _steer(rollout_id, "resume", reason, key)


def abort(rollout_id: UUID | str, *, reason: str, key: str | None = None) -> Call[RolloutView]:
    """Give all traffic back to the stable version."""
    return _steer(rollout_id, "abort", reason, key)


def complete(rollout_id: UUID | str, *, reason: str, key: str | None = None) -> Call[RolloutView]:
    """Skip the remaining steps (`promote` of a rollout)."""
    return _steer(rollout_id, "promote", reason, key)


def traffic(model: str) -> Call[TrafficView]:
    """Which versions should answer customers, and each one's share."""
    return read(path("models", model, "traffic"), TrafficView)


def set_traffic(
    model: str, shares: Mapping[str, float], *, revision: int, reason: str, key: str | None = None
) -> Call[TrafficView]:
    """Split traffic by hand: version -> percent, in steps of 0.01, 100 in all. Nothing: all back to Production.

    `revision` is that of the `TrafficView` the split is meant to replace.

    Raises:
        StaleRevision: the traffic has changed since that view was read.
    """
    arms = [{"version": version, "percent": percent} for version, percent in shares.items()]
    return write(
        "PUT",
        path("models", model, "traffic"),
        TrafficView,
        _body(TrafficSpec, arms=arms, reason=reason),
        key=key,
        match=f'"{revision}"',
    )


def retrain(
    model: str, *, reason: str, seed: int | None = None, data: str | None = None, key: str | None = None
) -> Call[JobView]:
    """Train a new version on the worker's host. `data`: a path there; None: the model's own source."""
    return write(
        "POST",
        path("models", model, "retrain"),
        JobView,
        _body(RetrainSpec, reason=reason, seed=seed, data=data),
        key=key,
    )


def jobs(
    *, model: str | None = None, state: str | None = None, limit: int = 50, cursor: str | None = None
) -> Call[Page[JobView]]:
    """Background jobs, newest first."""
    return read("/jobs", Page[JobView], model=model, state=state, limit=limit, cursor=cursor)


def job(job_id: UUID | str) -> Call[JobView]:
    return read(path("jobs", job_id), JobView)


def job_logs(job_id: UUID | str, *, offset: int = 0) -> Call[JobLogs]:
    """The job's log from `offset`; go on from `next` until `complete`."""
    return read(path("jobs", job_id, "logs"), JobLogs, offset=offset)


def cancel_job(job_id: UUID | str, *, reason: str, key: str | None = None) -> Call[JobView]:
    return write("POST", path("jobs", job_id, "cancel"), JobView, _body(ReasonSpec, reason=reason), key=key)


def outcomes(reported: Sequence[OutcomeSpec], *, key: str | None = None) -> Call[OutcomesAccepted]:
    """Report what really happened, by prediction or by customer."""
    body = [outcome.model_dump(mode="json", exclude_none=True) for outcome in reported]
    return write("POST", "/outcomes", OutcomesAccepted, body, key=key)


def keys(*, limit: int = 200, cursor: str | None = None) -> Call[Page[KeyView]]:
    """API keys, never their secrets."""
    return read("/keys", Page[KeyView], limit=limit, cursor=cursor)


def create_key(
    person: str,
    role: str,
    *,
    reason: str,
    models: Sequence[str] = ("*",),
    scopes: Sequence[str] = (),
    expires_in_s: int | None = None,
    key: str | None = None,
) -> Call[KeyCreated]:
    """A new key for a person (or a product service) in a role. Its `secret` is shown this once."""
    spec = _body(
        KeySpec,
        person=person,
        role=role,
        models=list(models),
        scopes=list(scopes),
        expires_in_s=expires_in_s,
        reason=reason,
    )
    return write("POST", "/keys", KeyCreated, spec, key=key)


def revoke_key(key_id: UUID | str, *, reason: str, key: str | None = None) -> Call[KeyView]:
    return write("POST", path("keys", key_id, "revoke"), KeyView, _body(ReasonSpec, reason=reason), key=key)


def rotate_key(key_id: UUID | str, *, reason: str, key: str | None = None) -> Call[KeyCreated]:
    """A new key in place of an old one."""
    return write("POST", path("keys", key_id, "rotate"), KeyCreated, _body(ReasonSpec, reason=reason), key=key)


def principals() -> Call[Page[PrincipalView]]:
    return read("/principals", Page[PrincipalView])


def audit(
    *, object: str | None = None, action: str | None = None, limit: int = 50, cursor: str | None = None
) -> Call[Page[AuditView]]:
    """Links of the audit chain, newest first."""
    return read("/audit", Page[AuditView], object=object, action=action, limit=limit, cursor=cursor)


def verify_audit() -> Call[AuditVerification]:
    """Walk the whole chain and compare every hash."""
    return read("/audit/verify", AuditVerification)


def _steer(rollout_id: UUID | str, verb: str, reason: str, key: str | None) -> Call[RolloutView]:
    return write("POST", path("rollouts", rollout_id, verb), RolloutView, _body(ReasonSpec, reason=reason), key=key)


def _body(spec: type[BaseModel], **given: object) -> dict[str, object]:
    """The JSON-ready body, checked before it travels. Raises InvalidInput with every reason."""
    try:
        made = spec.model_validate({name: value for name, value in given.items() if value is not None})
    except ValidationError as exc:
        reasons = [f"{'.'.join(map(str, error['loc']))}: {error['msg']}" for error in exc.errors()]
        raise InvalidInput("The request does not fit its schema.", reasons=reasons) from exc
    return made.model_dump(mode="json", exclude_none=True, exclude_unset=True)
