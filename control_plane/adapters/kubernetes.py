"""The Kubernetes API over HTTP: the only module that knows it.

Every call here may be made twice with the same result, so every call is tried again: after 429 and 5xx, refused and cut
connections, with a growing pause or the one the server asks for. What goes wrong for longer leaves as
`ClusterUnavailable` (try later), `Conflict` (somebody else was first: look again) or `InvalidInput` (the cluster will
never take it).
"""

import asyncio
import json
import random
import time
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, cast

import httpx

from control_plane.adapters.kubeconfig import Access
from control_plane.errors import ClusterUnavailable, Conflict, ControlPlaneError, InvalidInput, NotFound

FIELD_MANAGER: Final = "mlcp"
_ATTEMPTS: Final = 5
_PAUSE_S: Final = (0.2, 5.0)  # first and longest, before jitter
_PATIENCE_S: Final = 20.0  # of one call with all its attempts
_AGAIN: Final = frozenset({408, 429, 500, 502, 503, 504})
_WATCH_S: Final = 50  # then the server ends a watch in order and it is begun anew
_PAGE: Final = 500
Object = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Kind:
    api: str  # "v1", "apps/v1"
    name: str
    plural: str


DEPLOYMENT: Final = Kind("apps/v1", "Deployment", "deployments")
SERVICE: Final = Kind("v1", "Service", "services")
CONFIG_MAP: Final = Kind("v1", "ConfigMap", "configmaps")
AUTOSCALER: Final = Kind("autoscaling/v2", "HorizontalPodAutoscaler", "horizontalpodautoscalers")
DISRUPTION_BUDGET: Final = Kind("policy/v1", "PodDisruptionBudget", "poddisruptionbudgets")
CRON_JOB: Final = Kind("batch/v1", "CronJob", "cronjobs")
JOB: Final = Kind("batch/v1", "Job", "jobs")
POD: Final = Kind("v1", "Pod", "pods")
EVENT: Final = Kind("v1", "Event", "events")


class Expired(Exception):
    """The cluster no longer knows the version a watch should go on from: list again."""


class _Again(Exception):
    def __init__(self, why: str, after_s: float | None = None) -> None:
        super().__init__(why)
        self.after_s = after_s


