"""docker-compose.yml as it is, on images built here; Postgres, Redis and S3 come from wheels, not from a registry."""

import json
import os
import shlex
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from tests.support.docker import ROOT, clients, docker, image, leaks, stores
from tests.support.processes import free_port, wait_until

pytestmark = [pytest.mark.docker, pytest.mark.slow, pytest.mark.timeout(3_600)]
SERVICES = ("api", "reconciler", "worker", "ingest", "shipper", "models", "router", "mlflow-gate")
PATIENCE_S = 600.0


@dataclass(frozen=True, slots=True)
class Host:
    argv: list[str]
    env: dict[str, str]
    secrets: Path
    said: Path  # what `make compose-up` printed

    def compose(self, *arguments: str, within: float = 900) -> str:
        done = subprocess.run(
            [*self.argv, *arguments], cwd=ROOT, env=self.env, capture_output=True, text=True, timeout=within
        )
        assert done.returncode == 0, (arguments, done.stdout[-2_000:], done.stderr[-4_000:])
        return done.stdout

    def containers(self) -> dict[str, dict[str, Any]]:
        """By service; those that have ended too."""
        ids = self.compose("ps", "--quiet", "--all").split()
        seen = json.loads(docker("inspect", *ids))
        return {one["Config"]["Labels"]["com.docker.compose.service"]: one for one in seen}

    def key(self, name: str) -> dict[str, str]:
        said = self.compose("exec", "-T", "api", "cat", f"/var/lib/mlcp/keys/{name}.key")
        return {"Authorization": f"Bearer {said.strip()}"}

    def api(self, method: str, path: str, **more: Any) -> Any:
        url = f"http://{self.env['MLCP_API_ADDRESS']}/api/v1{path}"
        answer = httpx.request(method, url, headers=self.key("admin"), timeout=240, **more)
        assert answer.is_success, (path, answer.text)
        return answer.json()

    def predict(self, key: dict[str, str]) -> str:
        """The version that answers a churn prediction."""
        base = f"http://{self.env['MLCP_ROUTER_ADDRESS']}/ml/churn"
        body = httpx.get(f"{base}/example", headers=key, timeout=240).content
        answer = httpx.post(
            f"{base}/predict", headers=key | {"Content-Type": "application/json"}, content=body, timeout=240
        )
        return str(answer.json()["model_version"]) if answer.is_success else ""


def _stores(tag: str) -> dict[str, Any]:
    """What takes the place of the outside images: their commands, nothing of how they are confined."""
    python = ["CMD", "python3", "-c"]
    alive = "import urllib.request as u; u.urlopen('http://127.0.0.1:9000/healthcheck', timeout=3)"
    ping = "import socket; s = socket.create_connection(('127.0.0.1', 6379), 3); s.send(b'PING\\r\\n'); s.recv(5)"
    s3 = "exec python3 -W ignore /opt/swift_server.py /objects 9000 0.0.0.0"
    return {
        "postgres": {"image": tag, "command": ["sh", "/opt/postgres.sh"]},
        "redis": {"image": tag, "healthcheck": {"test": [*python, ping]}},
        "minio": {
            "image": tag,
            "entrypoint": ["sh", "-c", f'SWIFT_SECRET="$$(cat /run/secrets/s3_secret_key)" {s3}'],
            "command": [],
            "healthcheck": {"test": [*python, alive]},
        },
    }


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    folder = tmp_path_factory.mktemp("compose")
    (folder / "stores").mkdir()
    (folder / "s").mkdir()
    (folder / "s" / "s3_access_key").write_text("test:tester\n")  # as the S3 server of the tests names its user
    (folder / "s" / "s3_access_key").chmod(0o444)
    subprocess.run([ROOT / "infra" / "secrets.sh", folder / "s"], check=True)
    override = folder / "stores.yml"
    override.write_text(yaml.safe_dump({"services": _stores(stores(folder / "stores"))}))
    host = Host(clients()[1], _environment(folder, override), folder / "s", folder / "said")
    try:
        host.compose("config", "--quiet")
        with host.said.open("wb") as said:
            subprocess.run([ROOT / "infra" / "compose" / "up.sh"], env=host.env, stdout=said, check=True, timeout=3_000)
        yield host
    finally:
        if log := os.environ.get("MLCP_TEST_COMPOSE_LOG"):
            Path(log).write_text(host.compose("logs", "--no-color"))
        host.compose("down", "--volumes", "--timeout", "20")


