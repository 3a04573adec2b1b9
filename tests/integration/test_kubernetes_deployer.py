"""The Kubernetes deployer against an API server over HTTP: what it asks for, what it survives, how often it asks."""

import asyncio
import json
import os
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest
import yaml

from control_plane.adapters import kubeconfig, kubernetes
from control_plane.adapters.deployers import pattern
from control_plane.adapters.deployers.base import Seen, Unit
from control_plane.adapters.deployers.kubernetes import KubernetesDeployer
from control_plane.adapters.kubernetes import Cluster
from control_plane.errors import ClusterUnavailable, InvalidInput
from tests.support.cluster import TOKEN, ClusterState, running_cluster
from tests.support.processes import eventually

ROOT = Path(__file__).resolve().parents[2]
DIGEST = "sha256:" + "a" * 64


def unit(model: str = "churn", version: str = "3", **more: Any) -> Unit:
    config = {"name": model, "serving": {"workers": 2}, "resources": {"min_replicas": 3, "max_replicas": 5}}
    return Unit(uuid4(), model, version, DIGEST, more.pop("runtime", "native"), config, **more)


def patterns() -> list[dict[str, Any]]:
    """What kubectl apply -k would have put there."""
    files = [
        ROOT / "model_servers" / "churn" / "k8s.yaml",
        ROOT / "infra" / "k8s" / "base" / "models" / "any-model.yaml",
    ]
    return [document for file in files for document in yaml.safe_load_all(file.read_text())]


@pytest.fixture
def state() -> ClusterState:
    state = ClusterState()
    plurals = {kind.name: kind.plural for kind in (kubernetes.DEPLOYMENT, kubernetes.AUTOSCALER)}
    for document in patterns():
        if document["kind"] in plurals:
            state.put(plurals[document["kind"]], document)
    return state


@pytest.fixture
async def server(state: ClusterState) -> AsyncIterator[str]:
    async with running_cluster(state) as url:
        yield url


@pytest.fixture
async def deployer(server: str, tmp_path: Path) -> AsyncIterator[KubernetesDeployer]:
    def answer(request: httpx.Request) -> httpx.Response:
        assert request.url.host.endswith(".models.svc")
        return httpx.Response(200, json={"served": request.url.host})

    servers = httpx.AsyncClient(transport=httpx.MockTransport(answer))
    deployer = KubernetesDeployer(Cluster(access(server, tmp_path)), "http://mlflow:5000", servers=servers)
    yield deployer
    await deployer.aclose()


def access(server: str, folder: Path) -> kubeconfig.Access:
    config = {
        "current-context": "here",
        "contexts": [{"name": "here", "context": {"cluster": "c", "user": "u", "namespace": "models"}}],
        "clusters": [{"name": "c", "cluster": {"server": server}}],
        "users": [{"name": "u", "user": {"token": TOKEN}}],
    }
    (folder / "kubeconfig").write_text(yaml.safe_dump(config))
    return kubeconfig.access({"KUBECONFIG": str(folder / "kubeconfig")})


async def until(deployer: KubernetesDeployer, wanted: Unit, holds: Callable[[Seen], bool]) -> Seen:
    async def look() -> Seen | None:
        seen = await deployer.observe(wanted)
        return seen if holds(seen) else None

    return await eventually(look, what="the deployment is as expected")  # type: ignore[return-value]


def ready(seen: Seen) -> bool:
    return seen.state == "ready"


async def gone(deployer: KubernetesDeployer, deployment_id: UUID) -> None:
    await eventually(lambda: deployer.retire(deployment_id), what="its servers are gone")


