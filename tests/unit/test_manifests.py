"""What is applied to a cluster: as kustomize renders it, valid by Kubernetes' own schemas, no mightier than needed."""

import shutil
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from tests.support.cluster import strictly

K8S = Path(__file__).resolve().parents[2] / "infra" / "k8s"
RENDERED = {
    "dev": K8S / "mlops-platform.yaml",
    "prod": K8S / "rendered" / "prod.yaml",
    "monitoring": K8S / "rendered" / "monitoring.yaml",
    "gateway": K8S / "rendered" / "gateway.yaml",
}
PLAIN = ("dev", "prod")  # without custom resources
_VERSIONS = sorted(set(kubernetes_validate.utils.all_versions()), key=lambda text: tuple(map(int, text.split("."))))
Object = dict[str, Any]


@cache
def objects(overlay: str) -> tuple[Object, ...]:
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    return tuple(yaml.load_all(RENDERED[overlay].read_text(), Loader=loader))


def pods(overlay: str) -> Iterator[tuple[str, Object]]:
    """(name, pod template) of everything that runs pods."""
    for document in objects(overlay):
        spec = document.get("spec", {})
        template = spec.get("jobTemplate", {}).get("spec", spec).get("template")
        if template:
            yield f"{document['kind']} {document['metadata']['name']}", template


def containers(overlay: str) -> Iterator[tuple[str, Object]]:
    for name, template in pods(overlay):
        for container in (*template["spec"].get("initContainers", ()), *template["spec"]["containers"]):
            yield f"{name}/{container['name']}", container


