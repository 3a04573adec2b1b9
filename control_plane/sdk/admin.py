"""The calls of the admin API on models, releases, jobs and what was logged: pure functions from arguments to a `Call`;
those that govern them are in `governed`. Both clients are made of these.

`reason` is kept in the audit. `key` is the Idempotency-Key, made for you when left out: give one of your own to make
a change safe to ask for again after your own process has died. The server checks what is sent and answers with every
reason at once; nothing is checked twice here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any
from uuid import UUID

from control_plane.sdk.transport import Call, body, path, read, write

if TYPE_CHECKING:  # `binding` resolves these from `answers` when an answer is there to be read
    from control_plane.sdk.answers import (
        AbTestView,
        ApprovalView,
        DriftView,
        ExperimentView,
        HealthView,
        ImportancesView,
        JobLogs,
        JobView,
        ModelView,
        OutcomesAccepted,
        OutcomeSpec,
        Page,
        PerformanceView,
        PlanView,
        PredictionView,
        ReplayView,
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
    targeting: Mapping[str, object] | None = None,
    replay: Mapping[str, object] | None = None,
    key: str | None = None,
) -> Call[RolloutView | ApprovalView]:
    """Make a version Production; None: the newest whose gates let it. What is left out comes from its model.yaml.

    `steps`: (percent of traffic, shortest seconds there) each; `bake_s`: how long the old version stays warm;
    `analysis`: what decides the steps, as under `rollout` in model.yaml; `by_hand`: nothing does, `skip`
    and `complete` have to; blue/green is previewed until then; `targeting`: units that get the candidate first
    (`allow`) or never (`exclude`), the slice of a `layer`.
    `replay`: what a replay has to show before it starts, instead of the gate in model.yaml.

    Returns as soon as the wish is stored and audited; `wait_rollout` waits until every router answers so. Where the
    policy in force asks for an approval, that is what is returned, and `wait_rollout` waits for it too.

    Raises:
        GatesNotMet: `extra["reasons"]` names every gate that does not let it.
        RolloutOpen: another rollout of the model is on its way.
        InvalidInput: the plan cannot be carried out, or would not decide in time; `extra["reasons"]` says why.
    """
    spec = _plan(version, strategy, steps, bake_s, analysis, by_hand, failure_limit, targeting) | body(replay=replay)
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
    targeting: Mapping[str, object] | None = None,
    replay: Mapping[str, object] | None = None,
) -> Call[PlanView]:
    """What `promote` would do with the same arguments, how long it would take, and everything in its way."""
    spec = _plan(version, strategy, steps, bake_s, analysis, by_hand, failure_limit, targeting) | body(replay=replay)
    return Call("POST", path("models", model, "plan"), body=spec)


def set_stage(
    model: str, version: str | None = None, *, stage: str, reason: str, key: str | None = None
) -> Call[StageChangeView | ApprovalView]:
    """Move a version to `staging`, `archived` or `development`, where it answers no customer."""
    spec = body(version=version, reason=reason)
    return write("POST", path("models", model, "promote", stage.lower()), spec, key=key)


def rollback(model: str, *, reason: str, key: str | None = None) -> Call[RolloutView | ApprovalView]:
    """Abort the open rollout; with none open, make the previous Production version Production again.

    A person's at once. A program's may wait for an approval, by the policy in force.
    """
    return write("POST", path("models", model, "rollback"), body(reason=reason), key=key)


def rollouts(
    *, model: str | None = None, open: bool | None = None, limit: int = 50, cursor: str | None = None
) -> Call[Page[RolloutView]]:
    """Rollouts, newest first."""
    return read("/rollouts", model=model, open=open, limit=limit, cursor=cursor)


def rollout(rollout_id: UUID | str) -> Call[RolloutView]:
    """One rollout with the analyses that were kept of it, oldest first."""
    return read(path("rollouts", rollout_id))


def ab_tests(*, model: str | None = None, limit: int = 50, cursor: str | None = None) -> Call[Page[ExperimentView]]:
    """Rollouts that compare two versions on customers' traffic, newest first."""
    return read("/ab-tests", model=model, limit=limit, cursor=cursor)


def ab_test(rollout_id: UUID | str) -> Call[AbTestView]:
    """What decides a test, and beside it a test of one look, and how probable it is that the candidate is better."""
    return read(path("ab-tests", rollout_id))


def pause(rollout_id: UUID | str, *, reason: str, key: str | None = None) -> Call[RolloutView | ApprovalView]:
    """Hold the weights as they are."""
    return _steer(rollout_id, "pause", reason, key)


