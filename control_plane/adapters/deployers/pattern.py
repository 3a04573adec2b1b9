"""From a pattern in the cluster to the objects of one version, and from an object back to what it says. Pure."""

import json
from collections.abc import Iterator, Mapping
from copy import deepcopy
from typing import Any, Final, Literal, cast
from uuid import UUID

from control_plane.adapters import kubernetes
from control_plane.adapters.deployers.base import Unit
from control_plane.adapters.kubernetes import Kind, Object
from control_plane.errors import InvalidInput

COMPONENT: Final = "ml-platform"
DEPLOYMENT_LABEL: Final = "mlcp.io/deployment"
OURS: Final = "app.kubernetes.io/managed-by=mlcp,mlcp.io/deployment"
PORTS: Final = (8080, 8081)  # predictions; batch, explanations and metrics
ANY: Final = "any-model"  # the pattern of models without one of their own
FOREIGN: Final = "foreign-model"  # and of those that bring their own Python environment
_DIGEST: Final = "mlcp.io/digest"
_SPEC: Final = "/etc/mlcp"
_CACHE: Final = "/cache"
_PARTS: Final = ("server", "artifact")  # the containers a pattern must have: the server, and what fetches its artifact


def bases(unit: Unit) -> list[str]:
    """The patterns that would do, best first."""
    if unit.runtime == "pyfunc":
        return [f"{_dns(unit.model)}-foreign", FOREIGN]
    return [_dns(unit.model), ANY]


def name(unit: Unit) -> str:
    """At most 63 characters, which a label and a host name may have."""
    return f"{_dns(unit.model)[:40]}-v{unit.version[:12]}-{unit.id.hex[-6:]}"


def address(unit: Unit, namespace: str, port: int) -> str:
    return f"http://{name(unit)}.{namespace}.svc:{port}"


def label(deployment_id: UUID) -> str:
    return f"{DEPLOYMENT_LABEL}={deployment_id}"


def deployment_id(found: Object) -> UUID | None:
    """Whose object it is; None: not ours."""
    labels = cast("Mapping[str, str]", found["metadata"].get("labels") or {})
    try:
        return UUID(labels[DEPLOYMENT_LABEL]) if labels.get("app.kubernetes.io/managed-by") == "mlcp" else None
    except (KeyError, ValueError):
        return None


def digest(deployment: Object) -> str | None:
    return cast("Mapping[str, str]", deployment["metadata"].get("annotations") or {}).get(_DIGEST)


def progress(deployment: Object) -> tuple[Literal["starting", "ready", "failed"], str | None]:
    """Ready once every replica has been available, and for as long as one of them is."""
    status = cast(Object, deployment.get("status") or {})
    conditions = {entry["type"]: entry for entry in status.get("conditions") or ()}
    progressing = conditions.get("Progressing", {})
    if status.get("observedGeneration", 0) < deployment["metadata"].get("generation", 1):
        return "starting", None
    if progressing.get("reason") == "ProgressDeadlineExceeded":
        return "failed", str(progressing.get("message") or "the cluster has given up waiting for its pods")
    if conditions.get("ReplicaFailure", {}).get("status") == "True":
        return "starting", str(conditions["ReplicaFailure"].get("message"))
    complete = progressing.get("reason") == "NewReplicaSetAvailable" and status.get("availableReplicas", 0) >= 1
    return ("ready", None) if complete else ("starting", None)


def replicas(unit: Unit, autoscaler: Object | None) -> int:
    """How many to begin with: the least the autoscaler would have."""
    if autoscaler is not None and _pattern_of(unit, autoscaler):
        return int(autoscaler["spec"].get("minReplicas") or 1)
    return max(1, int(_resources(unit).get("min_replicas", 1)))


def around(unit: Unit, found: Object) -> Iterator[tuple[Kind, dict[str, Any]]]:
    """What has to be there before the pods are. A model with a pattern of its own has a budget beside that."""
    yield (
        kubernetes.CONFIG_MAP,
        {"metadata": _metadata(unit), "data": {"server.json": json.dumps(_spec(unit), sort_keys=True)}},
    )
    ports = [
        {"name": title, "port": port, "targetPort": title}
        for title, port in zip(("predict", "aux"), PORTS, strict=True)
    ]
    selector = {DEPLOYMENT_LABEL: str(unit.id)}
    yield kubernetes.SERVICE, {"metadata": _metadata(unit), "spec": {"selector": selector, "ports": ports}}
    if not _pattern_of(unit, found):  # two budgets for one pod would make it impossible to evict
        spec = {"maxUnavailable": 1, "selector": {"matchLabels": selector}}
        yield kubernetes.DISRUPTION_BUDGET, {"metadata": _metadata(unit), "spec": spec}


