"""A real model server process on unix sockets in a folder of its own."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from model_servers.native import digest
from tests.support.processes import running, wait_until

CHURN: dict[str, Any] = {  # goes with native_artifacts.linear_binary
    "name": "churn",
    "problem": "binary",
    "features": {
        "tenure": {"type": "number", "nullable": True, "range": [0, 100]},
        "contract": {"type": "category", "categories": ["month", "year"]},
        "senior": {"type": "boolean"},
    },
    "decision": {"positive": "call", "negative": "keep"},
    "serving": {"explain": "top", "batch": True},
}
FRAUD: dict[str, Any] = {  # goes with native_artifacts.xgboost_binary
    "name": "fraud",
    "problem": "binary",
    "features": {
        "amount": {"type": "number"},
        "night": {"type": "boolean"},
        "risk": {"type": "number", "nullable": True},
    },
    "decision": {"positive": "review", "negative": "accept"},
}
TEXT: dict[str, Any] = {  # goes with native_artifacts.tfidf_multiclass
    "name": "categorization",
    "problem": "multiclass",
    "features": {"description": {"type": "text"}, "amount": {"type": "number"}},
}
ROW: dict[str, Any] = {"tenure": 3.5, "contract": "month", "senior": False}  # of CHURN


@dataclass(frozen=True)
class ModelServer:
    spec: dict[str, Any]
    process: "subprocess.Popen[bytes]"
    log: Path

    @property
    def socket(self) -> str:
        return str(self.spec["socket"])

    def client(self, *, aux: bool = False) -> httpx.Client:
        path = self.spec["aux_socket"] if aux else self.spec["socket"]
        return httpx.Client(transport=httpx.HTTPTransport(uds=path), base_url="http://model", timeout=240)

    def async_client(self) -> httpx.AsyncClient:
        transport = httpx.AsyncHTTPTransport(uds=self.socket, retries=1)
        return httpx.AsyncClient(transport=transport, base_url="http://model", timeout=240)

    def listens(self) -> bool:
        """Its main socket is there."""
        return os.path.exists(self.socket)

    def events(self) -> list[dict[str, Any]]:
        """The lines of its log."""
        return [json.loads(line) for line in self.log.read_text().splitlines() if line.startswith("{")]

    def workers(self) -> list[int]:
        """Process ids of the workers, the aux one included."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text()
        return [int(pid) for pid in children.split()]


def spec_of(artifact: Path, folder: Path, config: Mapping[str, Any], **changes: Any) -> dict[str, Any]:
    spec: dict[str, Any] = {
        "model": config["name"],
        "version": "1",
        "digest": digest.of_folder(artifact),
        "artifact": str(artifact),
        "runtime": "native",
        "socket": str(folder / "s"),
        "aux_socket": str(folder / "a"),
        "workers": 2,
        "threads": 1,
        "metrics_dir": str(folder / "metrics"),
        "cache_dir": str(folder / "cache"),
        "config": dict(config),
        "requirements": None,
        "inferred": False,
        "grace_s": 5,
    }
    return spec | changes


@contextmanager
def serving(
    artifact: Path,
    config: Mapping[str, Any],
    *,
    module: str = "model_servers.runtime",
    **changes: Any,
) -> Iterator[ModelServer]:
    """Started, and ready."""
    folder = Path(tempfile.mkdtemp(prefix="ms-"))  # short: a socket's path has room for about 100 bytes
    spec = spec_of(artifact, folder, config, **changes)
    path, log, ready = folder / "spec.json", folder / "log", folder / "ready"
    path.write_text(json.dumps(spec))
    try:
        argv = [sys.executable, "-m", module, "--spec", str(path)]
        with running(argv, log=log, env={"MLCP_READY_FILE": str(ready), "PYTHONWARNINGS": "ignore"}) as process:

            def is_ready() -> bool:
                assert process.poll() is None, f"exit {process.returncode}: {log.read_text()[-3_000:]}"
                return ready.exists()

            wait_until(is_ready, what="model server ready")
            yield ModelServer(spec, process, log)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def run_to_end(spec: Mapping[str, Any], folder: Path, *, module: str = "model_servers.runtime") -> tuple[int, str]:
    """Exit code and log of a server that is expected to refuse."""
    path = folder / "spec.json"
    path.write_text(json.dumps(spec))
    environment = {**os.environ, "PYTHONWARNINGS": "ignore"}
    done = subprocess.run(
        [sys.executable, "-m", module, "--spec", str(path)],
        capture_output=True,
        text=True,
        timeout=120,
        env=environment,
    )
    return done.returncode, done.stderr
