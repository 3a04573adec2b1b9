"""The images, built here on a base image and run as they are in production: as nobody, on a read-only disk."""

import os
import secrets
import subprocess
from pathlib import Path
from uuid import uuid4

import httpx
import pytest

from tests.support.processes import free_port, wait_until

ROOT = Path(__file__).resolve().parents[2]
DOCKER = os.environ.get("DOCKER", "docker")
CONFINED = ("--read-only", "--tmpfs", "/tmp", "--cap-drop", "ALL", "--security-opt", "no-new-privileges")
pytestmark = [pytest.mark.docker, pytest.mark.slow, pytest.mark.timeout(3_600)]


def docker(*arguments: str) -> str:
    done = subprocess.run(
        [DOCKER, *arguments], capture_output=True, text=True, env={**os.environ, "DOCKER_BUILDKIT": "1"}
    )
    assert done.returncode == 0, done.stderr[-3_000:]
    return done.stdout.strip()


@pytest.fixture(scope="module")
def canary(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """A build secret and the file it is in: pip's settings, as they are here."""
    word, path = secrets.token_hex(16), tmp_path_factory.mktemp("secret") / "pip.conf"
    path.write_text(f"# {word}\n[global]\ntimeout = 60\n")
    return word, path


@pytest.fixture(scope="module", params=["router", "model-server", "control-plane"])
def image(request: pytest.FixtureRequest, canary: tuple[str, Path]) -> str:
    tag = f"mlcp-{request.param}:test"
    arguments = ["build", "--network=host", "--quiet", "--file", str(ROOT / "infra" / "images" / "Dockerfile")]
    arguments += ["--build-arg", f"BASE_IMAGE={os.environ['MLCP_TEST_BASE_IMAGE']}", "--target", request.param]
    arguments += ["--secret", f"id=pip,src={canary[1]}", "--tag", tag]
    if ca := os.environ.get("SSL_CERT_FILE"):
        arguments += ["--secret", f"id=ca,src={ca}"]
    docker(*arguments, str(ROOT))
    return tag


def test_nothing_runs_as_root_and_no_secret_is_in_any_layer(
    image: str, canary: tuple[str, Path], tmp_path: Path
) -> None:
    assert docker("image", "inspect", image, "--format", "{{.Config.User}}") == "10001:10001"
    assert docker("run", "--rm", *CONFINED, "--entrypoint", "id", image, "-u") == "10001"
    told = docker("image", "inspect", image, "--format", "{{json .Config}}") + docker("history", "--no-trunc", image)
    assert canary[0] not in told
    docker("save", "--output", str(tmp_path / "image.tar"), image)
    (tmp_path / "layers").mkdir()
    subprocess.run(["tar", "-xf", str(tmp_path / "image.tar"), "-C", str(tmp_path / "layers")], check=True)
    for layer in (tmp_path / "layers").rglob("*.tar"):
        assert canary[0].encode() not in layer.read_bytes()


def test_a_router_starts_confined_and_answers() -> None:
    name, port = f"mlcp-{uuid4().hex[:8]}", free_port()
    env = ("--env", "MLCP_REDIS_URL=redis://127.0.0.1:1", "--env", f"MLCP_ROUTER_PORT={port}")
    volume = ("--tmpfs", "/var/lib/mlcp:uid=10001,gid=10001,mode=0700")
    docker("run", "--detach", "--name", name, "--network=host", *CONFINED, *volume, *env, "mlcp-router:test")
    try:

        def answers() -> bool:
            try:
                return httpx.get(f"http://127.0.0.1:{port}/v2/health/live", timeout=2).status_code == 200
            except httpx.TransportError:
                return False

        wait_until(answers, within=60, what="the router answers", every=0.2)
    finally:
        docker("rm", "--force", name)


def test_the_data_planes_images_carry_no_weight_that_is_not_theirs() -> None:
    code = "import importlib.util as u, sys; print([name for name in sys.argv[1:] if u.find_spec(name)])"
    absent = {
        "mlcp-router:test": ("mlflow", "numpy", "pyarrow", "sqlalchemy", "fastapi", "sklearn"),
        "mlcp-model-server:test": ("mlflow", "sklearn", "pandas", "fastapi", "sqlalchemy"),
    }
    for name, modules in absent.items():
        assert docker("run", "--rm", *CONFINED, "--entrypoint", "python3", name, "-c", code, *modules) == "[]"
