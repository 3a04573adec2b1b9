"""A machine with the base install and nothing more: the SDK and the command line work, and say what else they need."""

import json
import os
import subprocess
import sys
import tomllib
from datetime import UTC, datetime
from itertools import accumulate
from pathlib import Path

import pytest
import uv

from control_plane.adapters import signing
from control_plane.domain import audit_export, checkpoints
from control_plane.domain.audit import GENESIS, follow
from control_plane.domain.checkpoints import Signed
from model_servers import indexes

pytestmark = pytest.mark.integration
ROOT = Path(__file__).parents[2]
HEAVY = ("numpy", "msgspec", "yaml", "sqlalchemy", "fastapi", "redis", "mlflow", "pandas", "structlog")


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of an environment with the base dependencies and the project."""
    folder = tmp_path_factory.mktemp("bare")
    python = folder / "env" / "bin" / "python"
    base = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    for argv in (
        ["venv", "--python", sys.executable, str(folder / "env")],
        ["pip", "install", "--python", str(python), *base],
        ["pip", "install", "--python", str(python), "--no-deps", str(ROOT)],
    ):
        done = subprocess.run(
            [uv.find_uv_bin(), *argv], capture_output=True, text=True, timeout=240, env=indexes.environment()
        )
        assert done.returncode == 0, done.stderr
    return python


def run(python: Path, *argv: str) -> subprocess.CompletedProcess[str]:
    kept = {name: os.environ[name] for name in ("HOME", "LANG") if name in os.environ}
    env = {**kept, "PATH": f"{python.parent}:/usr/bin:/bin", "MLCP_HOME": str(python.parent / "none"), "COLUMNS": "80"}
    return subprocess.run(argv, env=env, cwd=python.parent, capture_output=True, text=True, timeout=240)


def test_the_sdk_imports_and_brings_nothing_heavy(python: Path) -> None:
    program = f"""
import sys
from importlib.util import find_spec
import control_plane.sdk as sdk
import control_plane.sdk.testing
import control_plane.cli
for name in sdk.__all__:
    getattr(sdk, name)
control_plane.cli.build()
assert [m for m in {HEAVY!r} if m in sys.modules or find_spec(m)] == []
"""
    done = run(python, str(python), "-W", "error", "-c", program)
    assert done.returncode == 0, done.stderr


def test_help_is_there_at_once_for_every_command(python: Path) -> None:
    done = run(python, "mlcp", "--help")
    assert (done.returncode, "promote" in done.stdout) == (0, True), done.stderr
    imported = run(python, str(python), "-X", "importtime", "-c", "import control_plane.cli").stderr
    assert not [name for name in ("httpx", "pydantic", "rich.table") if f"{name}\n" in imported]


@pytest.mark.parametrize(
    ("argv", "needs"),
    [
        (("train", "churn"), "pip install 'mlcp[training]'"),
        (("train", "churn", "--workers", "2"), "pip install 'mlcp[distributed]'"),
        (("simulate", "churn"), "pip install 'mlcp[training]'"),
        (("generate", "churn"), "pip install 'mlcp[serving]'"),
        (("features", "churn", "--data", "rows.csv"), "pip install 'mlcp[training]'"),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else "",
)
def test_what_needs_more_says_what_to_install(python: Path, argv: tuple[str, ...], needs: str) -> None:
    done = run(python, "mlcp", *argv)
    assert done.returncode == 6, done.stderr
    assert needs in " ".join(done.stderr.split())


def test_a_pin_works_on_a_host_that_has_nothing_else(python: Path, tmp_path: Path) -> None:
    target = {"id": "t1", "version": "1"}
    arm = {"variant": "stable", "weight": 10_000, "target": "t1"}
    route = {"targets": {"t1": target}, "arms": [arm], "salt": "s", "previous": "t1"}
    document = {"epoch": 1, "revision": 2, "created_at": "2026-11-20T00:00:00Z", "models": {"churn": route}}
    (tmp_path / "router").mkdir()
    (tmp_path / "router" / "snapshot.json").write_text(json.dumps(document))
    env = {"PATH": f"{python.parent}:/usr/bin:/bin", "MLCP_HOME": str(tmp_path)}
    argv = ["mlcp", "router", "pin", "churn", "--previous", "--reason", "night"]
    done = subprocess.run(argv, env=env, capture_output=True, text=True, timeout=240, executable=python.parent / "mlcp")
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "router" / "pins" / "churn.json").read_text())["target"] == "t1"


def test_an_export_of_the_audit_is_verified_with_nothing_but_the_base(python: Path, tmp_path: Path) -> None:
    signing.ensure(tmp_path)
    private = signing.load(tmp_path / signing.PRIVATE)
    links = list(accumulate((b"a", b"b", b"c"), follow, initial=GENESIS))
    now = datetime(2026, 3, 1, tzinfo=UTC)
    _, body = checkpoints.compose(links[1:3], previous=None, installation="i", key=private.key, at=now)
    lines = [audit_export.header("i", now), checkpoints.serialise(Signed(body, private.sign(body)))]
    lines += [*map(audit_export.link, links[1:]), audit_export.end(1, 3)]
    file, key = tmp_path / "audit.jsonl", str(tmp_path / signing.PUBLIC)
    file.write_bytes(b"".join(lines))
    done = run(python, "mlcp", "audit", "verify", "--export", str(file), "--public-key", key)
    assert (done.returncode, "signed up to link 2" in done.stdout) == (0, True), done.stderr
    forged = follow(follow(links[1], b"B"), b"c")
    lines[3:5] = map(audit_export.link, (follow(links[1], b"B"), forged))
    file.write_bytes(b"".join(lines))
    done = run(python, "mlcp", "audit", "verify", "--export", str(file), "--public-key", key)
    assert (done.returncode, "link 2 is the first bad one" in done.stderr) == (1, True)
    assert run(python, "mlcp", "audit", "verify", "--export", str(file)).returncode == 7
    assert run(python, "mlcp", "audit", "verify", "--export", "none", "--public-key", key).returncode == 3