def deployment(unit: Unit, found: Object, live: Object | None, *, replicas: int, mlflow_url: str) -> dict[str, Any]:
    """`live`: the Deployment as it is, whose number of replicas is the autoscaler's to decide; None: there is none."""
    spec, template = cast(Object, found["spec"]), deepcopy(found["spec"]["template"])
    metadata = _metadata(unit)
    metadata["annotations"] = {_DIGEST: unit.digest}
    if live is not None:
        metadata["resourceVersion"] = live["metadata"]["resourceVersion"]
        replicas = int(live["spec"].get("replicas", replicas))
    pod = template["spec"]
    pods = template.setdefault("metadata", {})
    pods["labels"] = {**(pods.get("labels") or {}), **metadata["labels"]}
    pods.pop("creationTimestamp", None)
    for constraint in pod.get("topologySpreadConstraints") or ():
        constraint["labelSelector"] = {"matchLabels": {DEPLOYMENT_LABEL: str(unit.id)}}
    _fill(unit, pod, found, mlflow_url)
    return {
        "metadata": metadata,
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {DEPLOYMENT_LABEL: str(unit.id)}},
            "strategy": spec.get("strategy") or {},
            "progressDeadlineSeconds": spec.get("progressDeadlineSeconds", 600),
            "revisionHistoryLimit": 1,
            "template": template,
        },
    }


def _fill(unit: Unit, pod: dict[str, Any], found: Object, mlflow_url: str) -> None:
    containers = {entry["name"]: entry for entry in (*pod.get("initContainers", ()), *pod["containers"])}
    if missing := [part for part in _PARTS if part not in containers]:
        raise InvalidInput(f"The Deployment {found['metadata']['name']} has no container {' and no '.join(missing)}.")
    server, artifact = (containers[part] for part in _PARTS)
    told = {
        "MLFLOW_TRACKING_URI": mlflow_url,
        "MODEL_NAME": unit.model,
        "MODEL_VERSION": unit.version,
        "MODEL_DIGEST": unit.digest,
        "MODEL_RUNTIME": unit.runtime,
    }
    for container in (artifact, server):
        wanted = told if container is artifact else {"MLCP_DEPLOYMENT": str(unit.id)}
        kept = [entry for entry in container.get("env") or () if entry["name"] not in told]
        container["env"] = [*kept, *({"name": key, "value": value} for key, value in wanted.items())]
    server["command"], server["args"] = ["python3", "-m", "model_servers.launch"], ["--spec", f"{_SPEC}/server.json"]
    mounts = [entry for entry in server.get("volumeMounts") or () if entry["name"] != "spec"]
    server["volumeMounts"] = [*mounts, {"name": "spec", "mountPath": _SPEC, "readOnly": True}]
    volumes = [entry for entry in pod.get("volumes") or () if entry["name"] != "spec"]
    pod["volumes"] = [*volumes, {"name": "spec", "configMap": {"name": name(unit)}}]
    if not _pattern_of(unit, found):  # nobody sized this model's pods but its own model.yaml
        asked = cast("dict[str, Any]", server.setdefault("resources", {}).setdefault("requests", {}))
        for resource in ("cpu", "memory"):
            asked[resource] = str(_resources(unit).get(f"{resource}_request") or asked.get(resource) or "250m")


def autoscaler(unit: Unit, found: Object | None) -> dict[str, Any]:
    target = {"apiVersion": "apps/v1", "kind": "Deployment", "name": name(unit)}
    spec: dict[str, Any] = {
        key: value for key, value in (found or {}).get("spec", {}).items() if key != "scaleTargetRef"
    }
    if found is None or not _pattern_of(unit, found):
        least = max(1, int(_resources(unit).get("min_replicas", 1)))
        spec |= {"minReplicas": least, "maxReplicas": max(least, int(_resources(unit).get("max_replicas", least)))}
        spec.setdefault("metrics", [_HALF_BUSY])
    return {"metadata": _metadata(unit), "spec": {**spec, "scaleTargetRef": target}}


_HALF_BUSY: Final = {
    "type": "Resource",
    "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 60}},
}


def _metadata(unit: Unit) -> dict[str, Any]:
    labels = {
        "app": _dns(unit.model),
        "component": COMPONENT,
        "app.kubernetes.io/name": _dns(unit.model),
        "app.kubernetes.io/component": "model-server",
        "app.kubernetes.io/managed-by": "mlcp",
        "mlcp.io/version": unit.version[:63],
        DEPLOYMENT_LABEL: str(unit.id),
    }
    return {"name": name(unit), "labels": labels}


def _spec(unit: Unit) -> dict[str, object]:
    """What `model_servers.launch` reads. The paths are those of the pattern's containers."""
    serving = cast("Mapping[str, Any]", unit.config.get("serving") or {})
    return {
        "model": unit.model,
        "version": unit.version,
        "digest": unit.digest,
        "artifact": "/model",
        "runtime": unit.runtime,
        "socket": f"0.0.0.0:{PORTS[0]}",
        "aux_socket": f"0.0.0.0:{PORTS[1]}",
        "workers": 1 if unit.inferred else int(serving.get("workers", 2)),
        "threads": 1,
        "metrics_dir": "/tmp/metrics",  # noqa: S108  (a volume of the pod's own)
        "cache_dir": _CACHE,
        "config": unit.config,
        "requirements": None,  # of a foreign model: those of its artifact
        "inferred": unit.inferred,
    }


def _pattern_of(unit: Unit, found: Object) -> bool:
    """Whether the pattern is this model's own."""
    base = bases(unit)[0]
    return str(found["metadata"]["name"]) in {f"{base}-deployment", f"{base}-hpa"}


def _resources(unit: Unit) -> Mapping[str, Any]:
    return cast("Mapping[str, Any]", unit.config.get("resources") or {})


def _dns(model: str) -> str:
    return model.replace("_", "-").rstrip("-")
