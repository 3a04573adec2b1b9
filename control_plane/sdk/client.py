"""The admin clients. Both hold the same calls; one returns their answers, the other awaits them."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import UUID

import httpx

from control_plane.sdk import admin, config, governed
from control_plane.sdk.binding import async_download, coroutine, download, method
from control_plane.sdk.transport import AsyncTransport, Patience, SyncTransport

if TYPE_CHECKING:
    from control_plane.sdk.answers import ApprovalView, RolloutView


class ControlPlane(SyncTransport):
    """The control plane, for scripts and notebooks.

        with ControlPlane() as cp:
            rollout = cp.promote("churn", "2", reason="better on the hold-out")
            cp.wait_rollout(rollout, timeout_s=60)

    Left out, `url` and `key` come from MLCP_API_URL and MLCP_API_KEY, else from `home` (MLCP_HOME, default `var`).
    What the server refuses is raised as an error of `control_plane.errors`, by its slug, with `extra["reasons"]`.
    """

    def __init__(
        self,
        url: str | None = None,
        key: str | None = None,
        *,
        home: str | Path | None = None,
        timeout_s: float = 30.0,
        patience: Patience = Patience(),  # noqa: B008  (frozen)
        transport: httpx.BaseTransport | None = None,
        program: str = "sdk",
    ) -> None:
        base, secret = _where(url, key, home)
        super().__init__(base, secret, timeout_s=timeout_s, patience=patience, transport=transport, program=program)

    health = method(admin.health)
    models = method(admin.models)
    model = method(admin.model)
    versions = method(admin.versions)
    version = method(admin.version)
    timeline = method(admin.timeline)
    importances = method(admin.importances)
    performance = method(admin.performance)
    drift = method(admin.drift)
    prediction = method(admin.prediction)
    plan = method(admin.plan)
    promote = method(admin.promote)
    set_stage = method(admin.set_stage)
    rollback = method(admin.rollback)
    rollouts = method(admin.rollouts)
    ab_tests = method(admin.ab_tests)
    ab_test = method(admin.ab_test)
    rollout = method(admin.rollout)
    pause = method(admin.pause)
    resume = method(admin.resume)
    abort = method(admin.abort)
    skip = method(admin.skip)
    complete = method(admin.complete)
    traffic = method(admin.traffic)
    set_traffic = method(admin.set_traffic)
    retrain = method(admin.retrain)
    replay = method(admin.replay)
    replays = method(admin.replays)
    replayed = method(admin.replayed)
    jobs = method(admin.jobs)
    job = method(admin.job)
    job_logs = method(admin.job_logs)
    cancel_job = method(admin.cancel_job)
    approvals = method(governed.approvals)
    approval = method(governed.approval)
    approve = method(governed.approve)
    reject = method(governed.reject)
    withdraw = method(governed.withdraw)
    policies = method(governed.policies)
    policy = method(governed.policy)
    apply_policy = method(governed.apply_policy)
    plan_policy = method(governed.plan_policy)
    halt = method(governed.halt)
    resume_policies = method(governed.resume_policies)
    try_signal = method(governed.try_signal)
    decisions = method(governed.decisions)
    erase = method(admin.erase)
    outcomes = method(admin.outcomes)
    keys = method(governed.keys)
    create_key = method(governed.create_key)
    revoke_key = method(governed.revoke_key)
    rotate_key = method(governed.rotate_key)
    principals = method(governed.principals)
    audit = method(governed.audit)
    verify_audit = method(governed.verify_audit)
    export_audit = download(governed.export_audit)
    reports = method(governed.reports)
    report = method(governed.report)
    make_report = method(governed.make_report)
    report_schema = method(governed.report_schema)
    notifications = method(governed.notifications)
    try_notification = method(governed.try_notification)
    report_json = download(governed.report_json)
    report_pdf = download(governed.report_pdf)

    def wait_rollout(
        self, rollout: RolloutView | ApprovalView | UUID | str, *, timeout_s: float = 120.0, poll_s: float = 0.1
    ) -> RolloutView:
        """Return when the rollout is baking or over and every live router answers as it says.

        `rollout`: its id, or the answer to what was asked for. A rollback of an open rollout answers with that rollout
        aborted, which then is what is waited for. An approval is waited for, and then its rollout.

        Raises:
            Conflict: it was aborted, rejected or withdrawn while it was waited for.
            DeadlineExceeded: not within `timeout_s` seconds; the text says what is still to happen.
        """
        from control_plane.sdk import waiting  # and with it the models of its answers

        deadline = time.monotonic() + timeout_s
        while (approval := waiting.pending(rollout)) is not None:
            if time.monotonic() > deadline:
                raise waiting.not_approved(approval, timeout_s)
            time.sleep(poll_s)
            rollout = self.approval(approval.id)
        rollout_id, aborted = waiting.subject(rollout)
        while not waiting.settled(seen := self.rollout(rollout_id), aborted=aborted):
            if time.monotonic() > deadline:
                raise waiting.too_late(seen, timeout_s)
            time.sleep(poll_s)
        return seen


class AsyncControlPlane(AsyncTransport):
    """`ControlPlane` for asyncio: the same calls, awaited."""

    def __init__(
        self,
        url: str | None = None,
        key: str | None = None,
        *,
        home: str | Path | None = None,
        timeout_s: float = 30.0,
        patience: Patience = Patience(),  # noqa: B008  (frozen)
        transport: httpx.AsyncBaseTransport | None = None,
        program: str = "sdk",
    ) -> None:
        base, secret = _where(url, key, home)
        super().__init__(base, secret, timeout_s=timeout_s, patience=patience, transport=transport, program=program)

    health = coroutine(admin.health)
    models = coroutine(admin.models)
    model = coroutine(admin.model)
    versions = coroutine(admin.versions)
    version = coroutine(admin.version)
    timeline = coroutine(admin.timeline)
    importances = coroutine(admin.importances)
    performance = coroutine(admin.performance)
    drift = coroutine(admin.drift)
    prediction = coroutine(admin.prediction)
    plan = coroutine(admin.plan)
    promote = coroutine(admin.promote)
    set_stage = coroutine(admin.set_stage)
    rollback = coroutine(admin.rollback)
    rollouts = coroutine(admin.rollouts)
    ab_tests = coroutine(admin.ab_tests)
    ab_test = coroutine(admin.ab_test)
    rollout = coroutine(admin.rollout)
    pause = coroutine(admin.pause)
    resume = coroutine(admin.resume)
    abort = coroutine(admin.abort)
    skip = coroutine(admin.skip)
    complete = coroutine(admin.complete)
    traffic = coroutine(admin.traffic)
    set_traffic = coroutine(admin.set_traffic)
    retrain = coroutine(admin.retrain)
    replay = coroutine(admin.replay)
    replays = coroutine(admin.replays)
    replayed = coroutine(admin.replayed)
    jobs = coroutine(admin.jobs)
    job = coroutine(admin.job)
    job_logs = coroutine(admin.job_logs)
    cancel_job = coroutine(admin.cancel_job)
    approvals = coroutine(governed.approvals)
    approval = coroutine(governed.approval)
    approve = coroutine(governed.approve)
    reject = coroutine(governed.reject)
    withdraw = coroutine(governed.withdraw)
    policies = coroutine(governed.policies)
    policy = coroutine(governed.policy)
    apply_policy = coroutine(governed.apply_policy)
    plan_policy = coroutine(governed.plan_policy)
    halt = coroutine(governed.halt)
    resume_policies = coroutine(governed.resume_policies)
    try_signal = coroutine(governed.try_signal)
    decisions = coroutine(governed.decisions)
    erase = coroutine(admin.erase)
    outcomes = coroutine(admin.outcomes)
    keys = coroutine(governed.keys)
    create_key = coroutine(governed.create_key)
    revoke_key = coroutine(governed.revoke_key)
    rotate_key = coroutine(governed.rotate_key)
    principals = coroutine(governed.principals)
    audit = coroutine(governed.audit)
    verify_audit = coroutine(governed.verify_audit)
    export_audit = async_download(governed.export_audit)
    reports = coroutine(governed.reports)
    report = coroutine(governed.report)
    make_report = coroutine(governed.make_report)
    report_schema = coroutine(governed.report_schema)
    notifications = coroutine(governed.notifications)
    try_notification = coroutine(governed.try_notification)
    report_json = async_download(governed.report_json)
    report_pdf = async_download(governed.report_pdf)

    async def wait_rollout(
        self, rollout: RolloutView | ApprovalView | UUID | str, *, timeout_s: float = 120.0, poll_s: float = 0.1
    ) -> RolloutView:
        """As `ControlPlane.wait_rollout`."""
        from control_plane.sdk import waiting  # and with it the models of its answers

        deadline = time.monotonic() + timeout_s
        while (approval := waiting.pending(rollout)) is not None:
            if time.monotonic() > deadline:
                raise waiting.not_approved(approval, timeout_s)
            await asyncio.sleep(poll_s)
            rollout = await self.approval(approval.id)
        rollout_id, aborted = waiting.subject(rollout)
        while not waiting.settled(seen := await self.rollout(rollout_id), aborted=aborted):
            if time.monotonic() > deadline:
                raise waiting.too_late(seen, timeout_s)
            await asyncio.sleep(poll_s)
        return seen


def _where(url: str | None, key: str | None, home: str | Path | None) -> tuple[str, str]:
    folder = config.home(home)
    base = config.api_url(url, folder=folder) + "/api/v1"
    return base, config.key(key, variable="MLCP_API_KEY", folder=folder, name="admin")
