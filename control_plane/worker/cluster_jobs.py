"""A training as a Job of the cluster: a copy of the suspended CronJob `trainer`, whose image and size are its own.

The Job outlives the worker: the next one finds it by its name, which is the job's, and reads its log from the start.
"""

import asyncio
import os
import time
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, cast
from uuid import UUID

import structlog

from control_plane.adapters import kubeconfig, kubernetes
from control_plane.adapters.kubernetes import Cluster, Object, pause
from control_plane.adapters.kubernetes_events import troubles
from control_plane.errors import ClusterUnavailable, InvalidInput, NotFound
from control_plane.settings import WorkerSettings
from control_plane.worker import subprocesses

PATTERN: Final = "trainer"  # the CronJob to copy, and its container
_LOOK_S: Final = 1.0
_KEPT_S: Final = 86_400  # a finished Job and its log
_STARTS_WITHIN_S: Final = 900.0

log = structlog.get_logger()


@dataclass(slots=True)
class ClusterRun:
    cluster: Cluster
    name: str
    log: Path
    timeout_s: int
    _read: int = field(default=0)  # lines of the log, over all connections

    async def lines(self) -> AsyncGenerator[Mapping[str, Any]]:
        pod, failures, begun = await self._pod(), 0, time.monotonic()
        self.log.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with self.log.open("a") as file:
            while time.monotonic() - begun < self.timeout_s:
                try:
                    async for line in self._unread(pod):
                        file.write(f"{line}\n")
                        file.flush()
                        if (said := subprocesses.told(line)) is not None:
                            yield said
                except ClusterUnavailable as exc:
                    failures += 1
                    log.warning("a training's log was cut", job=self.name, why=exc.detail)
                    await asyncio.sleep(pause(failures))
                    continue
                if _ended(await self._job()) is not None or not await self._runs(pod):
                    return
                await asyncio.sleep(_LOOK_S)  # the server ended the log, not the training

    async def _unread(self, pod: str) -> AsyncGenerator[str]:
        number = 0
        async for line in self.cluster.log_lines(pod, PATTERN):
            number += 1
            if number > self._read:
                self._read = number
                yield line

    async def stop(self) -> None:
        await self.cluster.delete(kubernetes.JOB, self.name)

    async def wait(self) -> int:
        begun = time.monotonic()
        while time.monotonic() - begun < self.timeout_s:
            job = await self._job()
            if job is None:
                return 143  # removed: by `stop`, or by hand
            match _ended(job):
                case True:
                    return 0
                case False:
                    return 1
                case None:
                    await asyncio.sleep(_LOOK_S)
        return 124

    async def _job(self) -> Object | None:
        return await self.cluster.get(kubernetes.JOB, self.name)

    async def _pod(self) -> str:
        """The pod, once its container has started. Raises ClusterUnavailable with the cluster's own words if it does
        not."""
        begun, labels = time.monotonic(), f"batch.kubernetes.io/job-name={self.name}"
        while True:
            pods, _ = await self.cluster.list(kubernetes.POD, labels=labels)
            for pod in pods:
                if _started(pod):
                    return str(pod["metadata"]["name"])
            if time.monotonic() - begun > _STARTS_WITHIN_S or _ended(await self._job()) is False:
                why = await troubles(self.cluster, self.name, labels)
                raise ClusterUnavailable(f"The Job {self.name} does not start: {why or 'the cluster does not say why'}")
            await asyncio.sleep(_LOOK_S)

    async def _runs(self, pod: str) -> bool:
        found = await self.cluster.get(kubernetes.POD, pod)
        return found is not None and found.get("status", {}).get("phase") in {"Pending", "Running"}


def _started(pod: Object) -> bool:
    states = [cast(Object, entry.get("state") or {}) for entry in _entries(pod, "containerStatuses")]
    return any("running" in state or "terminated" in state for state in states)


def _ended(job: Object | None) -> bool | None:
    """True: well, False: not well, None: it has not."""
    for condition in _entries(job or {}, "conditions"):
        if condition.get("status") == "True" and condition["type"] in {"Complete", "Failed"}:
            return str(condition["type"]) == "Complete"
    return None


def _entries(found: Object, member: str) -> list[Object]:
    return cast("list[Object]", cast(Object, found.get("status") or {}).get(member) or [])


@asynccontextmanager
async def started(
    settings: WorkerSettings, job_id: UUID, model: str, arguments: Sequence[str], *, log: Path, timeout_s: int
) -> AsyncGenerator[ClusterRun]:
    """See to it that the Job is there. On leaving it goes on, unless it was stopped: it belongs to no worker."""
    cluster = Cluster(kubeconfig.access(os.environ), settings.kubernetes_namespace)
    try:
        pattern = await cluster.get(kubernetes.CRON_JOB, PATTERN)
        if pattern is None:
            raise InvalidInput(f"The namespace {cluster.namespace} has no CronJob {PATTERN} to copy: see infra/k8s.")
        manifest = job_of(pattern, job_id, model, arguments, settings.mlflow_url, timeout_s)
        name = str(manifest["metadata"]["name"])
        if await cluster.get(kubernetes.JOB, name) is None:
            await cluster.apply(kubernetes.JOB, manifest)
        yield ClusterRun(cluster, name, log, timeout_s)
    except NotFound as exc:
        raise ClusterUnavailable(f"The Job of {model} was removed while it ran: {exc.detail}") from exc
    finally:
        await cluster.aclose()


def job_of(
    pattern: Object, job_id: UUID, model: str, arguments: Sequence[str], mlflow_url: str, timeout_s: int
) -> dict[str, Any]:
    """Pure."""
    dns, template = model.replace("_", "-").rstrip("-"), deepcopy(pattern["spec"]["jobTemplate"]["spec"]["template"])
    labels = {"app": dns, "component": "ml-platform", "app.kubernetes.io/component": "trainer"}
    labels |= {"app.kubernetes.io/managed-by": "mlcp", "mlcp.io/job": str(job_id)}
    pods = template.setdefault("metadata", {})
    pods["labels"] = {**(pods.get("labels") or {}), **labels}
    pods.pop("creationTimestamp", None)
    containers = [entry for entry in template["spec"]["containers"] if entry["name"] == PATTERN]
    if not containers:
        raise InvalidInput(f"The CronJob {PATTERN} has no container {PATTERN}.")
    containers[0]["args"] = list(arguments)
    told = {"MLFLOW_TRACKING_URI": mlflow_url, "MLCP_MLFLOW_URL": mlflow_url}
    kept = [entry for entry in containers[0].get("env") or () if entry["name"] not in told]
    containers[0]["env"] = [*kept, *({"name": key, "value": value} for key, value in told.items())]
    return {
        "metadata": {"name": f"train-{dns[:40]}-{job_id.hex[-8:]}", "labels": labels},
        "spec": {
            "backoffLimit": 0,  # a training that fails fails again: the job says why
            "activeDeadlineSeconds": timeout_s,
            "ttlSecondsAfterFinished": _KEPT_S,
            "template": template,
        },
    }
