"""docker-compose.yml: valid by the Compose Specification's own schema, and nothing in it is mightier than it has to be.

tests/support/compose_spec holds that schema as its authors publish it (Apache-2.0, licence beside it).
"""

import importlib.util
import json
import os
import re
import shutil
import subprocess
import tomllib
from collections.abc import Iterator
from copy import deepcopy
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

import control_plane
from control_plane import settings

ROOT = Path(__file__).resolve().parents[2]
SCHEMA = ROOT / "tests" / "support" / "compose_spec" / "compose-spec.json"
OURS = "mlcp-"  # images of infra/images, whose user is 10001
ONCE = {"objects-folder", "buckets", "minio-keys", "migrations", "first-models", "trainer"}
Object = dict[str, Any]


@cache
def parsed(name: str = "docker-compose.yml") -> Object:
    return dict(yaml.safe_load((ROOT / name).read_text()))


def default(value: Any) -> str:
    """As Compose reads it with nothing set: ${NAME:-default}."""
    return re.sub(r"\$\{\w+(?::?-([^{}]*))?\}", lambda found: found[1] or "", str(value)).replace("$$", "$")


def services() -> Iterator[tuple[str, Object]]:
    yield from parsed()["services"].items()


def words(service: Object) -> list[str]:
    told: list[Any] = []
    for member in ("entrypoint", "command"):
        value = service.get(member) or []
        told += value if isinstance(value, list) else [value]
    return [default(word) for word in told]


def mounts(service: Object) -> list[tuple[str, str, bool]]:
    """(from, to, read-only) of every volume and bind."""
    split = [default(entry).split(":") for entry in service.get("volumes", ())]
    return [(parts[0], parts[1], parts[2:] == ["ro"]) for parts in split]


def problems(document: Object) -> list[str]:
    validator = jsonschema.Draft202012Validator(json.loads(SCHEMA.read_text()))
    return [f"{list(error.absolute_path)}: {error.message}" for error in validator.iter_errors(document)]


@pytest.mark.parametrize("name", ["docker-compose.yml", "infra/compose/rustfs.yml"])
def test_the_file_is_valid_by_the_specification(name: str) -> None:
    assert problems(parsed(name)) == []


def test_a_member_the_specification_does_not_know_is_refused() -> None:
    wrong = deepcopy(parsed())
    wrong["services"]["api"]["read_onyl"] = True
    assert problems(wrong)


def test_everything_named_is_there_and_everything_there_is_used() -> None:
    for kind in ("secrets", "networks"):
        used = {default(name) for _, service in services() for name in service.get(kind, ())}
        unused = {"outside"} if kind == "networks" else set[str]()
        assert used | unused == set(parsed()[kind]) | unused, kind
    named = {source for _, service in services() for source, _, _ in mounts(service) if not source.startswith(".")}
    assert named == set(parsed()["volumes"])
    for name, service in services():
        for source, _, _ in mounts(service):
            assert not source.startswith(".") or (ROOT / source).exists(), (name, source)
        assert bool(service.get("networks")) is ("network_mode" not in service), name


def test_the_order_waits_for_health_and_has_no_circle() -> None:
    after = {name: service.get("depends_on", {}) for name, service in services()}
    for name, wanted in after.items():
        for other, how in wanted.items():
            assert how["condition"] == ("service_completed_successfully" if other in ONCE else "service_healthy"), name
            assert set(parsed()["services"][other]["profiles"]) <= set(parsed()["services"][name]["profiles"]), name
    done: set[str] = set()
    while len(done) < len(after):
        ready = {name for name, wanted in after.items() if name not in done and set(wanted) <= done}
        assert ready, f"these wait for each other: {set(after) - done}"
        done |= ready


def test_whatever_lasts_says_whether_it_works_and_whatever_ends_is_not_started_again() -> None:
    for name, service in services():
        if name in ONCE:
            assert service["restart"] in ("no", "on-failure"), name
        else:
            assert service["restart"] == "unless-stopped", name
            assert service["healthcheck"]["test"][0] in ("CMD", "CMD-SHELL"), name