class Cluster:
    """A client of one namespace of one cluster. Close it with `aclose`."""

    def __init__(self, access: Access, namespace: str | None = None, *, timeout_s: float = 10.0) -> None:
        self.namespace = namespace or access.namespace
        self._access = access
        self._client = httpx.AsyncClient(
            base_url=access.server, verify=access.verify, timeout=timeout_s, trust_env=False, follow_redirects=False
        )

    async def aclose(self) -> None:
        await self._client.aclose()

    async def get(self, kind: Kind, name: str) -> Object | None:
        """None: there is no such object."""
        try:
            return await self._json("GET", self._path(kind, name))
        except NotFound:
            return None

    async def list(self, kind: Kind, *, labels: str = "", fields: str = "") -> tuple[list[Object], str]:
        """Every object that matches, and the version a watch goes on from."""
        found: list[Object] = []
        params = {"labelSelector": labels, "fieldSelector": fields, "limit": str(_PAGE)}
        params = {name: value for name, value in params.items() if value}
        while True:
            page = await self._json("GET", self._path(kind), params=params)
            found += cast("Sequence[Object]", page.get("items") or ())
            metadata = cast(Object, page.get("metadata") or {})
            if not metadata.get("continue"):
                return found, str(metadata.get("resourceVersion") or "")
            params["continue"] = str(metadata["continue"])

    async def apply(self, kind: Kind, manifest: Object) -> Object:
        """Server-side apply as `mlcp`, taking over fields others set: objects of this kind and label are ours.

        With a `metadata.resourceVersion`: only if nobody changed it since. Raises Conflict, InvalidInput.
        """
        name = str(manifest["metadata"]["name"])
        document = {"apiVersion": kind.api, "kind": kind.name, **manifest}
        return await self._json(
            "PATCH",
            self._path(kind, name),
            params={"fieldManager": FIELD_MANAGER, "force": "true", "fieldValidation": "Strict"},
            content=json.dumps(document).encode(),
            content_type="application/apply-patch+yaml",
        )

    async def scale(self, kind: Kind, name: str, replicas: int) -> None:
        """Through the subresource, which no apply of ours owns. Raises NotFound."""
        body = json.dumps({"spec": {"replicas": replicas}}).encode()
        await self._json(
            "PATCH",
            f"{self._path(kind, name)}/scale",
            params={"fieldManager": f"{FIELD_MANAGER}-scale"},
            content=body,
            content_type="application/merge-patch+json",
        )

    async def delete(self, kind: Kind, name: str, *, uid: str | None = None) -> None:
        """With what it owns. One that is gone already is no error; one of another `uid` is not touched: Conflict."""
        options: dict[str, Any] = {"kind": "DeleteOptions", "apiVersion": "v1", "propagationPolicy": "Background"}
        if uid is not None:
            options["preconditions"] = {"uid": uid}
        try:
            await self._json(
                "DELETE",
                self._path(kind, name),
                content=json.dumps(options).encode(),
                content_type="application/json",
            )
        except NotFound:
            return

    async def watch(self, kind: Kind, labels: str, since: str) -> AsyncGenerator[tuple[str, Object]]:
        """(ADDED | MODIFIED | DELETED | BOOKMARK, object) as they happen, until the server ends it, some time later.

        Not tried again here: whoever watches knows from which version to go on. Raises Expired, ClusterUnavailable.
        """
        params = {
            "watch": "true",
            "labelSelector": labels,
            "resourceVersion": since,
            "allowWatchBookmarks": "true",
            "timeoutSeconds": str(_WATCH_S),
        }
        try:
            async with self._client.stream(
                "GET", self._path(kind), params=params, headers=self._headers(), timeout=_WATCH_S + 10.0
            ) as response:
                if response.status_code == 410:
                    raise Expired
                if response.is_error:
                    raise _error(response.status_code, await response.aread())
                async for line in response.aiter_lines():
                    if not line:
                        continue
                    event = cast(Object, json.loads(line))
                    if event.get("type") == "ERROR":
                        status = cast(Object, event.get("object") or {})
                        if status.get("code") == 410:
                            raise Expired
                        raise ClusterUnavailable(f"The watch of {kind.plural} failed: {status.get('message')}")
                    yield str(event["type"]), cast(Object, event["object"])
        except (httpx.TransportError, ValueError) as exc:
            raise ClusterUnavailable(f"The watch of {kind.plural} was cut: {exc!r}") from exc

    async def log_lines(self, pod: str, container: str) -> AsyncGenerator[str]:
        """What the container prints, from its start, until it ends. Raises NotFound, ClusterUnavailable."""
        params = {"follow": "true", "container": container}
        path = f"{self._path(POD, pod)}/log"
        try:
            async with self._client.stream(
                "GET", path, params=params, headers=self._headers(), timeout=httpx.Timeout(10.0, read=None)
            ) as response:
                if response.is_error:
                    raise _error(response.status_code, await response.aread())
                async for line in response.aiter_lines():
                    yield line
        except httpx.TransportError as exc:
            raise ClusterUnavailable(f"The log of {pod} was cut: {exc!r}") from exc

    async def _json(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, str] | None = None,
        content: bytes | None = None,
        content_type: str | None = None,
    ) -> Object:
        give_up, failures = time.monotonic() + _PATIENCE_S, 0
        while True:
            try:
                return await self._once(method, path, params, content, content_type)
            except _Again as exc:
                failures += 1
                pause_s = exc.after_s if exc.after_s is not None else pause(failures)
                if failures >= _ATTEMPTS or time.monotonic() + pause_s > give_up:
                    raise ClusterUnavailable(f"{method} {path}: {exc}, {failures} times.") from exc
                await asyncio.sleep(pause_s)

    async def _once(
        self, method: str, path: str, params: Mapping[str, str] | None, content: bytes | None, content_type: str | None
    ) -> Object:
        headers = self._headers() | ({"Content-Type": content_type} if content_type else {})
        try:
            response = await self._client.request(method, path, params=params, content=content, headers=headers)
        except httpx.TransportError as exc:
            raise _Again(f"the API server does not answer ({exc!r})") from exc
        if response.status_code in _AGAIN:
            raise _Again(f"the API server answered {_said(response.status_code, response.content)}", _after(response))
        if response.is_error:
            raise _error(response.status_code, response.content)
        try:
            return cast(Object, response.json())
        except ValueError as exc:
            raise ClusterUnavailable("The API server's answer is not JSON; does the address belong to one?") from exc

    def _headers(self) -> dict[str, str]:
        token = self._access.token()
        return {"Accept": "application/json"} | ({"Authorization": f"Bearer {token}"} if token else {})

    def _path(self, kind: Kind, name: str = "") -> str:
        root = f"/apis/{kind.api}" if "/" in kind.api else f"/api/{kind.api}"
        return f"{root}/namespaces/{self.namespace}/{kind.plural}" + (f"/{name}" if name else "")


def pause(failures: int) -> float:
    """Seconds before the next attempt: doubled each time, half of it at random so that many do not come at once."""
    full = min(_PAUSE_S[0] * 2.0 ** (failures - 1), _PAUSE_S[1])
    return full / 2 + random.random() * full / 2  # noqa: S311  (spreads load, guards nothing)


def _after(response: httpx.Response) -> float | None:
    asked = response.headers.get("Retry-After", "")
    return min(float(asked), _PATIENCE_S) if asked.isdecimal() else None


def _said(status: int, content: bytes) -> str:
    try:
        answer: object = json.loads(content)
    except ValueError:
        answer = None
    message = cast(Object, answer).get("message") if isinstance(answer, dict) else None
    return f"{status}: {message}" if message else str(status)


def _error(status: int, content: bytes) -> ControlPlaneError:
    said = _said(status, content)
    match status:
        case 404:
            return NotFound(f"The cluster has no such object ({said}).")
        case 409:
            return Conflict(f"The object was changed by somebody else ({said}).")
        case 401 | 403:
            return ClusterUnavailable(f"The cluster does not allow it ({said}); see the Role in infra/k8s.")
        case status if status in _AGAIN:
            return ClusterUnavailable(f"The API server answered {said}.")
        case _:
            return InvalidInput(f"The cluster refuses the object ({said}).")