@pytest.mark.kubectl
@pytest.mark.parametrize("overlay", RENDERED)
def test_the_committed_rendering_is_what_kustomize_says(overlay: str) -> None:
    argv = [str(shutil.which("kubectl")), "kustomize", str(K8S / "overlays" / overlay)]
    done = subprocess.run(argv, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout == RENDERED[overlay].read_text(), "run: make k8s"


def test_every_resource_a_kustomization_names_is_there_and_in_the_rendering() -> None:
    """Also where there is no kubectl: nothing of the base is missing from what is applied."""
    named = yaml.safe_load((K8S / "base" / "kustomization.yaml").read_text())["resources"]
    files = [K8S / "base" / name for name in named]
    files = [path / "k8s.yaml" if path.is_dir() else path for path in files]
    for overlay in PLAIN:
        there = {(document["kind"], document["metadata"]["name"]) for document in objects(overlay)}
        for path in files:
            for document in yaml.safe_load_all(path.read_text()):
                assert (document["kind"], document["metadata"]["name"]) in there, path


@pytest.mark.parametrize("version", [_VERSIONS[0], _VERSIONS[-2], _VERSIONS[-1]])
@pytest.mark.parametrize("overlay", PLAIN)
def test_every_manifest_is_valid_strictly_on_the_oldest_the_current_and_the_newest_kubernetes(
    overlay: str, version: str
) -> None:
    assert len(objects(overlay)) >= 60
    for document in objects(overlay):
        strictly(document, version)


def test_a_member_kubernetes_does_not_know_is_refused() -> None:
    document = next(entry for entry in objects("prod") if entry["kind"] == "Deployment")
    with pytest.raises(kubernetes_validate.ValidationError):
        strictly({**document, "spec": {**document["spec"], "replica": 3}}, _VERSIONS[-1])


@pytest.mark.parametrize("overlay", PLAIN)
def test_nothing_has_to_be_installed_first(overlay: str) -> None:
    own = (
        "apps/v1",
        "autoscaling/v2",
        "batch/v1",
        "networking.k8s.io/v1",
        "policy/v1",
        "rbac.authorization.k8s.io/v1",
        "v1",
    )
    assert {document["apiVersion"] for document in objects(overlay)} <= set(own)


@pytest.mark.parametrize("overlay", PLAIN)
def test_every_container_is_confined_sized_and_watched(overlay: str) -> None:
    for name, container in containers(overlay):
        context = container["securityContext"]
        assert context["readOnlyRootFilesystem"] is True, name
        assert context["allowPrivilegeEscalation"] is False, name
        assert context["capabilities"] == {"drop": ["ALL"]}, name
        assert container["resources"]["requests"].keys() == {"cpu", "memory"}, name
        assert "memory" in container["resources"]["limits"], name
        lasting = not name.startswith(("Job", "CronJob")) and not name.endswith("/artifact")
        assert not lasting or {"readinessProbe", "livenessProbe"} <= container.keys(), name
    for name, template in pods(overlay):
        context = template["spec"]["securityContext"]
        assert (context["runAsNonRoot"], context["seccompProfile"]) == (True, {"type": "RuntimeDefault"}), name
        assert context["runAsUser"] > 0, name
        may = name.removeprefix("Deployment ") in {"reconciler", "worker"}
        assert template["spec"].get("automountServiceAccountToken", True) is may, name  # who speaks to the cluster
    (namespace,) = (document for document in objects(overlay) if document["kind"] == "Namespace")
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"


@pytest.mark.parametrize("overlay", PLAIN)
def test_a_role_grants_no_more_than_its_process_does(overlay: str) -> None:
    granted = {
        (document["metadata"]["name"], resource, verb)
        for document in objects(overlay)
        if document["kind"] == "Role"
        for rule in document["rules"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }
    assert not [entry for entry in granted if "*" in entry or entry[1] in {"secrets", "pods/exec", "roles"}]
    assert not [document for document in objects(overlay) if document["kind"].startswith("ClusterRole")]
    assert {resource for role, resource, _ in granted if role == "trainer"} == {
        "cronjobs",
        "jobs",
        "pods",
        "pods/log",
        "events",
    }


@pytest.mark.parametrize("overlay", PLAIN)
def test_nobody_talks_to_anybody_unless_a_policy_says_so(overlay: str) -> None:
    policies = [document for document in objects(overlay) if document["kind"] == "NetworkPolicy"]
    (deny,) = (entry for entry in policies if entry["metadata"]["name"] == "default-deny")
    assert deny["spec"] == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    servers = next(entry for entry in policies if entry["metadata"]["name"] == "model-servers")["spec"]
    assert servers["egress"] == [
        {
            "to": [{"podSelector": {"matchLabels": {"app": "mlflow-server"}}}],
            "ports": [{"protocol": "TCP", "port": 5000}],
        }
    ]
    for name, template in pods(overlay):  # every pod has a policy of its own
        labels = template["metadata"]["labels"]
        chosen = [entry["spec"]["podSelector"].get("matchLabels", {}) for entry in policies]
        assert any(selector and selector.items() <= labels.items() for selector in chosen), name


def test_the_data_plane_mounts_no_password_of_the_database() -> None:
    templates = dict(pods("prod"))
    assert "mlcp-control-plane" not in str(templates["StatefulSet router"])
    assert "secretKeyRef" not in str(templates["StatefulSet router"])
    for model in ("categorization", "churn", "fraud"):
        assert "secret" not in str(templates[f"Deployment {model}-deployment"]).lower()


@pytest.mark.parametrize("model", ["categorization", "churn", "fraud"])
def test_every_model_has_its_deployment_service_autoscaler_and_budget(model: str) -> None:
    mine = {
        document["kind"]: document
        for document in objects("dev")
        if document["metadata"].get("labels", {}).get("app") == model
    }
    assert mine["Deployment"]["metadata"]["name"] == f"{model}-deployment"
    assert mine.keys() == {"Deployment", "Service", "HorizontalPodAutoscaler", "PodDisruptionBudget"}
    assert all(entry["metadata"]["labels"]["component"] == "ml-platform" for entry in mine.values())
    chosen = mine["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"]
    assert chosen.items() <= mine["Deployment"]["spec"]["template"]["metadata"]["labels"].items()


def test_there_is_one_of_each_process_and_three_reconcilers() -> None:
    replicas = {
        document["metadata"]["name"]: document["spec"].get("replicas")
        for document in objects("prod")
        if document["kind"] in {"Deployment", "StatefulSet"}
    }
    assert replicas["reconciler"] == 3
    assert {"api", "worker", "ingest", "router", "mlflow-server"} <= replicas.keys()
    assert any(
        document["kind"] == "Job" and document["metadata"]["name"] == "migrations" for document in objects("prod")
    )