def test_nothing_runs_as_root_or_on_a_disk_it_can_write_or_with_a_right_to_more() -> None:
    for name, service in services():
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert not service.keys() & {"privileged", "cap_add", "devices", "pid", "ipc", "userns_mode"}, name
        if not default(service["image"]).startswith(OURS):
            assert int(service["user"].split(":")[0]) > 0, name
        assert not [source for source, _, _ in mounts(service) if "docker.sock" in source], name
        assert all(only for source, _, only in mounts(service) if source.startswith(".")), f"{name} writes to the host"
        assert all(default(port).startswith("127.0.0.1:") for port in service.get("ports", ())), name


def test_every_process_of_ours_that_lasts_has_where_to_count() -> None:
    for name, service in services():
        lasts = default(service["image"]).startswith(OURS) and name not in ONCE | {"mlflow"}
        assert not lasts or ("run", "/var/lib/mlcp/run", False) in mounts(service), name


def test_what_images_say_is_their_version_is_the_projects() -> None:
    assert tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"] == control_plane.VERSION


def test_every_image_has_a_tag_that_stays() -> None:
    for name, service in services():
        _, _, tag = default(service["image"]).rpartition(":")
        assert re.search(r"\d", tag), name
        assert "latest" not in tag, name


def test_secrets_are_files_that_one_command_makes_and_reach_only_who_needs_them(tmp_path: Path) -> None:
    subprocess.run([ROOT / "infra" / "secrets.sh", tmp_path / "s"], check=True)
    made = {path.name: path.read_text() for path in (tmp_path / "s").iterdir()}
    for name, secret in parsed()["secrets"].items():
        assert default(secret["file"]).startswith("./secrets/"), name
        assert made[Path(default(secret["file"])).name].strip(), name
    assert (tmp_path / "s").stat().st_mode & 0o777 == 0o700
    subprocess.run([ROOT / "infra" / "secrets.sh", tmp_path / "s"], check=True)
    assert {path.name: path.read_text() for path in (tmp_path / "s").iterdir()} == made  # nothing is made twice
    holders: dict[str, set[str]] = {}
    for name, service in services():
        for secret in service.get("secrets", ()):
            holders.setdefault(secret, set()).add(name)
        for variable, value in service.get("environment", {}).items():
            said = default(value)
            hidden = re.search("PASSWORD|SECRET|TOKEN|_KEY|CREDENTIAL|DSN", variable) is not None
            assert not hidden or said.startswith(("/run/secrets", "false")), (name, variable)
    assert holders["mlcp_postgres_owner_dsn"] == {"migrations"}
    assert holders["mlcp_postgres_dsn"] == {"migrations", "api", "reconciler", "worker", "ingest", "mlflow-gate"}
    assert holders["mlcp_router_token"] == {"api", "router"}


def test_the_data_plane_has_no_way_to_the_database_and_model_servers_have_no_way_anywhere() -> None:
    found = parsed()["services"]
    for name in ("router", "shipper", "models"):
        assert "database" not in found[name]["networks"], name
        assert not [secret for secret in found[name].get("secrets", ()) if "postgres" in secret], name
        assert not [source for source, _, _ in mounts(found[name]) if source in ("keys", "postgres")], name
    assert [default(name) for name in found["models"]["networks"]] == ["sealed"]
    assert [name for name, service in services() if "sealed" in map(default, service.get("networks", ()))] == ["models"]
    assert not found["models"].get("secrets")
    assert [name for name, network in parsed()["networks"].items() if not network.get("internal")] == ["outside"]


def test_reconciler_router_and_model_servers_share_what_they_have_to() -> None:
    found = parsed()["services"]
    for name in ("reconciler", "router", "models"):
        assert ("run", "/var/lib/mlcp/run", False) in mounts(found[name]), name
    assert ("artifacts", "/var/lib/mlcp/cache/artifacts", False) in mounts(found["reconciler"])
    assert ("artifacts", "/var/lib/mlcp/cache/artifacts", True) in mounts(found["models"])


