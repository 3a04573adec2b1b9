"""What an init container does: the artifact of a version from MLflow, whole and as registered, or an exit code."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from model_servers import fetch
from model_servers.native import digest

FILES = {"manifest.json": b"{}", "trees/1.bin": b"\x00" * 70_000}
ROOT = "1/models/m-1/artifacts"


@contextmanager
def mlflow(failures: list[int], seen: list[str]) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            seen.append(self.headers.get("Authorization", ""))
            if failures:
                self.send_error(failures.pop(0))
                return
            content = answer(self.path)
            self.send_response(200 if content is not None else 404)
            self.send_header("Content-Length", str(len(content or b"")))
            self.end_headers()
            self.wfile.write(content or b"")

        def log_message(self, format: str, *args: object) -> None:
            """Quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def answer(path: str) -> bytes | None:
    parts, proxy = urlsplit(path), "/api/2.0/mlflow-artifacts/artifacts"
    query = {name: values[0] for name, values in parse_qs(parts.query).items()}
    if parts.path.endswith("get-download-uri"):
        return json.dumps({"artifact_uri": "models:/m-1"}).encode() if query["name"] == "churn" else None
    if parts.path.endswith("logged-models/m-1"):
        return json.dumps({"model": {"info": {"artifact_uri": f"mlflow-artifacts:/{ROOT}"}}}).encode()
    if parts.path == proxy:
        below = query["path"].removeprefix(f"{ROOT}/artifacts/native").strip("/")
        entries = [{"path": "trees", "is_dir": True}, {"path": "manifest.json"}] if not below else [{"path": "1.bin"}]
        return json.dumps({"files": entries}).encode()
    return FILES.get(parts.path.removeprefix(f"{proxy}/{ROOT}/artifacts/native/"))


@pytest.fixture
def wanted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name, content in FILES.items():
        (tmp_path / "source" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "source" / name).write_bytes(content)
    monkeypatch.setenv("MODEL_NAME", "churn")
    monkeypatch.setenv("MODEL_VERSION", "3")
    monkeypatch.setenv("MODEL_DIGEST", digest.of_folder(tmp_path / "source"))
    monkeypatch.setattr("time.sleep", lambda _: None)
    return tmp_path / "model"


def test_an_artifact_is_fetched_whole_through_a_registry_that_stumbles(
    wanted: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = list[str]()
    with mlflow([503, 429], seen) as url:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", url)
        monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "t")
        assert fetch.main(["--into", str(wanted)]) == 0
    assert {name: (wanted / name).read_bytes() for name in FILES} == FILES
    assert set(seen) == {"Bearer t"}


def test_an_artifact_that_is_not_the_registered_one_is_refused(wanted: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODEL_DIGEST", "sha256:" + "0" * 64)
    with mlflow([], []) as url:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", url)
        assert fetch.main(["--into", str(wanted)]) == fetch.DIFFERENT


def test_a_registry_that_does_not_know_it_or_never_answers_ends_the_container_with_a_code(
    wanted: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with mlflow([], []) as url:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", url)
        monkeypatch.setenv("MODEL_NAME", "nobody")
        assert fetch.main(["--into", str(wanted)]) == fetch.UNAVAILABLE
    assert fetch.main(["--into", str(wanted)]) == fetch.UNAVAILABLE  # nobody listens there any more
    monkeypatch.delenv("MODEL_VERSION")
    assert fetch.main(["--into", str(wanted)]) == 2