async def test_a_version_is_deployed_from_its_models_pattern_and_found_again_by_label(
    deployer: KubernetesDeployer, state: ClusterState
) -> None:
    wanted = unit()
    assert (await deployer.observe(wanted)).state == "absent"
    await deployer.deploy(wanted)
    seen = await until(deployer, wanted, ready)
    name = pattern.name(wanted)
    assert seen.address == f"http://{name}.models.svc:8080"
    assert seen.description == {"served": f"{name}.models.svc"}
    made = state.objects["deployments", name]
    assert made["metadata"]["labels"] | {"app": "churn", "component": "ml-platform"} == made["metadata"]["labels"]
    server = made["spec"]["template"]["spec"]["containers"][0]
    fetch = made["spec"]["template"]["spec"]["initContainers"][0]
    assert {"name": "MODEL_DIGEST", "value": DIGEST} in fetch["env"]
    assert {"name": "MLFLOW_TRACKING_URI", "value": "http://mlflow:5000"} not in server["env"]  # foreign code reads it
    assert made["spec"]["replicas"] == 2  # the pattern's least, which is model.yaml's
    spec = json.loads(state.objects["configmaps", name]["data"]["server.json"])
    assert (spec["digest"], spec["socket"], spec["workers"]) == (DIGEST, "0.0.0.0:8080", 2)
    assert state.objects["horizontalpodautoscalers", name]["spec"]["scaleTargetRef"]["name"] == name
    assert ("poddisruptionbudgets", name) not in state.objects  # the model's own covers every version


async def test_deploying_again_changes_nothing_and_leaves_the_autoscalers_number_alone(
    deployer: KubernetesDeployer, state: ClusterState
) -> None:
    wanted = unit()
    await deployer.deploy(wanted)
    await until(deployer, wanted, ready)
    await deployer.scale(wanted, 4)
    await until(
        deployer, wanted, lambda _: state.objects["deployments", pattern.name(wanted)]["status"]["replicas"] == 4
    )
    await until(deployer, wanted, ready)
    before = (
        json.dumps(sorted(map(str, state.objects)), default=str),
        state.objects["deployments", pattern.name(wanted)],
    )
    await deployer.deploy(wanted)
    after = json.dumps(sorted(map(str, state.objects)), default=str), state.objects["deployments", pattern.name(wanted)]
    assert before == after
    assert after[1]["spec"]["replicas"] == 4


async def test_a_model_without_a_pattern_gets_the_general_one_its_own_size_and_a_budget(
    deployer: KubernetesDeployer, state: ClusterState
) -> None:
    wanted = unit(model="credit_lines")
    await deployer.deploy(wanted)
    name = pattern.name(wanted)
    assert name.startswith("credit-lines-v3-")
    assert state.objects["deployments", name]["spec"]["replicas"] == 3
    scaler = state.objects["horizontalpodautoscalers", name]["spec"]
    assert (scaler["minReplicas"], scaler["maxReplicas"]) == (3, 5)
    assert state.objects["poddisruptionbudgets", name]["spec"]["maxUnavailable"] == 1
    foreign = r"no Deployment foreign-one-foreign-deployment or foreign-model-deployment"
    with pytest.raises(InvalidInput, match=foreign):
        await deployer.deploy(unit(model="foreign_one", runtime="pyfunc"))


async def test_servers_answer_to_the_end_before_anything_is_deleted(
    deployer: KubernetesDeployer, state: ClusterState
) -> None:
    wanted, state.drains_s = unit(), 0.5
    await deployer.deploy(wanted)
    await until(deployer, wanted, ready)
    name = pattern.name(wanted)
    assert not await deployer.retire(wanted.id)
    assert ("services", name) in state.objects  # its pods are still answering
    assert ("horizontalpodautoscalers", name) not in state.objects  # which would start them again
    await gone(deployer, wanted.id)
    assert [kind for kind, found in state.objects if found.startswith(name)] == []
    await until(deployer, wanted, lambda seen: seen.state == "absent")
    assert await deployer.retire(wanted.id)  # again, with nothing left


async def test_what_nobody_wants_is_swept_and_other_peoples_objects_are_not(
    deployer: KubernetesDeployer, state: ClusterState
) -> None:
    mine, left = unit(), unit(version="2")
    for wanted in (mine, left):
        await deployer.deploy(wanted)
    state.remove("deployments", pattern.name(left))  # a crash between two deletions
    state.put("configmaps", {"metadata": {"name": "theirs", "labels": {"app": "churn"}}, "data": {}})

    async def swept() -> bool:
        await deployer.sweep(frozenset({mine.id}))
        return ("configmaps", pattern.name(left)) not in state.objects

    await eventually(swept, what="the leftover is gone")
    assert ("configmaps", pattern.name(mine)) in state.objects
    assert ("configmaps", "theirs") in state.objects
    assert "churn-deployment" in state.named("deployments")