def test_every_module_that_is_run_exists_and_every_variable_is_a_setting() -> None:
    known = {
        f"MLCP_{field.upper()}"
        for kind in vars(settings).values()
        if isinstance(kind, type) and issubclass(kind, settings.BaseSettings)
        for field in kind.model_fields
    }
    known |= {"MLCP_SECRETS_DIR", "MLCP_READY_FILE", "MLCP_ROUTER_URL", "MLCP_MODELS_AT_START"}
    known |= {"MLCP_RUNBOOK_URL", "MLCP_DASHBOARDS"}  # of Prometheus and Grafana
    for name, service in services():
        told = words(service)
        for before, word in pairwise(told):
            assert before != "-m" or importlib.util.find_spec(word) is not None, (name, word)
        for variable in service.get("environment", {}):
            assert not variable.startswith("MLCP_") or variable in known, (name, variable)


def test_prometheus_finds_what_its_configuration_names() -> None:
    base = "/etc/mlcp/infra/prometheus"
    there = {to: source for source, to, _ in mounts(parsed()["services"]["prometheus"])}
    config = yaml.safe_load((ROOT / there[f"{base}/prometheus.yml"]).read_text())
    assert there[f"{base}/rules"] == "./infra/prometheus/rules"
    assert all(name.startswith(("rules/", "../../model_servers/")) for name in config["rule_files"])
    assert there["/etc/mlcp/model_servers"] == "./model_servers"
    (job,) = config["scrape_configs"]
    (asked,) = config["alerting"]["alertmanagers"]
    assert job["file_sd_configs"] == [{"files": ["targets/*.yaml"]}]
    assert asked["file_sd_configs"] == [{"files": ["alertmanagers/*.yaml"]}]
    for folder, name in (("targets", "router:8080"), ("alertmanagers", "alertmanager:9093")):
        (group,) = yaml.safe_load((ROOT / there[f"{base}/{folder}/compose.yaml"]).read_text())
        assert group["targets"] == [name]


def test_alerts_are_routed_as_on_one_machine_to_other_addresses() -> None:
    here = yaml.safe_load((ROOT / "infra" / "compose" / "alertmanager.yml").read_text())
    there = yaml.safe_load((ROOT / "infra" / "prometheus" / "alertmanager.yml").read_text())
    for config in (here, there):
        (hook,) = config["receivers"][0]["webhook_configs"]
        hook["url"] = hook["url"].partition("/api/")[2]
        del hook["http_config"]["authorization"]["credentials_file"]
    assert here == there


@pytest.mark.parametrize("script", sorted(path.relative_to(ROOT) for path in (ROOT / "infra").rglob("*.sh")), ids=str)
def test_every_script_can_be_read_by_a_plain_shell(script: Path) -> None:
    subprocess.run(["sh", "-n", ROOT / script], check=True)
    assert (ROOT / script).stat().st_mode & 0o100, f"{script} cannot be run"


@cache
def copied() -> dict[str, set[str]]:
    """Of each image: the files and folders of the checkout that are in it."""
    found: dict[str, set[str]] = {}
    stage = ""
    for line in (ROOT / "infra" / "images" / "Dockerfile").read_text().splitlines():
        words = line.split()
        if words[:1] == ["FROM"]:
            stage = words[3]
            found[stage] = set(found.get(words[1], set()))
        elif words[:1] == ["COPY"] and not words[1].startswith("--"):
            found[stage] |= set(words[1:-1])
    return found


def missing(image: str, told: list[str]) -> list[str]:
    """Modules that are run and are not in the image."""
    stage = image.removeprefix(OURS).partition(":")[0]
    files = [after.replace(".", "/") for before, after in pairwise(told) if before == "-m"]
    there = copied()[stage]
    return [
        file
        for file in files
        if not any(f"{file}.py".startswith(f"{place}/") or f"{file}.py" == place or file == place for place in there)
    ]


def test_what_a_service_runs_is_in_its_image() -> None:
    for name, service in services():
        image = default(service["image"])
        if image.startswith(OURS):
            tested = [*words(service), *service.get("healthcheck", {}).get("test", ())]
            assert missing(image, tested) == [], name
    assert missing("mlcp-router:0.1.0", ["-m", "training"]) == ["training"]


