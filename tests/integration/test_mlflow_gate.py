"""The gate before a real MLflow, with MLflow's own client and with whoever tries something else."""

import asyncio
import contextlib
import json
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
from pydantic import SecretStr
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from control_plane.api.mlflow_gate import create_gate
from control_plane.settings import GateSettings
from tests.support.api import Api, on_a_port
from tests.support.processes import eventually, free_port, running

pytestmark = pytest.mark.integration
API = "/api/2.0/mlflow"
MEGABYTE = 2**20
CLIENT = """
import json, sys, tempfile, pathlib, mlflow
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
client, done, refused = MlflowClient(), {}, {}
mlflow.set_experiment("through-the-gate")
with mlflow.start_run() as run:
    mlflow.log_params({"depth": 3}); mlflow.log_metric("auc", 0.9)
    with tempfile.TemporaryDirectory() as folder:
        (pathlib.Path(folder) / "MLmodel").write_text("flavors: {python_function: {}}")
        mlflow.log_artifacts(folder, "model")
client.create_registered_model("gated-fraud")
made = client.create_model_version("gated-fraud", f"{run.info.artifact_uri}/model", run.info.run_id)
done["version"] = str(made.version)
fetched = mlflow.artifacts.download_artifacts(artifact_uri=f"{run.info.artifact_uri}/model/MLmodel")
done["artifact"] = pathlib.Path(fetched).read_text()
done["auc"] = client.get_run(run.info.run_id).data.metrics["auc"]
client.set_model_version_tag("gated-fraud", made.version, "team", "cards")
client.set_registered_model_alias("gated-fraud", "champion", made.version)
for what, attempt in {
    "delete": lambda: client.delete_registered_model("gated-fraud"),
    "delete version": lambda: client.delete_model_version("gated-fraud", made.version),
    "rename": lambda: client.rename_registered_model("gated-fraud", "gated-churn"),
    "alias": lambda: client.set_registered_model_alias("gated-fraud", "production", made.version),
    "our tag": lambda: client.set_model_version_tag("gated-fraud", made.version, "mlcp.digest", "x"),
    "another model": lambda: client.create_registered_model("gated-churn"),
}.items():
    try:
        attempt()
    except MlflowException as exc:
        refused[what] = exc.error_code
print(json.dumps({"done": done, "refused": refused}))
"""


@pytest.fixture
def settings(dsn: str, mlflow: str, home: Path) -> GateSettings:
    return GateSettings(postgres_dsn=SecretStr(dsn), mlflow_url=mlflow, home=home)


@pytest.fixture
async def gate(settings: GateSettings) -> AsyncIterator[str]:
    async with on_a_port(create_gate(settings)) as url:
        yield url


@pytest.fixture
async def people(maker: async_sessionmaker[AsyncSession]) -> AsyncIterator[Api]:
    made = Api("", maker)
    yield made
    await made.close()


async def _plain_client(gate: str, key: str) -> tuple[int, str, str]:
    """Exit code, output and errors of a program that knows nothing of the gate."""
    env = {**os.environ, "MLFLOW_TRACKING_URI": gate, "MLFLOW_TRACKING_TOKEN": key, "PYTHONWARNINGS": "ignore"}
    env |= {"DO_NOT_TRACK": "true", "MLFLOW_DISABLE_TELEMETRY": "true"}
    pipe = asyncio.subprocess.PIPE
    child = await asyncio.create_subprocess_exec(sys.executable, "-c", CLIENT, stdout=pipe, stderr=pipe, env=env)
    out, err = await child.communicate()
    return child.returncode or 0, out.decode(), err.decode()


async def test_a_plain_mlflow_client_logs_and_registers_and_moves_nothing_of_ours(gate: str, people: Api) -> None:
    code, out, err = await _plain_client(gate, await people.key("operator", "gated-fraud*", scopes=["track"]))
    assert code == 0, err[-3_000:]
    told = json.loads(out.splitlines()[-1])
    assert told["done"] == {"version": "1", "artifact": "flavors: {python_function: {}}", "auc": 0.9}
    assert set(told["refused"]) == {"delete", "delete version", "rename", "alias", "our tag", "another model"}
    assert set(told["refused"].values()) == {"PERMISSION_DENIED"}