async def test_an_object_of_that_name_that_is_not_ours_is_not_touched(
    deployer: KubernetesDeployer, state: ClusterState
) -> None:
    wanted = unit()
    theirs = state.put("services", {"metadata": {"name": pattern.name(wanted)}, "spec": {"ports": []}})
    with pytest.raises(InvalidInput, match="not ours"):
        await deployer.deploy(wanted)
    assert state.objects["services", pattern.name(wanted)] is theirs


async def test_somebody_elses_change_in_between_is_not_overwritten_unseen(
    deployer: KubernetesDeployer, state: ClusterState
) -> None:
    wanted = unit()
    await deployer.deploy(wanted)
    name, times = pattern.name(wanted), [2]

    def autoscaler(plural: str, _: str) -> None:
        if plural == "deployments" and times[0]:
            times[0] -= 1
            live = state.objects[plural, name]
            state.put(plural, {**live, "metadata": dict(live["metadata"]), "spec": {**live["spec"], "replicas": 5}})

    state.before_write = autoscaler
    await deployer.deploy(wanted)
    assert times == [0]
    assert state.objects["deployments", name]["spec"]["replicas"] == 5
    times[0] = 10**6
    state.before_write = autoscaler
    with pytest.raises(ClusterUnavailable, match="keeps being changed"):
        await deployer.deploy(wanted)


@pytest.mark.parametrize("status", [429, 500])
async def test_an_api_server_in_trouble_is_asked_again_with_growing_pauses(
    deployer: KubernetesDeployer, state: ClusterState, status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kubernetes, "_PAUSE_S", (0.04, 1.0))
    wanted = unit()
    state.fail("PATCH", status, times=2)
    await deployer.deploy(wanted)
    await until(deployer, wanted, ready)
    state.fail("PATCH", status, times=1000)
    begun = time.monotonic()
    with pytest.raises(ClusterUnavailable, match=f"answered {status}: injected {status}, 5 times"):
        await deployer.deploy(unit(version="4"))
    assert time.monotonic() - begun > 0.3  # half of 0.04 + 0.08 + 0.16 + 0.32 at the least
    assert state.count("PATCH", since=begun) == 5


async def test_a_429_waits_for_as_long_as_it_is_told(deployer: KubernetesDeployer, state: ClusterState) -> None:
    state.fail("PATCH", 429, Retry_After="1")
    begun = time.monotonic()
    await deployer.deploy(unit())
    assert time.monotonic() - begun >= 1.0


async def test_a_cut_watch_is_begun_again_without_a_busy_loop_and_misses_nothing(
    deployer: KubernetesDeployer, state: ClusterState
) -> None:
    wanted = unit()
    await deployer.deploy(wanted)
    await until(deployer, wanted, ready)
    begun = time.monotonic()
    for _ in range(12):  # a proxy that cuts every connection as soon as it is there
        state.cut_watches()
        await asyncio.sleep(0.05)
    state.remove("deployments", pattern.name(wanted))  # perhaps while nobody watched
    await until(deployer, wanted, lambda seen: seen.state == "absent")
    assert state.count("GET", "/deployments", since=begun) < 16  # a list and a watch each, with pauses between
    state.expire()
    await deployer.deploy(wanted)
    await until(deployer, wanted, ready)


async def test_a_quiet_deployment_costs_no_call_however_often_it_is_looked_at(
    deployer: KubernetesDeployer, state: ClusterState
) -> None:
    wanted = unit()
    await deployer.deploy(wanted)
    await until(deployer, wanted, ready)
    before = len(state.calls)
    for _ in range(200):
        assert ready(await deployer.observe(wanted))
    assert len(state.calls) == before


