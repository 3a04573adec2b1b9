"""Model servers as Deployments of a Kubernetes cluster, one per version.

A version's objects are copies of a pattern that lies in the cluster: the Deployment `<model>-deployment` and the
autoscaler `<model>-hpa`, or those named `any-model`. Both are generated from model.yaml and adjusted with kustomize, so
images, node selectors and limits have one home, and nothing about them is set here. Everything is applied server-side
as one field manager, carries the labels below, and is found again by them: no memory of this process is needed.
"""

import time
from collections.abc import Iterable, Mapping
from typing import Any, Final, cast
from uuid import UUID

import httpx
import structlog

from control_plane.adapters import kubernetes
from control_plane.adapters.deployers import pattern
from control_plane.adapters.deployers.base import Seen, Unit
from control_plane.adapters.kubernetes import Cluster, Kind, Object
from control_plane.adapters.kubernetes_events import troubles
from control_plane.adapters.kubernetes_watch import Watched, labelled
from control_plane.errors import ClusterUnavailable, Conflict, InvalidInput, NotFound

_LOOK_S: Final = 1.5
_WHY_EVERY_S: Final = 5.0  # how often the events of a deployment that is not ready are asked for
_DRAIN_S: Final = 60.0  # pods that are not gone by then are removed with their Deployment
_CONFLICTS: Final = 4  # times somebody else may have been first
_OWNED: Final = (kubernetes.AUTOSCALER, kubernetes.DISRUPTION_BUDGET, kubernetes.SERVICE, kubernetes.CONFIG_MAP)

log = structlog.get_logger()


