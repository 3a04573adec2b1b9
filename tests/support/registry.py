"""A real MLflow server on Postgres, its artifacts in a folder or a bucket."""

import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import httpx

from tests.support.processes import running, wait_until
from tests.support.s3 import S3


@contextmanager
def serving(
    backend: str, artifacts: str, folder: Path, port: int, env: Mapping[str, str] | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """MLflow at 127.0.0.1:port, as the product starts it. `backend`: its database; `folder`: for its log."""
    (folder / "backend").write_text(backend)
    argv = [sys.executable, "-m", "control_plane.embedded.mlflow_server", "--port", str(port)]
    argv += ["--backend-file", str(folder / "backend"), "--artifacts", artifacts]
    url, log = f"http://127.0.0.1:{port}", folder / "log"
    with running(argv, log=log, env={"PYTHONWARNINGS": "ignore", "DO_NOT_TRACK": "true", **(env or {})}) as child:

        def answers() -> bool:
            assert child.poll() is None, f"MLflow ended: {log.read_text()[-2_000:]}"
            try:
                return httpx.get(f"{url}/health", timeout=2).status_code == 200
            except httpx.TransportError:
                return False

        wait_until(answers, what="MLflow answers", every=0.25)
        yield child


def on_s3(backend: str, bucket: S3, folder: Path, port: int) -> AbstractContextManager[subprocess.Popen[bytes]]:
    env = {**bucket.env, "MLFLOW_S3_ENDPOINT_URL": bucket.endpoint}
    return serving(backend, f"s3://{bucket.bucket}/mlflow", folder, port, env)
