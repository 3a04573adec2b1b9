"""The admin clients. Both hold the same calls; one returns their answers, the other awaits them."""

import asyncio
import inspect
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar, get_args
from uuid import UUID

import httpx

from control_plane.contracts.rollouts import RolloutView
from control_plane.domain.rollouts import TERMINAL, Phase
from control_plane.errors import Conflict, DeadlineExceeded
from control_plane.sdk import admin, config
from control_plane.sdk.transport import AsyncTransport, Call, Patience, SyncTransport

P = ParamSpec("P")
T = TypeVar("T")
Method = TypeVar("Method", bound=Callable[..., Any])


def _described(method: Method, build: Callable[..., Any]) -> Method:
    """`method` under the name, documentation and parameters of `build`, so that help() and editors show them."""
    given = inspect.signature(build)
    answer = get_args(given.return_annotation)[0]  # the T of Call[T]
    self = inspect.Parameter("self", inspect.Parameter.POSITIONAL_ONLY)
    method.__name__, method.__doc__ = build.__name__, build.__doc__
    method.__signature__ = given.replace(parameters=[self, *given.parameters.values()], return_annotation=answer)  # type: ignore[attr-defined]
    return method


def _method(build: Callable[P, Call[T]]) -> "Callable[Concatenate[ControlPlane, P], T]":
    def method(self: "ControlPlane", /, *args: P.args, **kwargs: P.kwargs) -> T:
        return self.send(build(*args, **kwargs))

    return _described(method, build)


def _coroutine(build: Callable[P, Call[T]]) -> "Callable[Concatenate[AsyncControlPlane, P], Coroutine[Any, Any, T]]":
    async def method(self: "AsyncControlPlane", /, *args: P.args, **kwargs: P.kwargs) -> T:
        return await self.send(build(*args, **kwargs))

    return _described(method, build)


class ControlPlane(SyncTransport):
    """The control plane, for scripts and notebooks.

        with ControlPlane() as cp:
            rollout = cp.promote("churn", "2", reason="better on the hold-out")
            cp.wait_rollout(rollout.id, timeout_s=60)

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
    ) -> None:
        base, secret = _where(url, key, home)
        super().__init__(base, secret, timeout_s=timeout_s, patience=patience, transport=transport)

    health = _method(admin.health)
    models = _method(admin.models)
    model = _method(admin.model)
    versions = _method(admin.versions)
    version = _method(admin.version)
    timeline = _method(admin.timeline)
    performance = _method(admin.performance)
    prediction = _method(admin.prediction)
    promote = _method(admin.promote)
    set_stage = _method(admin.set_stage)
    rollback = _method(admin.rollback)
    rollouts = _method(admin.rollouts)
    rollout = _method(admin.rollout)
    pause = _method(admin.pause)
    resume = _method(admin.resume)
    abort = _method(admin.abort)
    complete = _method(admin.complete)
    traffic = _method(admin.traffic)
    set_traffic = _method(admin.set_traffic)
    retrain = _method(admin.retrain)
    jobs = _method(admin.jobs)
    job = _method(admin.job)
    job_logs = _method(admin.job_logs)
    cancel_job = _method(admin.cancel_job)
    outcomes = _method(admin.outcomes)
    keys = _method(admin.keys)
    create_key = _method(admin.create_key)
    revoke_key = _method(admin.revoke_key)
    rotate_key = _method(admin.rotate_key)
    principals = _method(admin.principals)
    audit = _method(admin.audit)
    verify_audit = _method(admin.verify_audit)

    def wait_rollout(
        self, rollout_id: UUID | str, *, timeout_s: float = 120.0, poll_s: float = 0.1, aborted: bool = False
    ) -> RolloutView:
        """Return when the rollout is baking or over and every live router answers as it says.

        Raises:
            Conflict: it was aborted, unless `aborted` says that this is what is waited for.
            DeadlineExceeded: not within `timeout_s` seconds; the text says what is still to happen.
        """
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
    ) -> None:
        base, secret = _where(url, key, home)
        super().__init__(base, secret, timeout_s=timeout_s, patience=patience, transport=transport)

    health = _coroutine(admin.health)
    models = _coroutine(admin.models)
    model = _coroutine(admin.model)
    versions = _coroutine(admin.versions)
    version = _coroutine(admin.version)
    timeline = _coroutine(admin.timeline)
    performance = _coroutine(admin.performance)
    prediction = _coroutine(admin.prediction)
    promote = _coroutine(admin.promote)
    set_stage = _coroutine(admin.set_stage)
    rollback = _coroutine(admin.rollback)
    rollouts = _coroutine(admin.rollouts)
    rollout = _coroutine(admin.rollout)
    pause = _coroutine(admin.pause)
    resume = _coroutine(admin.resume)
    abort = _coroutine(admin.abort)
    complete = _coroutine(admin.complete)
    traffic = _coroutine(admin.traffic)
    set_traffic = _coroutine(admin.set_traffic)
    retrain = _coroutine(admin.retrain)
    jobs = _coroutine(admin.jobs)
    job = _coroutine(admin.job)
    job_logs = _coroutine(admin.job_logs)
    cancel_job = _coroutine(admin.cancel_job)
    outcomes = _coroutine(admin.outcomes)
    keys = _coroutine(admin.keys)
    create_key = _coroutine(admin.create_key)
    revoke_key = _coroutine(admin.revoke_key)
    rotate_key = _coroutine(admin.rotate_key)
    principals = _coroutine(admin.principals)
    audit = _coroutine(admin.audit)
    verify_audit = _coroutine(admin.verify_audit)

    async def wait_rollout(
        self, rollout_id: UUID | str, *, timeout_s: float = 120.0, poll_s: float = 0.1, aborted: bool = False
    ) -> RolloutView:
        """As `ControlPlane.wait_rollout`."""
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