class KubernetesDeployer:
    """`servers`: the client model servers are asked with; given by tests."""

    def __init__(self, cluster: Cluster, mlflow_url: str, *, servers: httpx.AsyncClient | None = None) -> None:
        self._cluster = cluster
        self._mlflow_url = mlflow_url
        self._watched = Watched(cluster, kubernetes.DEPLOYMENT, pattern.OURS)
        self._servers = servers or httpx.AsyncClient(timeout=_LOOK_S, trust_env=False)
        self._descriptions: dict[UUID, Mapping[str, Any]] = {}  # of one digest and so for good
        self._said: dict[UUID, tuple[float, str | None]] = {}  # when asked, what was wrong
        self._draining: dict[UUID, float] = {}  # since when

    async def aclose(self) -> None:
        await self._watched.aclose()
        await self._servers.aclose()
        await self._cluster.aclose()

    async def deploy(self, unit: Unit) -> None:
        found, autoscaler = await self._pattern(unit)
        name = pattern.name(unit)
        for kind, manifest in pattern.around(unit, found):
            await self._apply(kind, unit, manifest)
        replicas = pattern.replicas(unit, autoscaler)
        for _ in range(_CONFLICTS):
            live = await self._mine(kubernetes.DEPLOYMENT, unit, name)
            manifest = pattern.deployment(unit, found, live, replicas=replicas, mlflow_url=self._mlflow_url)
            try:
                self._watched.put(await self._cluster.apply(kubernetes.DEPLOYMENT, manifest))
                break
            except Conflict:
                continue  # the autoscaler, or a predecessor of ours: look again
        else:
            raise ClusterUnavailable(f"The Deployment {name} keeps being changed by somebody else.")
        await self._apply(kubernetes.AUTOSCALER, unit, pattern.autoscaler(unit, autoscaler))

    async def observe(self, unit: Unit) -> Seen:
        live = self._find(await self._watched.all(), unit.id)
        if live is None or live["metadata"].get("deletionTimestamp"):
            return Seen("absent")
        address, aux = (pattern.address(unit, self._cluster.namespace, port) for port in pattern.PORTS)
        if (digest := pattern.digest(live)) != unit.digest:
            wrong = f"The Deployment of {unit.model} {unit.version} is for {digest}, not {unit.digest}."
            return Seen("failed", address, aux, error=wrong)
        state, why = pattern.progress(live)
        if state != "ready":
            error = await self._trouble(unit, live)
            said = "; ".join(part for part in (why, error) if part)
            return Seen(state, address, aux, error=said or None)
        self._said.pop(unit.id, None)
        return await self._answering(unit, address, aux)

    async def retire(self, deployment_id: UUID) -> bool:
        live = self._find(await self._watched.all(), deployment_id)
        if live is not None and not await self._drained(deployment_id, live):
            return False
        for kind in _OWNED:
            for one in await self._labelled(kind, deployment_id):
                await self._delete(kind, one)
        if live is not None:
            await self._delete(kubernetes.DEPLOYMENT, live)
            self._watched.drop(str(live["metadata"]["name"]))
        for memory in (self._descriptions, self._said, self._draining):
            memory.pop(deployment_id, None)
        return True

    async def sweep(self, live: frozenset[UUID]) -> None:
        there = list((await self._watched.all()).values())
        for kind in _OWNED:
            there += (await self._cluster.list(kind, labels=pattern.OURS))[0]
        for deployment_id in {pattern.deployment_id(entry) for entry in there} - live - {None}:
            assert deployment_id is not None
            log.info("left over", deployment=str(deployment_id), gone=await self.retire(deployment_id))

    async def scale(self, unit: Unit, replicas: int) -> None:
        """To a number of its own, until its autoscaler next decides. Raises NotFound."""
        await self._cluster.scale(kubernetes.DEPLOYMENT, pattern.name(unit), replicas)

    async def _pattern(self, unit: Unit) -> tuple[Object, Object | None]:
        """What to copy: the model's own pattern, else the one for any model."""
        for base in pattern.bases(unit):
            found = await self._cluster.get(kubernetes.DEPLOYMENT, f"{base}-deployment")
            if found is not None:
                return found, await self._cluster.get(kubernetes.AUTOSCALER, f"{base}-hpa")
        wanted = " or ".join(f"{base}-deployment" for base in pattern.bases(unit))
        raise InvalidInput(
            f"The namespace {self._cluster.namespace} has no Deployment {wanted} to copy: see infra/k8s."
        )

    async def _apply(self, kind: Kind, unit: Unit, manifest: Object) -> None:
        await self._mine(kind, unit, str(manifest["metadata"]["name"]))
        await self._cluster.apply(kind, manifest)

    async def _mine(self, kind: Kind, unit: Unit, name: str) -> Object | None:
        """The object if it is there. Raises InvalidInput if it is not ours to change."""
        live = await self._cluster.get(kind, name)
        if live is not None and pattern.deployment_id(live) != unit.id:
            raise InvalidInput(f"There is a {kind.name} {name} already that is not ours: remove or rename it.")
        return live

    async def _answering(self, unit: Unit, address: str, aux: str) -> Seen:
        if unit.id not in self._descriptions:
            try:
                response = await self._servers.get(f"{address}/schema", timeout=_LOOK_S)
                answer: object = response.json() if response.status_code == 200 else None
            except (httpx.HTTPError, ValueError) as exc:
                return Seen("starting", address, aux, error=f"Its pods are ready; {address} does not answer: {exc!r}")
            if not isinstance(answer, dict):
                return Seen("starting", address, aux, error=f"{address}/schema answered {response.status_code}")
            self._descriptions[unit.id] = cast("Mapping[str, Any]", answer)
        return Seen("ready", address, aux, self._descriptions[unit.id])

    async def _trouble(self, unit: Unit, live: Object) -> str | None:
        asked, said = self._said.get(unit.id, (float("-inf"), None))
        if time.monotonic() - asked > _WHY_EVERY_S:
            said = await troubles(self._cluster, str(live["metadata"]["name"]), pattern.label(unit.id))
            self._said[unit.id] = time.monotonic(), said
        return said

    async def _drained(self, deployment_id: UUID, live: Object) -> bool:
        """Every pod has finished what it was answering and is gone, or has had long enough."""
        name, since = str(live["metadata"]["name"]), self._draining.setdefault(deployment_id, time.monotonic())
        for one in await self._labelled(kubernetes.AUTOSCALER, deployment_id):  # it would start them again
            await self._delete(kubernetes.AUTOSCALER, one)
        if live["spec"].get("replicas", 1):
            try:
                await self._cluster.scale(kubernetes.DEPLOYMENT, name, 0)
            except NotFound:
                return True
        pods, _ = await self._cluster.list(kubernetes.POD, labels=pattern.label(deployment_id))
        if pods and time.monotonic() - since > _DRAIN_S:
            log.warning("pods do not end", deployment=name, pods=len(pods))
            return True
        return not pods

    async def _labelled(self, kind: Kind, deployment_id: UUID) -> Iterable[Object]:
        return (await self._cluster.list(kind, labels=pattern.label(deployment_id)))[0]

    async def _delete(self, kind: Kind, found: Object) -> None:
        metadata = found["metadata"]
        try:
            await self._cluster.delete(kind, str(metadata["name"]), uid=str(metadata["uid"]))
        except Conflict:  # another object of that name by now: not the one that was meant
            log.info("not deleted: replaced meanwhile", kind=kind.name, name=metadata["name"])

    def _find(self, objects: Mapping[str, Object], deployment_id: UUID) -> Object | None:
        return next(labelled(objects, pattern.DEPLOYMENT_LABEL, str(deployment_id)), None)
