"""An emulated Kubernetes API server, over real HTTP, in this process.

It does what the deployer relies on and refuses what a real one refuses: server-side apply with field ownership and
optimistic locking, strict schemas, label selectors, watches with versions that expire, the scale subresource,
preconditions of deletion, a token. Its controllers start and stop pods after `starts_s` and `drains_s`. Failures are
injected: `fail` answers the next calls, `cut_watches` breaks connections.
"""

import asyncio
import copy
import functools
import itertools
import json
import re
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from unittest import mock
from uuid import uuid4

import kubernetes_validate
import uvicorn
import yaml
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

TOKEN = "cluster-token"
_schema = functools.cache(kubernetes_validate.utils.schema_contents)
_KINDS = {
    "deployments": ("apps/v1", "Deployment"),
    "services": ("v1", "Service"),
    "configmaps": ("v1", "ConfigMap"),
    "pods": ("v1", "Pod"),
    "events": ("v1", "Event"),
    "cronjobs": ("batch/v1", "CronJob"),
    "jobs": ("batch/v1", "Job"),
    "horizontalpodautoscalers": ("autoscaling/v2", "HorizontalPodAutoscaler"),
    "poddisruptionbudgets": ("policy/v1", "PodDisruptionBudget"),
}
Object = dict[str, Any]


def strictly(document: "Object", version: str) -> None:
    """Raises kubernetes_validate.ValidationError: also for members Kubernetes does not know."""
    with mock.patch.object(kubernetes_validate.utils, "schema_contents", _schema):  # it reads megabytes each time
        kubernetes_validate.validate(document, version, strict=True)


