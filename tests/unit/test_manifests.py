"""What is applied to a cluster: as kustomize renders it, valid by Kubernetes' own schemas, no mightier than needed."""

import os
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


def test_every_process_is_scraped_where_it_answers_and_as_the_rules_look_for_it() -> None:
    named = {
        document["metadata"]["name"]: document for document in objects("monitoring") if document["kind"] == "PodMonitor"
    }
    assert named.keys() == {"router", "api", "reconciler", "worker", "ingest"}  # the shipper is in the router's pod
    for name, monitor in named.items():
        (endpoint,) = monitor["spec"]["podMetricsEndpoints"]
        assert endpoint["relabelings"] == [{"targetLabel": "job", "replacement": "mlcp"}], name
        chosen = monitor["spec"]["selector"]["matchLabels"]
        templates = [one for _, one in pods("prod") if chosen.items() <= one["metadata"]["labels"].items()]
        ports = {
            port["name"]: port for one in templates for c in one["spec"]["containers"] for port in c.get("ports", ())
        }
        number = ports[endpoint["port"]]["containerPort"]
        policies = [
            rule
            for document in objects("prod")
            if document["kind"] == "NetworkPolicy" and document["spec"]["podSelector"].get("matchLabels") == chosen
            for rule in document["spec"].get("ingress", ())
        ]
        assert any(port["port"] == number for rule in policies for port in rule["ports"]), f"{name}: closed to scrapes"


def test_the_clusters_rules_are_those_of_prometheus_and_of_every_model() -> None:
    def alerts(groups: list[Object]) -> list[str]:
        return sorted(rule["alert"] for group in groups for rule in group["rules"] if "alert" in rule)

    root = K8S.parents[1]
    files = [*(root / "infra" / "prometheus" / "rules").glob("*.yaml"), *root.glob("model_servers/*/prometheus.yaml")]
    wanted = sorted(name for path in files for name in alerts(yaml.safe_load(path.read_text())["groups"]))
    rules = [document for document in objects("monitoring") if document["kind"] == "PrometheusRule"]
    assert sorted(name for rule in rules for name in alerts(rule["spec"]["groups"])) == wanted
    every = [one for rule in rules for group in rule["spec"]["groups"] for one in group["rules"] if "alert" in one]
    assert {one["labels"]["namespace"] for one in every} == {"ml-platform"}


def mounted(template: Object) -> Iterator[tuple[str, bool]]:
    """(name of a Secret, whether the pod starts without it)."""
    for volume in template["spec"].get("volumes", ()):
        sources = [volume, *volume.get("projected", {}).get("sources", ())]
        for source in sources:
            if "secret" in source:
                name = source["secret"].get("secretName") or source["secret"]["name"]
                yield name, bool(source["secret"].get("optional"))


@pytest.mark.kubectl
def test_one_command_makes_every_secret_that_a_pod_or_alertmanager_reads(tmp_path: Path) -> None:
    def made(**env: str) -> dict[str, Object]:
        done = subprocess.run(
            [K8S / "secrets.sh", tmp_path / "s"],
            env={**os.environ, "APPLY": "sed $a---", **env}, capture_output=True, text=True, check=True,
        )  # fmt: skip
        return {one["metadata"]["name"]: one["data"] for one in yaml.safe_load_all(done.stdout) if one}

    secrets = made(DEV="1")
    assert made() == secrets  # a second time nothing is new
    for overlay in PLAIN:
        for name, template in pods(overlay):
            for secret, _ in mounted(template):
                assert secret in secrets, (name, secret)
            for container in (*template["spec"].get("initContainers", ()), *template["spec"]["containers"]):
                for variable in container.get("env", ()):
                    if asked := variable.get("valueFrom", {}).get("secretKeyRef"):
                        assert asked["key"] in secrets[asked["name"]], (name, asked)
    (config,) = (one for one in objects("monitoring") if one["kind"] == "AlertmanagerConfig")
    (hook,) = config["spec"]["receivers"][0]["webhookConfigs"]
    asked = hook["httpConfig"]["authorization"]["credentials"]
    assert secrets[asked["name"]][asked["key"]] == secrets["mlcp-control-plane"]["mlcp_alert_webhook_secret"]
    assert "mlcp_audit_public_key" in secrets["mlcp-control-plane"]


def test_the_key_that_signs_the_audit_is_the_reconcilers_alone() -> None:
    for overlay in PLAIN:
        assert [name for name, one in pods(overlay) if "mlcp-audit" in dict(mounted(one))] == ["Deployment reconciler"]
    (api,) = (one for name, one in pods("prod") if name == "Deployment api")
    told = {entry["name"]: entry.get("value") for entry in api["spec"]["containers"][0]["env"]}
    assert told["MLCP_AUDIT_PUBLIC_KEY_FILE"] == "/run/secrets/mlcp/mlcp_audit_public_key"