async def test_each_role_reads_or_logs_or_is_turned_away(gate: str, people: Api) -> None:
    calls = {
        "read": ("POST", f"{API}/experiments/search", {"max_results": 1}),
        "log": ("POST", f"{API}/runs/create", {"experiment_id": "0"}),
        "delete": ("DELETE", f"{API}/registered-models/delete", {"name": "nobody-has-it"}),
    }
    able = {"nobody": "", "wrong": "", "predictor": "", "viewer": "read", "auditor": "read"}
    able |= dict.fromkeys(("operator", "approver", "admin"), "read log")
    async with httpx.AsyncClient(base_url=gate, timeout=240) as client:
        for role, may in able.items():
            strangers = {"nobody": None, "wrong": "mlcp_wrong"}
            secret = strangers[role] if role in strangers else await people.key(role)
            headers = {"Authorization": f"Bearer {secret}"} if secret else {}
            for what, (method, path, body) in calls.items():
                answer = await client.request(method, path, json=body, headers=headers)
                expected = 200 if what in may.split() else 401 if role in strangers else 403
                assert answer.status_code == expected, (role, what, answer.text)
                assert expected == 200 or {"error_code", "message", "trace_id"} <= answer.json().keys()
        basic = (await client.get("/", auth=("any", await people.key("viewer")))).status_code
        assert basic == 200  # a browser, with the key as its password
        forged = {"Origin": "https://elsewhere.example", "Authorization": f"Bearer {await people.key('admin')}"}
        assert (await client.post(f"{API}/runs/create", json={"experiment_id": "0"}, headers=forged)).status_code == 403


async def test_without_mlflow_it_says_so(settings: GateSettings, people: Api) -> None:
    nowhere = settings.model_copy(update={"mlflow_url": "http://127.0.0.1:1"})
    auth = {"Authorization": f"Bearer {await people.key('viewer')}"}
    async with on_a_port(create_gate(nowhere)) as url, httpx.AsyncClient(base_url=url, headers=auth) as client:
        answer = await client.get(f"{API}/experiments/get")
    assert (answer.status_code, answer.json()["error_code"]) == (503, "INTERNAL_ERROR")


@pytest.mark.slow
async def test_artifacts_stream_both_ways_in_bounded_memory(
    settings: GateSettings, mlflow: str, people: Api, tmp_path: Path
) -> None:
    size, auth, port = 256 * MEGABYTE, {"Authorization": f"Bearer {await people.key('operator')}"}, free_port()
    env = {"MLCP_POSTGRES_DSN": settings.postgres_dsn.get_secret_value(), "MLCP_MLFLOW_URL": mlflow}
    env |= {"MLCP_GATE_PORT": str(port), "MLCP_HOME": str(settings.home)}

    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(size // MEGABYTE):
            yield b"\xa5" * MEGABYTE

    path = "/api/2.0/mlflow-artifacts/artifacts/gate/large.bin"
    with running([sys.executable, "-m", "control_plane.api.mlflow_gate"], log=tmp_path / "log", env=env) as child:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=300, headers=auth) as client:

            async def answers() -> bool:
                assert child.poll() is None, (tmp_path / "log").read_text()[-2_000:]
                with contextlib.suppress(httpx.TransportError):
                    return (await client.get(f"{API}/experiments/get?experiment_id=0")).status_code == 200
                return False

            await eventually(answers, what="the gate answers", every=0.2)
            before = _peak(child.pid)
            sent = await client.put(path, content=pieces())
            assert sent.status_code == 200, sent.text
            received = 0
            async with client.stream("GET", path) as answer:
                async for piece in answer.aiter_bytes():
                    received += len(piece)
            assert received == size
            assert _peak(child.pid) - before < 64 * MEGABYTE


def _peak(pid: int) -> int:
    """Most memory the process ever had, in bytes."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1_024
    raise AssertionError("no VmHWM")