@dataclass
class ClusterState:
    """The cluster's content, its manners, and what was asked of it."""

    starts_s: float = 0.0  # a pod is ready so long after it was made
    drains_s: float = 0.0  # and gone so long after it was told to end
    never_ready: bool = False
    pod_status: Object | None = None  # of pods that are not ready
    objects: dict[tuple[str, str], Object] = field(default_factory=dict)
    owners: dict[tuple[str, str], dict[tuple[str, ...], str]] = field(default_factory=dict)
    calls: list[tuple[float, str, str]] = field(default_factory=list)  # when (monotonic), method, path
    failures: list[tuple[str, int, dict[str, str]]] = field(default_factory=list)  # method, status, headers
    logs: dict[str, list[str]] = field(default_factory=dict)  # of a pod; "*": of every job's
    job_exit: int = 0
    jobs_hold: bool = False  # a job goes on until this is over, or it is deleted
    before_write: Callable[[str, str], None] | None = None  # (plural, name): somebody else is first
    _version: Any = field(default_factory=lambda: itertools.count(1))
    _events: list[tuple[int, str, str, Object]] = field(default_factory=list)
    _oldest: int = 0
    _changed: asyncio.Event = field(default_factory=asyncio.Event)
    _cuts: int = 0

    def fail(self, method: str, status: int, times: int = 1, **headers: str) -> None:
        self.failures += [(method, status, {name.replace("_", "-"): value for name, value in headers.items()})] * times

    def cut_watches(self) -> None:
        """Every watch under way loses its connection."""
        self._cuts += 1
        self._stir()

    def expire(self) -> None:
        """What watches could go on from is forgotten: 410."""
        self._oldest = next(self._version)
        self.cut_watches()

    def put(self, plural: str, document: Object) -> Object:
        """As a controller or a person with kubectl would."""
        name = document["metadata"]["name"]
        self._store("MODIFIED" if (plural, name) in self.objects else "ADDED", plural, name, document)
        return self.objects[plural, name]

    def remove(self, plural: str, name: str) -> None:
        found = self.objects.pop((plural, name), None)
        self.owners.pop((plural, name), None)
        if found is not None:
            self._tell("DELETED", plural, {**found, "metadata": {**found["metadata"], "resourceVersion": self._next()}})

    def named(self, plural: str) -> list[str]:
        return sorted(name for kind, name in self.objects if kind == plural)

    def count(self, method: str, part: str = "", since: float = 0.0) -> int:
        return sum(1 for at, verb, path in self.calls if verb == method and part in path and at >= since)

    def _next(self) -> str:
        return str(next(self._version))

    def _store(self, event: str, plural: str, name: str, document: Object) -> None:
        api, kind = _KINDS[plural]
        metadata = document.setdefault("metadata", {})
        before = self.objects.get((plural, name), {})
        was = before.get("metadata", {})
        metadata.update(namespace="models", uid=was.get("uid") or str(uuid4()), resourceVersion=self._next())
        changed = before.get("spec") != document.get("spec")
        metadata["generation"] = was.get("generation", 0) + (1 if changed else 0)
        document.update(apiVersion=api, kind=kind)
        self.objects[plural, name] = document
        self._tell(event, plural, document)

    def _tell(self, event: str, plural: str, document: Object) -> None:
        version = int(document["metadata"]["resourceVersion"])
        self._events.append((version, event, plural, copy.deepcopy(document)))
        self._stir()

    def _stir(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    # --- controllers ---

    async def control(self) -> None:
        """Deployments get pods, jobs are carried out; pods come and go in their own time."""
        since: dict[str, float] = {}
        while True:
            await asyncio.sleep(0.01)
            for name in self.named("deployments"):
                self._pods_of(self.objects["deployments", name], since)
            for plural, name in list(self.objects):
                if plural == "pods":
                    self._age(self.objects[plural, name], since)
            for name in self.named("jobs"):
                self._run_job(self.objects["jobs", name])

    def _pods_of(self, deployment: Object, since: dict[str, float]) -> None:
        name, spec = deployment["metadata"]["name"], deployment["spec"]
        if "mlcp.io/deployment" not in (deployment["metadata"].get("labels") or {}):
            return  # a pattern
        pods = {
            pod: entry
            for (plural, pod), entry in self.objects.items()
            if plural == "pods" and entry["metadata"]["labels"].get("of") == name
        }
        living = [pod for pod, entry in pods.items() if not entry["metadata"].get("deletionTimestamp")]
        wanted = spec.get("replicas", 1)
        for _ in range(wanted - len(living)):
            labels = {**spec["template"]["metadata"]["labels"], "of": name}
            pod = f"{name}-{uuid4().hex[:5]}"
            self.put("pods", {"metadata": {"name": pod, "labels": labels}, "status": self.pod_status or {}})
            since[pod] = time.monotonic()
        for pod in living[wanted:]:
            self.objects["pods", pod]["metadata"]["deletionTimestamp"] = "now"
            since[pod] = time.monotonic()
        ready = sum(1 for pod in living if self.objects["pods", pod]["status"].get("phase") == "Running")
        status = {
            "observedGeneration": deployment["metadata"]["generation"],
            "replicas": len(pods),
            "availableReplicas": ready,
            "conditions": copy.deepcopy(deployment.get("status", {}).get("conditions", [])),
        }
        if wanted and ready >= wanted:
            status["conditions"] = [{"type": "Progressing", "status": "True", "reason": "NewReplicaSetAvailable"}]
        if status != deployment.get("status"):
            self.put("deployments", {**deployment, "metadata": dict(deployment["metadata"]), "status": status})

    def _age(self, pod: Object, since: dict[str, float]) -> None:
        name, age = pod["metadata"]["name"], time.monotonic() - since.get(pod["metadata"]["name"], 0.0)
        of, job = (pod["metadata"]["labels"].get(label) for label in ("of", "batch.kubernetes.io/job-name"))
        if job and ("jobs", job) not in self.objects:
            self.remove("pods", name)
            return
        if pod["metadata"].get("deletionTimestamp"):
            if age >= self.drains_s:
                self.remove("pods", name)
        elif of and ("deployments", of) not in self.objects:
            pod["metadata"]["deletionTimestamp"] = "now"
            since[name] = time.monotonic()
        elif of and not self.never_ready and age >= self.starts_s and pod["status"].get("phase") != "Running":
            pod["status"] = {"phase": "Running"}

    def _run_job(self, job: Object) -> None:
        name, pod = job["metadata"]["name"], f"{job['metadata']['name']}-x"
        if job.get("status") or (self.jobs_hold and ("pods", pod) in self.objects):
            return
        self.logs.setdefault(pod, self.logs.get("*", []))
        labels = {**job["spec"]["template"]["metadata"].get("labels", {}), "batch.kubernetes.io/job-name": name}
        phase = "Running" if self.jobs_hold else "Failed" if self.job_exit else "Succeeded"
        container: Object = {"running": {}} if self.jobs_hold else {"terminated": {"exitCode": self.job_exit}}
        status = {"phase": phase, "containerStatuses": [{"name": "trainer", "state": container}]}
        self.put("pods", {"metadata": {"name": pod, "labels": labels}, "status": status})
        if not self.jobs_hold:
            condition = {"type": "Failed" if self.job_exit else "Complete", "status": "True"}
            self.put("jobs", {**job, "metadata": dict(job["metadata"]), "status": {"conditions": [condition]}})


# --- HTTP ---


def _status(code: int, reason: str, message: str, headers: dict[str, str] | None = None) -> Response:
    body = {
        "kind": "Status",
        "apiVersion": "v1",
        "status": "Failure",
        "code": code,
        "reason": reason,
        "message": message,
    }
    return JSONResponse(body, code, headers=headers)


def _matches(document: Object, selector: str, fields: str) -> bool:
    labels = document["metadata"].get("labels") or {}
    for term in filter(None, selector.split(",")):
        key, equals, value = term.partition("=")
        if (labels.get(key) != value) if equals else (key not in labels):
            return False
    return all(
        document.get(key) == value for key, _, value in (term.partition("=") for term in fields.split(",") if term)
    )


def _leaves(document: Any, path: tuple[str, ...] = ()) -> dict[tuple[str, ...], Any]:
    if isinstance(document, dict) and document:
        return {leaf: value for key, part in document.items() for leaf, value in _leaves(part, (*path, key)).items()}
    return {path: document}  # a list belongs to one manager as a whole


def _set(document: Object, path: tuple[str, ...], value: Any) -> None:
    for key in path[:-1]:
        document = document.setdefault(key, {})
    document[path[-1]] = copy.deepcopy(value)


def _unset(document: Object, path: tuple[str, ...]) -> None:
    for key in path[:-1]:
        document = document.get(key) or {}
    document.pop(path[-1], None)


def app(state: ClusterState) -> Starlette:
    async def one(request: Request) -> Response:
        plural, name = request.path_params["plural"], request.path_params.get("name")
        state.calls.append((time.monotonic(), request.method, request.url.path))
        if request.headers.get("authorization") != f"Bearer {TOKEN}":
            return _status(401, "Unauthorized", "Unauthorized")
        for failure in state.failures:
            if failure[0] == request.method:
                state.failures.remove(failure)
                return _status(failure[1], "Injected", f"injected {failure[1]}", failure[2])
        if plural not in _KINDS:
            return _status(404, "NotFound", f"no {plural}")
        if request.method == "GET" and name is None:
            return watch(request, plural) if request.query_params.get("watch") else listing(request, plural)
        if state.before_write is not None and request.method != "GET":
            state.before_write(plural, str(name))
        found = state.objects.get((plural, str(name)))
        if request.method == "PATCH" and not request.url.path.endswith("/scale"):
            return apply(plural, str(name), yaml.safe_load(await request.body()), request.query_params)
        if found is None:
            return _status(404, "NotFound", f"{plural} {name} not found")
        if request.method == "GET":
            return JSONResponse(found)
        body = json.loads(await request.body())
        if request.method == "PATCH":
            scaled = {**found, "metadata": dict(found["metadata"]), "spec": {**found["spec"], **body["spec"]}}
            return JSONResponse(state.put(plural, scaled))
        if (uid := (body.get("preconditions") or {}).get("uid")) and uid != found["metadata"]["uid"]:
            return _status(409, "Conflict", f"the UID in the precondition ({uid}) does not match")
        state.remove(plural, str(name))
        return JSONResponse({"kind": "Status", "status": "Success"})

    def listing(request: Request, plural: str) -> Response:
        query = request.query_params
        items = [
            entry
            for (kind, _), entry in state.objects.items()
            if kind == plural and _matches(entry, query.get("labelSelector", ""), query.get("fieldSelector", ""))
        ]
        return JSONResponse({"kind": "List", "metadata": {"resourceVersion": state._next()}, "items": items})

    def watch(request: Request, plural: str) -> Response:
        since, cuts = int(request.query_params["resourceVersion"]), state._cuts
        if since < state._oldest:
            return _status(410, "Expired", "too old resource version")

        async def events() -> AsyncIterator[bytes]:
            told = since
            while True:
                changed = state._changed
                for version, event, kind, document in list(state._events):
                    if version > told and kind == plural:
                        told = version
                        if _matches(document, request.query_params.get("labelSelector", ""), ""):
                            yield json.dumps({"type": event, "object": document}).encode() + b"\n"
                if state._cuts > cuts:
                    raise ConnectionResetError("cut")
                await changed.wait()

        return StreamingResponse(events(), media_type="application/json")

    def apply(plural: str, name: str, given: Object, query: Any) -> Response:
        try:
            strictly(given, kubernetes_validate.latest_version())
        except kubernetes_validate.ValidationError as exc:
            return _status(422, "Invalid", f"{plural} {name}: {exc.message}")
        if not re.fullmatch(r"[a-z0-9]([-a-z0-9.]{0,61}[a-z0-9])?", name):
            return _status(422, "Invalid", f"metadata.name: {name}")
        live, manager = state.objects.get((plural, name)), query["fieldManager"]
        wanted = given["metadata"].pop("resourceVersion", None)
        if wanted is not None and (live is None or live["metadata"]["resourceVersion"] != wanted):
            return _status(
                409, "Conflict", "the object has been modified; please apply your changes to the latest version"
            )
        owners = state.owners.setdefault((plural, name), {})
        leaves = {path: value for path, value in _leaves(given).items() if path[0] not in {"apiVersion", "kind"}}
        result = copy.deepcopy(live) if live else {"metadata": {}}
        others = [path for path, value in leaves.items() if owners.get(path, manager) != manager]
        if others and query.get("force") != "true":
            return _status(409, "Conflict", f"Apply failed with {len(others)} conflicts: {others[:3]}")
        for path in [path for path, owner in owners.items() if owner == manager and path not in leaves]:
            _unset(result, path)
            del owners[path]
        for path, value in leaves.items():
            _set(result, path, value)
            owners[path] = manager
        if live is not None and result == live:
            return JSONResponse(live)
        state._store("MODIFIED" if live else "ADDED", plural, name, result)
        return JSONResponse(result, 200 if live else 201)

    async def log(request: Request) -> Response:
        lines = state.logs.get(request.path_params["name"])
        if lines is None:
            return _status(404, "NotFound", "no such pod")
        cuts = state._cuts

        async def said() -> AsyncIterator[bytes]:
            for line in lines:
                yield f"{line}\n".encode()
            while (pod := state.objects.get(("pods", request.path_params["name"]))) and state.jobs_hold:
                if pod["status"]["phase"] != "Running":
                    return
                if state._cuts > cuts:
                    raise ConnectionResetError("cut")
                await asyncio.sleep(0.02)

        return StreamingResponse(said())

    both = ("/api/v1", "/apis/{group}/{version}")
    routes = [Route(f"{root}/namespaces/models/pods/{{name}}/log", log) for root in both]
    for root in both:
        base = f"{root}/namespaces/models/{{plural}}"
        routes += [Route(base, one), Route(f"{base}/{{name}}", one, methods=["GET", "PATCH", "DELETE"])]
        routes += [Route(f"{base}/{{name}}/scale", one, methods=["PATCH"])]
    return Starlette(routes=routes)


@asynccontextmanager
async def running_cluster(state: ClusterState) -> AsyncIterator[str]:
    """URL of the API server."""
    config = uvicorn.Config(app(state), port=0, log_level="critical", lifespan="off", timeout_graceful_shutdown=1)
    server = uvicorn.Server(config)
    serving, controlling = asyncio.create_task(server.serve()), asyncio.create_task(state.control())
    while not (server.started or serving.done()):  # noqa: ASYNC110  (uvicorn has no event to wait on)
        await asyncio.sleep(0.01)
    try:
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        controlling.cancel()
        state.cut_watches()
        server.should_exit = True
        await serving