def resume(rollout_id: UUID | str, *, reason: str, key: str | None = None) -> Call[RolloutView]:
    """Go on where it was paused; hold and bake begin anew."""
    return _steer(rollout_id, "resume", reason, key)


def abort(rollout_id: UUID | str, *, reason: str, key: str | None = None) -> Call[RolloutView | ApprovalView]:
    """Give all traffic back to the stable version."""
    return _steer(rollout_id, "abort", reason, key)


def skip(rollout_id: UUID | str, *, reason: str, key: str | None = None) -> Call[RolloutView | ApprovalView]:
    """Go on to the next step now, whatever was measured; from the last one as `complete`."""
    return _steer(rollout_id, "skip", reason, key)


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
    spec = body(arms=arms, reason=reason)
    return write("PUT", path("models", model, "traffic"), spec, key=key, match=f'"{revision}"')


def retrain(
    model: str,
    *,
    reason: str,
    source: str | None = None,
    since: datetime | None = None,
    rows: int | None = None,
    seed: int | None = None,
    data: str | None = None,
    key: str | None = None,
) -> Call[JobView | ApprovalView]:
    """Train a new version on the worker's host, and put it into Staging if it is better than Production.

    `source`: archive (the prediction log with its outcomes, not older than `since`, the newest `rows` of it), file
    (`data`: a path there) or simulated; None: file where `data` is given, else archive.
    """
    when = None if since is None else since.isoformat()
    spec = body(reason=reason, source=source, since=when, rows=rows, seed=seed, data=data)
    return write("POST", path("models", model, "retrain"), spec, key=key)


def replay(
    model: str,
    candidate: str,
    *,
    since: datetime | str = "7d",
    until: datetime | None = None,
    baseline: str | None = None,
    sample: float | None = None,
    segment: str | None = None,
    anew: bool | None = None,
    reason: str | None = None,
    key: str | None = None,
) -> Call[ReplayView]:
    """Run a candidate over logged traffic in the background: what would have changed. `replayed` tells when it is done.

    `since`: an aware time, or how long before `until` (now) such as 30d; `baseline`: the version to compare with, None:
    Production; `sample`: share of the customers; `segment`: a feature to tell apart by; `anew`: also where the same
    question has been answered.
    """
    begin, end = (at.isoformat() if isinstance(at, datetime) else at for at in (since, until))
    spec = body(candidate=candidate, since=begin, until=end, baseline=baseline, sample=sample)
    spec |= body(segment=segment, anew=anew, reason=reason)
    return write("POST", path("models", model, "replay"), spec, key=key)


def replays(model: str, *, limit: int = 50, cursor: str | None = None) -> Call[Page[ReplayView]]:
    """Replays of a model, newest first, without their reports."""
    return read(path("models", model, "replays"), limit=limit, cursor=cursor)


def replayed(model: str, replay: UUID | str) -> Call[ReplayView]:
    """One replay with its report."""
    return read(path("models", model, "replays", replay))


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
    return write("POST", path("jobs", job_id, "cancel"), body(reason=reason), key=key)


def outcomes(reported: Sequence[OutcomeSpec], *, key: str | None = None) -> Call[OutcomesAccepted]:
    """Report what really happened, by prediction or by customer."""
    items = [outcome.model_dump(mode="json", exclude_none=True) for outcome in reported]
    return write("POST", "/outcomes", items, key=key)


def erase(unit_id: str, *, reason: str, key: str | None = None) -> Call[JobView]:
    """Forget a unit: what names or describes it in the log and the archive. The job's `result` counts what it was."""
    return write("POST", "/erasures", body(unit_id=unit_id, reason=reason), key=key)


def _steer(rollout_id: UUID | str, verb: str, reason: str, key: str | None) -> Call[Any]:
    return write("POST", path("rollouts", rollout_id, verb), body(reason=reason), key=key)


def _plan(
    version: str | None,
    strategy: str | None,
    steps: Sequence[tuple[float, float]] | None,
    bake_s: float | None,
    analysis: Mapping[str, object] | None,
    by_hand: bool | None,
    failure_limit: int | None,
    targeting: Mapping[str, object] | None,
) -> dict[str, object]:
    ramp = None if steps is None else [{"weight": weight, "hold_s": hold_s} for weight, hold_s in steps]
    return body(
        version=version, strategy=strategy, steps=ramp, bake_s=bake_s, analysis=analysis, by_hand=by_hand,
        failure_limit=failure_limit, targeting=targeting,
    )  # fmt: skip
