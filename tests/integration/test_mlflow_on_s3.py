"""MLflow as in production, on Postgres and a bucket: what is logged is loaded, moved, deleted, and outlives MLflow."""

import os
import signal
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from sqlalchemy import URL, make_url

from control_plane.adapters.registry import Registry
from control_plane.errors import NotFound
from tests.support import registry
from tests.support.processes import free_port, wait_until
from tests.support.s3 import S3

pytestmark = pytest.mark.integration

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import mlflow as library
    from mlflow import MlflowClient
    from mlflow.pyfunc import PythonModel
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository


class Scaled(PythonModel):  # type: ignore[misc]
    def __init__(self, factor: float) -> None:
        self.factor = factor

    def predict(self, context: Any, model_input: list[float]) -> list[float]:
        return [self.factor * value for value in model_input]


@pytest.fixture(autouse=True)
def _no_noise(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("DO_NOT_TRACK", "true")
    monkeypatch.setenv("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    monkeypatch.chdir(tmp_path)
    before = library.get_tracking_uri()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
    library.set_tracking_uri(before)


def log(name: str, factor: float) -> str:
    """The version."""
    with library.start_run():
        made = library.pyfunc.log_model(
            name="model", python_model=Scaled(factor), pip_requirements=[], registered_model_name=name
        )
    return str(made.registered_model_version)


def answer(name: str, alias: str) -> list[float]:
    return list(library.pyfunc.load_model(f"models:/{name}@{alias}").predict([1.0, 2.0]))


@pytest.mark.slow
async def test_what_is_logged_is_loaded_by_its_alias_and_deleted_with_its_files(
    empty_database: str, s3: S3, tmp_path: Path
) -> None:
    backend, port = make_url(empty_database).set(drivername="postgresql+psycopg"), free_port()
    with registry.on_s3(backend.render_as_string(hide_password=False), s3, tmp_path, port):
        library.set_tracking_uri(f"http://127.0.0.1:{port}")
        client, name = MlflowClient(), "scaled"
        first, second = log(name, 2.0), log(name, 3.0)
        client.set_registered_model_alias(name, "production", first)
        assert answer(name, "production") == [2.0, 4.0]
        client.set_registered_model_alias(name, "production", second)
        assert answer(name, "production") == [3.0, 6.0]
        await _our_own_client_sees_the_same(f"http://127.0.0.1:{port}", name, first)
        model = str(client.get_model_version(name, first).source).rpartition("/")[2]
        client.delete_model_version(name, first)
        with pytest.raises(library.MlflowException):
            client.get_model_version(name, first)
        assert answer(name, "production") == [3.0, 6.0]
        assert [key for key in s3.listed() if model in key and key.endswith("/MLmodel")]
        get_artifact_repository(client.get_logged_model(model).artifact_location).delete_artifacts()
        assert not [key for key in s3.listed() if model in key]


async def _our_own_client_sees_the_same(url: str, name: str, version: str) -> None:
    """MLflow answers 500, and not 404, for a file that is in no bucket."""
    found = Registry(url)
    try:
        assert "MLmodel" in [file.path for file in await found.files(name, version)]
        assert b"python_function" in await found.read(name, version, "MLmodel")
        for absent in ("model.yaml", "native/model.json"):
            with pytest.raises(NotFound):
                await found.read(name, version, absent)
    finally:
        await found.aclose()


@pytest.mark.slow
def test_mlflow_killed_in_the_middle_of_an_upload_loses_nothing_that_it_had_said_yes_to(
    empty_database: str, s3: S3, tmp_path: Path
) -> None:
    backend: URL = make_url(empty_database).set(drivername="postgresql+psycopg")
    dsn, port, name = backend.render_as_string(hide_password=False), free_port(), "scaled"
    library.set_tracking_uri(f"http://127.0.0.1:{port}")
    client = MlflowClient()
    large = tmp_path / "large.bin"
    large.write_bytes(os.urandom(96 * 2**20))
    with registry.on_s3(dsn, s3, tmp_path, port) as child:
        told = httpx.get(f"http://127.0.0.1:{port}/api/3.0/mlflow/server-info", timeout=240).json()
        sent = {member: told[member] for member in ("multipart_uploads_enabled", "multipart_downloads_enabled")}
        assert not any(sent.values()), "clients reach MLflow, not the bucket"
        version = log(name, 2.0)
        client.set_registered_model_alias(name, "production", version)
        run = client.create_run("0").info.run_id
        client.log_metric(run, "auc", 0.75)
        process = psutil.Process(child.pid)
        before = process.io_counters().read_chars
        uploading = threading.Thread(target=_try, args=(client, run, large))
        uploading.start()
        wait_until(lambda: process.io_counters().read_chars > before + 2**24, what="it is on its way")
        os.killpg(child.pid, signal.SIGKILL)
        child.wait(240)
    with registry.on_s3(dsn, s3, tmp_path, port):
        uploading.join(180)
        assert not uploading.is_alive()
        assert answer(name, "production") == [2.0, 4.0]
        assert client.get_run(run).data.metrics == {"auc": 0.75}
        client.log_artifact(run, str(large))
        kept = Path(client.download_artifacts(run, large.name, str(tmp_path)))
        assert kept.stat().st_size == large.stat().st_size
        client.set_registered_model_alias(name, "production", log(name, 5.0))
        assert answer(name, "production") == [5.0, 10.0]
        client.delete_registered_model(name)
        assert not client.search_registered_models(f"name = '{name}'")


def _try(client: MlflowClient, run: str, file: Path) -> None:
    """It may fail: the test says what has to be true afterwards."""
    try:
        client.log_artifact(run, str(file))
    except Exception:  # noqa: BLE001
        return