async def test_a_cluster_that_is_away_is_said_to_be_so_and_seen_again_when_it_is_back(
    deployer: KubernetesDeployer, state: ClusterState, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("control_plane.adapters.kubernetes_watch._FIRST_S", 0.3)
    monkeypatch.setattr(kubernetes, "_PAUSE_S", (0.1, 0.2))
    state.fail("GET", 503, times=4)
    with pytest.raises(ClusterUnavailable, match="does not list its deployments"):
        await deployer.observe(unit())

    async def back() -> bool:
        try:
            return (await deployer.observe(unit())).state == "absent"
        except ClusterUnavailable:
            return False

    await eventually(back, what="the cluster is seen again")


async def test_slow_pods_are_waited_for_and_what_keeps_them_is_told(
    deployer: KubernetesDeployer, state: ClusterState, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("control_plane.adapters.deployers.kubernetes._WHY_EVERY_S", 0.2)
    wanted, state.starts_s = unit(), 1.0
    state.pod_status = {
        "initContainerStatuses": [
            {"name": "artifact", "state": {"waiting": {"reason": "ImagePullBackOff", "message": "no such image"}}}
        ]
    }
    await deployer.deploy(wanted)
    name = pattern.name(wanted)
    about = {"name": f"{name}-abc", "kind": "Pod"}
    event = {"metadata": {"name": "e1"}, "type": "Warning", "reason": "FailedScheduling", "involvedObject": about}
    state.put("events", {**event, "message": "0/3 nodes are available", "count": 7})
    seen = await until(deployer, wanted, lambda seen: "FailedScheduling" in (seen.error or ""))
    assert seen.state == "starting"
    assert seen.error == (
        "artifact: ImagePullBackOff: no such image; FailedScheduling: 0/3 nodes are available (7 times)"
    )
    asked = state.count("GET", "/events")
    assert (await until(deployer, wanted, ready)).error is None
    assert state.count("GET", "/events") - asked < 12


async def test_a_deadline_the_cluster_has_given_up_at_is_a_failure_with_its_events(
    deployer: KubernetesDeployer, state: ClusterState
) -> None:
    wanted, state.never_ready = unit(), True
    await deployer.deploy(wanted)
    live = state.objects["deployments", pattern.name(wanted)]
    condition = {"type": "Progressing", "status": "False", "reason": "ProgressDeadlineExceeded", "message": "timed out"}
    status = {**live.get("status", {}), "conditions": [condition], "observedGeneration": 1}
    state.put("deployments", {**live, "metadata": dict(live["metadata"]), "status": status})
    seen = await until(deployer, wanted, lambda seen: seen.state == "failed")
    assert (seen.error or "").startswith("timed out")


async def test_one_of_three_pods_that_dies_does_not_take_the_version_away(
    deployer: KubernetesDeployer, state: ClusterState
) -> None:
    wanted = unit()
    await deployer.deploy(wanted)
    await until(deployer, wanted, ready)
    state.never_ready = True
    state.remove("pods", next(name for name in state.named("pods") if name.startswith(pattern.name(wanted))))
    await eventually(
        _true(lambda: state.objects["deployments", pattern.name(wanted)]["status"]["availableReplicas"] == 1),
        what="a pod is missing",
    )
    assert (await deployer.observe(wanted)).state == "ready"


async def test_a_server_of_another_artifact_is_never_ready(deployer: KubernetesDeployer) -> None:
    wanted = unit()
    await deployer.deploy(wanted)
    other = Unit(wanted.id, wanted.model, wanted.version, "sha256:" + "b" * 64, "native", wanted.config)
    assert (await until(deployer, other, lambda seen: seen.state == "failed")).error is not None


async def test_a_cluster_that_does_not_know_us_is_named_with_the_role_to_look_at(server: str, tmp_path: Path) -> None:
    stranger = access(server, tmp_path)
    cluster = Cluster(kubeconfig.Access(stranger.server, "models", False, lambda: "wrong"))
    with pytest.raises(ClusterUnavailable, match="infra/k8s"):
        await cluster.get(kubernetes.DEPLOYMENT, "churn-deployment")
    await cluster.aclose()


async def test_a_real_cluster_takes_the_same_objects(tmp_path: Path) -> None:
    """On the cluster KUBECONFIG names, which has infra/k8s applied in its namespace; else on the emulated one."""
    if not os.environ.get("KUBECONFIG"):
        state = ClusterState()
        for document in patterns():
            if document["kind"] == "Deployment":
                state.put("deployments", document)
        async with running_cluster(state) as url:
            await _live(access(url, tmp_path))
        return
    await _live(kubeconfig.access(os.environ))


async def _live(reached: kubeconfig.Access) -> None:
    deployer, wanted = KubernetesDeployer(Cluster(reached), "http://mlflow-server:5000"), unit(version="999")
    try:
        await deployer.deploy(wanted)
        await deployer.deploy(wanted)
        await until(deployer, wanted, lambda seen: seen.state != "absent")
        await eventually(lambda: deployer.retire(wanted.id), what="it is gone")
    finally:
        await deployer.aclose()


def _true(look: Callable[[], bool]) -> Callable[[], Any]:
    async def answer() -> bool:
        return look()

    return answer
