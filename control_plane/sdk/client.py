"""The admin clients. Both hold the same calls; one returns their answers, the other awaits them."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import UUID

import httpx

from control_plane.domain.rollouts import TERMINAL, Phase
from control_plane.errors import Conflict, DeadlineExceeded
from control_plane.sdk import admin, config
from control_plane.sdk.binding import async_download, coroutine, download, method
from control_plane.sdk.transport import AsyncTransport, Patience, SyncTransport

if TYPE_CHECKING:
    from control_plane.sdk.answers import RolloutView


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
    rollout = method(admin.rollout)
    pause = method(admin.pause)
    resume = method(admin.resume)
    abort = method(admin.abort)
    complete = method(admin.complete)
    traffic = method(admin.traffic)
    set_traffic = method(admin.set_traffic)
    retrain = method(admin.retrain)
    jobs = method(admin.jobs)
    job = method(admin.job)
    job_logs = method(admin.job_logs)
    cancel_job = method(admin.cancel_job)
    erase = method(admin.erase)
    outcomes = method(admin.outcomes)
    keys = method(admin.keys)
    create_key = method(admin.create_key)
    revoke_key = method(admin.revoke_key)
    rotate_key = method(admin.rotate_key)
    principals = method(admin.principals)
    audit = method(admin.audit)
    verify_audit = method(admin.verify_audit)
    export_audit = download(admin.export_audit)

    def wait_rollout(
        self, rollout: RolloutView | UUID | str, *, timeout_s: float = 120.0, poll_s: float = 0.1
    ) -> RolloutView:
        """Return when the rollout is baking or over and every live router answers as it says.

        `rollout`: its id, or the answer to what was asked for. A rollback of an open rollout answers with that rollout
        aborted, which then is what is waited for.

        Raises:
            Conflict: it was aborted while it was waited for.
            DeadlineExceeded: not within `timeout_s` seconds; the text says what is still to happen.
        """
        rollout_id, aborted = _waited_for(rollout)
        deadline = time.monotonic() + timeout_s
        while not settled(seen := self.rollout(rollout_id), aborted=aborted):
            if time.monotonic() > deadline:
                raise _too_late(seen, timeout_s)
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
    rollout = coroutine(admin.rollout)
    pause = coroutine(admin.pause)
    resume = coroutine(admin.resume)
    abort = coroutine(admin.abort)
    complete = coroutine(admin.complete)
    traffic = coroutine(admin.traffic)
    set_traffic = coroutine(admin.set_traffic)
    retrain = coroutine(admin.retrain)
    jobs = coroutine(admin.jobs)
    job = coroutine(admin.job)
    job_logs = coroutine(admin.job_logs)
    cancel_job = coroutine(admin.cancel_job)
    erase = coroutine(admin.erase)
    outcomes = coroutine(admin.outcomes)
    keys = coroutine(admin.keys)
    create_key = coroutine(admin.create_key)
    revoke_key = coroutine(admin.revoke_key)
    rotate_key = coroutine(admin.rotate_key)
    principals = coroutine(admin.principals)
    audit = coroutine(admin.audit)
    verify_audit = coroutine(admin.verify_audit)
    export_audit = async_download(admin.export_audit)

    async def wait_rollout(
        self, rollout: RolloutView | UUID | str, *, timeout_s: float = 120.0, poll_s: float = 0.1
    ) -> RolloutView:
        """As `ControlPlane.wait_rollout`."""
        rollout_id, aborted = _waited_for(rollout)
        deadline = time.monotonic() + timeout_s
        while not settled(seen := await self.rollout(rollout_id), aborted=aborted):
            if time.monotonic() > deadline:
                raise _too_late(seen, timeout_s)
            await asyncio.sleep(poll_s)
        return seen


def settled(rollout: RolloutView, *, aborted: bool) -> bool:
    """Whether there is nothing left to wait for. Raises Conflict for one that was aborted unless that is wanted."""
    if rollout.phase is Phase.ABORTED and not aborted:
        raise Conflict(
            f"The rollout of version {rollout.candidate_version} of {rollout.model} was aborted: {rollout.reason}",
            rollout_id=str(rollout.id),
        )
    return rollout.applied and (rollout.phase is Phase.BAKING or rollout.phase in TERMINAL)


def _waited_for(rollout: RolloutView | UUID | str) -> tuple[UUID | str, bool]:
    """Its id, and whether its abort is what is waited for."""
    if isinstance(rollout, UUID | str):
        return rollout, False
    return rollout.id, rollout.phase is Phase.ABORTED


def _too_late(rollout: RolloutView, timeout_s: float) -> DeadlineExceeded:
    waiting = rollout.waiting_for or rollout.reason
    return DeadlineExceeded(
        f"Rollout {rollout.id} of {rollout.model} is {rollout.phase} after {timeout_s:g} s: {waiting}",
        rollout_id=str(rollout.id),
    )


def _where(url: str | None, key: str | None, home: str | Path | None) -> tuple[str, str]:
    folder = config.home(home)
    base = config.api_url(url, folder=folder) + "/api/v1"
    return base, config.key(key, variable="MLCP_API_KEY", folder=folder, name="admin")
