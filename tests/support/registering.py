"""Registers versions in a real MLflow over HTTP, as its own clients do, without importing it."""

import json
from collections.abc import Mapping
from hashlib import sha256
from typing import Any

import httpx
import yaml

from control_plane.domain.registry import tree_digest

API = "/api/2.0/mlflow"


def register(url: str, name: str, files: Mapping[str, bytes], tags: Mapping[str, str] | None = None) -> str:
    """One more version of `name` whose artifact has these files; its number."""
    with httpx.Client(base_url=url, timeout=240) as client:

        def post(path: str, **body: object) -> dict[str, Any]:
            answer = client.post(f"{API}/{path}", json=body)
            answer.raise_for_status()
            return dict(answer.json())

        client.post(f"{API}/registered-models/create", json={"name": name})  # may exist already
        info = post("runs/create", experiment_id="0")["run"]["info"]
        root = f"{info['artifact_uri']}/model"
        for path, content in files.items():
            target = root.removeprefix("mlflow-artifacts:/") + f"/{path}"
            client.put(f"/api/2.0/mlflow-artifacts/artifacts/{target}", content=content).raise_for_status()
        listed = [{"key": key, "value": value} for key, value in (tags or {}).items()]
        made = post("model-versions/create", name=name, source=root, run_id=info["run_id"], tags=listed)
        return str(made["model_version"]["version"])


def ours(name: str, *, alias_policy: str = "revert", auc: float = 0.9) -> dict[str, bytes]:
    """Files of a version that passes every gate; its native artifact is a stand-in."""
    config = {
        "name": name,
        "problem": "binary",
        "features": {"amount": {"type": "number"}},
        "metric": {"name": "roc_auc", "minimum": 0.5},
        "registry": {"alias_policy": alias_policy},
    }
    evidence = {
        "metric": {"name": "roc_auc", "value": auc, "holdout_rows": 10},
        "cost": {"model": 1.0, "trivial": 2.0, "currency": "EUR"},
        "data": {"validated": True, "sha256": "same", "holdout": {"sha256": "same"}},
    }
    return {
        "MLmodel": b"flavors: {python_function: {}}",
        "artifacts/native/manifest.json": b"{}",
        "artifacts/native/model.yaml": yaml.safe_dump(config).encode(),
        "artifacts/native/evidence.json": json.dumps(evidence).encode(),
    }


def register_ours(url: str, name: str, *, alias_policy: str = "revert", auc: float = 0.9) -> str:
    """Register a version as our own pipeline does, tags and all; its number."""
    files = ours(name, alias_policy=alias_policy, auc=auc)
    native = {path.removeprefix("artifacts/native/"): content for path, content in files.items() if "/" in path}
    digest = tree_digest([(path, sha256(content).hexdigest()) for path, content in native.items()])
    return register(url, name, files, {"mlcp.runtime": "native", "mlcp.digest": digest})


def request(url: str, method: str, path: str, **body: object) -> dict[str, Any]:
    """One call of MLflow's API, as somebody at its UI would cause it."""
    with httpx.Client(base_url=url, timeout=240) as client:
        if method == "GET":
            answer = client.get(f"{API}/{path}", params={key: str(value) for key, value in body.items()})
        else:
            answer = client.request(method, f"{API}/{path}", json=body)
        answer.raise_for_status()
        return dict(answer.json())


def shown(url: str, name: str, version: str) -> tuple[dict[str, str], str]:
    """Tags and description of a version, as MLflow shows them."""
    found = request(url, "GET", "model-versions/get", name=name, version=version)["model_version"]
    return {tag["key"]: tag["value"] for tag in found.get("tags", [])}, str(found.get("description", ""))


def alias(url: str, name: str, alias: str) -> str | None:
    found = request(url, "GET", "registered-models/get", name=name)["registered_model"].get("aliases", [])
    return next((one["version"] for one in found if one["alias"] == alias), None)
