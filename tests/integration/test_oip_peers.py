"""Public parties of the Open Inference Protocol, each in its own environment: tritonclient asks, MLServer answers."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any
from uuid import uuid4

import msgspec
import pytest

from control_plane.adapters.deployers.base import Unit
from control_plane.adapters.deployers.external import ExternalDeployer
from tests.support import model_server, native_artifacts
from tests.support.data_plane import KEY, client, document, router, save, target, worker
from tests.support.model_server import CHURN, FRAUD, TEXT
from tests.support.processes import eventually, free_port, running

pytestmark = [pytest.mark.integration, pytest.mark.slow]
NOWHERE = "unix:///nowhere/redis.sock"
COLUMNS: dict[str, dict[str, tuple[str, list[Any]]]] = {
    "churn": {
        "tenure": ("FP64", [3.5, 60.0]),
        "contract": ("BYTES", ["month", "año"]),
        "senior": ("BOOL", [False, True]),
    },
    "fraud": {"amount": ("FP64", [250.0, 1.0]), "night": ("BOOL", [True, False]), "risk": ("FP64", [0.75, 0.5])},
    "categorization": {"description": ("BYTES", ["COFFEE bread", "diesel"]), "amount": ("FP64", [3.5, 70.0])},
}


def environment(folder: Path, *packages: str) -> str:
    """An interpreter that has these packages and nothing of ours."""
    uv = [sys.executable, "-m", "uv"]
    subprocess.run([*uv, "venv", "-q", "-p", sys.executable, str(folder)], check=True)
    python = str(folder / "bin" / "python")
    subprocess.run([*uv, "pip", "install", "-q", "--python", python, *packages], check=True, timeout=900)
    return python


def test_tritonclient_infers_against_every_model_in_json_and_in_binary(home: Path, tmp_path: Path) -> None:
    python = environment(tmp_path / "triton", "tritonclient[http]>=2.60,<3")
    made = {
        "churn": (native_artifacts.linear_binary(tmp_path / "churn"), CHURN),
        "fraud": (native_artifacts.xgboost_binary(tmp_path / "fraud"), FRAUD),
        "categorization": (native_artifacts.tfidf_multiclass(tmp_path / "text"), TEXT),
    }
    for model, (artifact, config) in made.items():
        columns = COLUMNS[model]
        with model_server.serving(artifact, config, workers=1, aux_socket=None) as served:
            with served.client() as direct:
                schema = direct.get("/schema").content
                rows = [{name: values[i] for name, (_, values) in columns.items()} for i in range(2)]
                own = [direct.post("/predict", json={"features": row}).json() for row in rows]
            features = tuple(msgspec.json.decode(schema)["features"])
            shown = target("1", f"unix:{served.socket}", features=features, schema=msgspec.Raw(schema))
            save(home, document(1, shown, model=model, deadline_ms=5_000))
            outputs = [*own[0]["output"], *(name for name in ("decision", "threshold") if name in own[0])]
            with router(home, NOWHERE) as url:
                for base in ("", f"/ml/{model}"):  # the client takes a base path in its url
                    asked = {
                        "url": url.removeprefix("http://") + base,
                        "key": KEY,
                        "models": {model: {"columns": columns, "outputs": outputs}},
                    }
                    script = Path("tests/support/triton_infer.py")
                    done = subprocess.run([python, str(script), json.dumps(asked)], capture_output=True, text=True)
                    assert done.returncode == 0, done.stderr
                    found = json.loads(done.stdout)
                    assert (found["live"], found["ready"], found["server"]["name"]) == (True, True, "mlcp")
                    told = found[model]
                    assert told["ready"] is True
                    assert [one["name"] for one in told["metadata"]["inputs"]] == list(columns)
                    assert told["refused"][0] == "400"
                    assert "missing" in told["refused"][1]
                    assert len(told["answers"]) == 4
                    for answer in told["answers"]:
                        expected = {name: [(row["output"] | row)[name] for row in own] for name in outputs}
                        assert answer["outputs"] == expected
                        assert answer["response"]["id"] == "r-1"
                        assert len(answer["response"]["parameters"]["prediction_ids"].split(",")) == 2


MLSERVER_MODEL = """
from mlserver import MLModel
from mlserver.codecs import NumpyCodec, NumpyRequestCodec


class Elsewhere(MLModel):
    async def load(self):
        return True

    async def predict(self, payload):
        matrix = NumpyRequestCodec.decode_request(payload)
        share = 1.0 / (1.0 + abs(matrix).sum(axis=1, keepdims=True))
        return self._answer(share)

    def _answer(self, share):
        from mlserver.types import InferenceResponse

        return InferenceResponse(model_name=self.name, outputs=[NumpyCodec.encode_output("predict", share)])
"""


@pytest.mark.parametrize("says_its_inputs", [True, False])
async def test_a_model_on_mlserver_is_routed_and_answers(home: Path, tmp_path: Path, says_its_inputs: bool) -> None:
    python = environment(tmp_path / "mlserver", "mlserver>=1.7,<2")
    folder, port = tmp_path / "models", free_port()
    folder.mkdir()
    (folder / "elsewhere.py").write_text(MLSERVER_MODEL)
    settings: dict[str, Any] = {"name": "other", "implementation": "elsewhere.Elsewhere"}
    if says_its_inputs:
        settings["inputs"] = [{"name": "x", "datatype": "FP32", "shape": [-1, 2]}]
    (folder / "model-settings.json").write_text(json.dumps(settings))
    ports = {"http_port": port, "grpc_port": free_port(), "metrics_port": free_port(), "host": "127.0.0.1"}
    (folder / "settings.json").write_text(json.dumps({**ports, "parallel_workers": 0}))
    config = {
        "problem": "binary",
        "features": {"a": {"type": "number"}, "b": {"type": "boolean"}},
        "decision": {"positive": "yes", "negative": "no"},
        "serving": {"endpoint": f"http://127.0.0.1:{port}/v2/models/other"},
    }
    deployer = ExternalDeployer()
    argv = [str(Path(python).parent / "mlserver"), "start", str(folder)]
    with running(argv, log=tmp_path / "mlserver.log", env={}):

        async def ready() -> bool:
            return (await deployer.observe(Unit(uuid4(), "m", "1", "", "pyfunc", config))).state == "ready"

        await eventually(ready, what="MLServer ready")
        seen = await deployer.observe(Unit(uuid4(), "m", "1", "", "pyfunc", config))
        await deployer.aclose()
        assert seen.address
        schema = msgspec.Raw(json.dumps(seen.description).encode())
        shown = target("1", seen.address, protocol="oip", remote_name="other", features=("a", "b"), schema=schema)
        save(home, document(1, shown, deadline_ms=5_000))
        async with worker(home, NOWHERE) as url, client(url) as product:
            answer = await product.post("/ml/churn/predict", json={"features": {"a": 2.0, "b": True}, "unit_id": "u"})
            health = await product.get("/ml/churn/health")
    assert answer.status_code == 200, answer.text
    assert (answer.json()["output"], answer.json()["decision"]) == ({"probability": 0.25}, "no")
    assert health.json()["status"] == "ok"