def test_what_a_pod_runs_is_in_its_image() -> None:
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    seen = 0
    for document in yaml.load_all((ROOT / "infra" / "k8s" / "mlops-platform.yaml").read_text(), Loader=loader):
        spec = document.get("spec", {})
        template = spec.get("jobTemplate", {}).get("spec", spec).get("template", {}).get("spec", {})
        for container in (*template.get("initContainers", ()), *template.get("containers", ())):
            if container["image"].startswith(OURS):
                seen += 1
                told = [*container.get("command", ()), *container.get("args", ())]
                assert missing(container["image"], told) == [], (document["metadata"]["name"], container["name"])
    assert seen >= 15


def test_what_compose_up_does_is_set_in_env_and_what_is_set_already_wins(tmp_path: Path) -> None:
    """A docker and a compose that only write down what they are told."""
    shutil.copytree(ROOT / "infra", tmp_path / "infra")
    env_file = (
        '# ours\n\nCOMPOSE_PROFILES=core,monitoring\nMLCP_SECRETS="./elsewhere"\nMLCP_API_ADDRESS=10.0.0.1:80\n2=x\n'
    )
    (tmp_path / ".env").write_text(env_file)
    told = tmp_path / "told"
    tool = tmp_path / "tool"
    tool.write_text(f'#!/bin/sh\necho "$COMPOSE_PROFILES: $*" >> {told}\ncase $1 in inspect) echo healthy ;; esac\n')
    tool.chmod(0o700)
    env = {"PATH": os.environ["PATH"], "DOCKER": str(tool), "COMPOSE": str(tool), "MLCP_ROUTER_ADDRESS": "127.0.0.1:81"}
    said = subprocess.run(
        [tmp_path / "infra/compose/up.sh"], env=env, check=True, capture_output=True, text=True
    ).stdout
    lines = told.read_text().splitlines()
    assert lines[0] == "core,monitoring: up --detach"
    assert lines[-1] == "core,monitoring,tools: run --rm -T first-models"
    assert (tmp_path / "elsewhere" / "mlcp_postgres_dsn").exists()
    assert not (tmp_path / "secrets").exists()
    assert "http://10.0.0.1:80/docs" in said
    assert "http://127.0.0.1:81/ml/churn/predict" in said
    (tmp_path / ".env").write_text("MLCP_ROUTER_ADDRESS=127.0.0.1:82")  # its last line need not end
    said = subprocess.run(
        [tmp_path / "infra/compose/up.sh"], env=env | {"PROFILES": "core"}, check=True, capture_output=True, text=True
    ).stdout
    assert "http://127.0.0.1:81/ml/churn/predict" in said


@pytest.mark.parametrize(("builds", "plugin"), [(True, True), (False, False)])
def test_a_docker_client_that_cannot_build_is_passed_by(tmp_path: Path, builds: bool, plugin: bool) -> None:
    """From Docker 23 on building takes a plugin; Compose is a plugin or a program of its own."""
    for folder, works in (("first", builds), ("second", True)):
        (tmp_path / folder).mkdir()
        client = tmp_path / folder / "docker"
        client.write_text(
            f"#!/bin/sh\ncase $1 in build) exit {int(not works)} ;; compose) exit {int(not plugin)} ;; esac\n"
        )
        client.chmod(0o700)
    path = f"{tmp_path / 'first'}{os.pathsep}{tmp_path / 'second'}{os.pathsep}{os.environ['PATH']}"
    source = '. infra/compose/clients.sh; echo "$DOCKER"; echo "$COMPOSE"'
    told = subprocess.run(["sh", "-euc", source], cwd=ROOT, env={"PATH": path}, check=True, capture_output=True)
    chosen = "docker" if builds else str(tmp_path / "second" / "docker")
    assert told.stdout.decode().split("\n")[:2] == [chosen, f"{chosen} compose" if plugin else "docker-compose"]
