"""The images, built here on a base image and run as they are in production: as nobody, on a read-only disk."""

from pathlib import Path
from uuid import uuid4

import httpx
import pytest

from tests.support.docker import CANARY, CONFINED, TARGETS, docker, image, leaks
from tests.support.processes import free_port, wait_until

pytestmark = [pytest.mark.docker, pytest.mark.slow, pytest.mark.timeout(3_600)]


@pytest.mark.parametrize("target", TARGETS)
def test_nothing_runs_as_root_and_no_secret_is_in_any_layer(target: str) -> None:
    tag = image(target)
    assert docker("image", "inspect", tag, "--format", "{{.Config.User}}") == "10001:10001"
    assert docker("run", "--rm", *CONFINED, "--entrypoint", "id", tag, "-u") == "10001"
    assert leaks(tag, [CANARY]) == []


def test_a_secret_in_a_layer_that_a_later_one_removes_is_found(tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text(
        f"FROM {image('router')}\nUSER 0\nRUN echo {CANARY} | rev | rev > /left\nRUN rm /left\n"
    )
    docker("build", "--quiet", "--tag", "mlcp-leaky:test", str(tmp_path))
    try:
        found = leaks("mlcp-leaky:test", [CANARY])
        assert "mlcp-leaky:test: left" in found
        assert "mlcp-leaky:test: settings" in found
    finally:
        docker("image", "rm", "mlcp-leaky:test")


def test_a_router_starts_confined_and_answers() -> None:
    name, port = f"mlcp-{uuid4().hex[:8]}", free_port()
    env = ("--env", "MLCP_REDIS_URL=redis://127.0.0.1:1", "--env", f"MLCP_ROUTER_PORT={port}")
    volume = ("--tmpfs", "/var/lib/mlcp:uid=10001,gid=10001,mode=0700")
    docker("run", "--detach", "--name", name, "--network=host", *CONFINED, *volume, *env, image("router"))
    try:

        def answers() -> bool:
            try:
                return httpx.get(f"http://127.0.0.1:{port}/v2/health/live", timeout=2).status_code == 200
            except httpx.TransportError:
                return False

        wait_until(answers, what="the router answers", every=0.2)
    finally:
        docker("rm", "--force", name)


def test_the_data_planes_images_carry_no_weight_that_is_not_theirs() -> None:
    code = "import importlib.util as u, sys; print([name for name in sys.argv[1:] if u.find_spec(name)])"
    absent = {
        "router": ("mlflow", "numpy", "pyarrow", "sqlalchemy", "fastapi", "sklearn"),
        "model-server": ("mlflow", "sklearn", "pandas", "fastapi", "sqlalchemy"),
        "model-host": ("mlflow", "sklearn", "pandas", "fastapi", "sqlalchemy"),
    }
    for target, modules in absent.items():
        found = docker("run", "--rm", *CONFINED, "--entrypoint", "python3", image(target), "-c", code, *modules)
        assert found == "[]", target