def _environment(folder: Path, override: Path) -> dict[str, str]:
    named = ("control-plane", "worker", "router", "model-host", "mlflow", "trainer")
    docker, compose = clients()
    return {
        **os.environ,
        "DOCKER": docker,
        "COMPOSE": shlex.join(compose),
        **{f"MLCP_{name.upper().replace('-', '_')}_IMAGE": image(name) for name in named},
        "COMPOSE_FILE": f"{ROOT / 'docker-compose.yml'}{os.pathsep}{override}",
        "COMPOSE_PROJECT_NAME": f"mlcptest{os.getpid()}",
        "PROFILES": "core",
        "COMPOSE_PROFILES": "core,tools",
        "MLCP_SECRETS": str(folder / "s"),
        "MLCP_API_ADDRESS": f"127.0.0.1:{free_port()}",
        "MLCP_ROUTER_ADDRESS": f"127.0.0.1:{free_port()}",
        "MLCP_MLFLOW_ADDRESS": f"127.0.0.1:{free_port()}",
        "MLCP_MODELS_AT_START": "churn",
        "COMPOSE_WAIT_S": "1200",  # a machine of tests is busy
        "COMPOSE_HTTP_TIMEOUT": "600",
    }


def test_make_compose_up_ends_with_a_call_that_predicts_as_it_is_printed(host: Host) -> None:
    said = host.said.read_text()
    assert "The control plane is ready." in said, said
    call = said.partition("as the body:")[2]
    done = subprocess.run(["sh", "-euc", call], cwd=ROOT, env=host.env, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert (answer["model"], answer["model_version"]) == ("churn", "1"), answer
    states = {name: one["State"] for name, one in host.containers().items()}
    ended = {name: state["ExitCode"] for name, state in states.items() if state["Status"] == "exited"}
    assert not any(ended.values()), ended
    assert {states[name]["Health"]["Status"] for name in SERVICES} == {"healthy"}


def test_it_predicts_promotes_and_rolls_back(host: Host) -> None:
    key = host.key("predictor")
    assert host.predict(key) == "1"
    host.compose("run", "--rm", "-T", "trainer", "churn", "--seed", "7")

    def second() -> bool:
        return "2" in {one["version"] for one in host.api("GET", "/models/churn/versions")["items"]}

    wait_until(second, within=PATIENCE_S, what="version 2 is seen", every=0.5)
    host.api("POST", "/models/churn/promote/production", json={"version": "2", "reason": "tried out"})
    wait_until(lambda: host.predict(key) == "2", within=PATIENCE_S, what="version 2 answers", every=0.5)
    began = time.monotonic()
    host.api("POST", "/models/churn/rollback", json={"reason": "tried out"})
    wait_until(lambda: host.predict(key) == "1", within=PATIENCE_S, what="version 1 answers again", every=0.05)
    print(f"rolled back in {time.monotonic() - began:.2f} s")  # noqa: T201


def test_predictions_reach_the_database_and_the_metrics_of_every_process_one_page(host: Host) -> None:
    key = host.key("predictor")
    before = host.api("GET", "/models/churn/performance")
    for _ in range(20):
        assert host.predict(key)
    wait_until(
        lambda: host.api("GET", "/models/churn/performance") != before, within=PATIENCE_S, what="counted", every=1
    )
    page = httpx.get(f"http://{host.env['MLCP_ROUTER_ADDRESS']}/metrics", timeout=240).text
    beating = {line.split('"')[1] for line in page.splitlines() if line.startswith("mlcp_process_heartbeat")}
    assert {"api", "reconciler", "worker", "ingester", "shipper"} <= beating, beating


def test_nothing_runs_as_root_and_nothing_can_write_to_its_root(host: Host) -> None:
    for name, one in host.containers().items():
        assert one["HostConfig"]["ReadonlyRootfs"] is True, name
        assert one["HostConfig"]["CapDrop"] == ["ALL"], name
        assert one["Config"]["User"] not in ("", "0", "root", "0:0"), name
        assert not [mount for mount in one["Mounts"] if "docker.sock" in mount["Source"]], name
        if one["State"]["Status"] != "running":
            continue
        assert docker("exec", one["Id"], "id", "-u") != "0", name
        owners = {line.split()[1] for line in docker("top", one["Id"], "-eo", "pid,uid").splitlines()[1:]}
        assert owners, name
        assert "0" not in owners, name
        tried = subprocess.run([clients()[0], "exec", one["Id"], "touch", "/tried"], capture_output=True, text=True)
        assert "Read-only" in tried.stderr, (name, tried.stderr)


def test_no_secret_of_the_stack_is_in_an_image_or_in_what_docker_tells_of_a_container(host: Host) -> None:
    secrets = [line for path in host.secrets.iterdir() for line in path.read_text().splitlines() if len(line) > 20]
    secrets += [host.key(name)["Authorization"].split()[1] for name in ("admin", "approver", "predictor")]
    told = json.dumps(list(host.containers().values()))
    assert not [secret for secret in secrets if secret in told]
    for tag in sorted({one["Config"]["Image"] for one in host.containers().values()}):
        assert leaks(tag, secrets) == []


def test_who_is_not_to_reach_the_database_does_not(host: Host) -> None:
    look = "import socket; socket.create_connection(('postgres', 5432), 3)"
    found = host.containers()
    for name, may in (("router", False), ("models", False), ("shipper", False), ("api", True)):
        done = subprocess.run(
            [clients()[0], "exec", found[name]["Id"], "python3", "-c", look], capture_output=True, text=True
        )
        assert (done.returncode == 0) is may, (name, done.stderr)
