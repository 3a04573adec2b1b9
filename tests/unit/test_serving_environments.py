"""Which environments a model needs, decided without installing anything."""

import importlib.metadata
import json
import signal
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest

from model_servers import environments, indexes, launch
from model_servers.runtime.spec import BadSpec, Config, Spec

NUMPY = importlib.metadata.version("numpy")
XGBOOST = importlib.metadata.version("xgboost-cpu")


def spec(tmp_path: Any, **changes: Any) -> Spec:
    members: dict[str, Any] = {
        "model": "m",
        "version": "1",
        "digest": "sha256:0",
        "artifact": str(tmp_path),
        "runtime": "pyfunc",
        "socket": "/tmp/s",
        "config": Config(name="m", problem="opaque", features={}),
    }
    return Spec(**(members | changes))


@pytest.mark.parametrize(
    "line",
    [
        "numpy",
        f"numpy=={NUMPY}",
        f"NumPy =={NUMPY}  # as trained",
        "numpy>=1",
        "anything==1 ; python_version < '3'",
        f"xgboost=={XGBOOST}",
        "",
    ],
)
def test_a_requirement_this_interpreter_meets_needs_nothing(line: str) -> None:
    assert environments.unmet([line]) == []


@pytest.mark.parametrize(
    "line",
    [
        "numpy==1.0",
        "no-such-distribution-here",
        "-c constraints.txt",
        "git+ssh://host/repository",
        "requests[socks]",
        "numpy @ file:///somewhere",
    ],
)
def test_what_it_does_not_surely_meet_is_unmet(line: str) -> None:
    assert environments.unmet(["numpy", line]) == [line]


def test_an_environment_is_named_by_its_requirements_in_any_order() -> None:
    assert environments.key(["a==1", "b"]) == environments.key([" b ", "a==1", "", "b"])
    assert environments.key(["a==1", "b"]) != environments.key(["a==2", "b"])
    assert environments.key(["a==1"]).isalnum()


def test_the_runtime_is_added_and_mlflow_where_the_model_does_not_name_it() -> None:
    assert environments.with_runtime(["mlflow-skinny==3.1"])[0:2] == ["mlflow-skinny==3.1", environments.RUNTIME[0]]
    assert "mlflow" in environments.with_runtime(["scikit-learn"])


def test_a_model_without_unmet_requirements_is_served_by_this_interpreter(tmp_path: Any) -> None:
    assert launch.interpreter(spec(tmp_path)) == (sys.executable, {})
    assert launch.interpreter(spec(tmp_path, requirements=("numpy",))) == (sys.executable, {})


def test_without_a_cache_folder_nothing_can_be_installed(tmp_path: Any) -> None:
    with pytest.raises(BadSpec, match="cache_dir"):
        launch.interpreter(spec(tmp_path, requirements=("numpy==1.0",)))


def test_a_model_does_not_read_the_passwords_of_package_indexes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "server.json"
    file.write_bytes(msgspec.json.encode(spec(tmp_path)))
    monkeypatch.setenv("PIP_INDEX_URL", "https://name:password@index.example/simple")
    monkeypatch.setenv("UV_INDEX", "https://name:password@index.example/simple")
    monkeypatch.setenv("LC_ALL", "C.UTF-8")
    told: list[dict[str, str]] = []
    monkeypatch.setattr(launch, "_become", lambda python, arguments, environment: told.append(environment))
    monkeypatch.setattr(launch.logs, "configure", lambda process: None)
    before = signal.getsignal(signal.SIGTERM)
    try:
        launch.main(["--spec", str(file)])
    finally:
        signal.signal(signal.SIGTERM, before)
    assert not {"PIP_INDEX_URL", "UV_INDEX"} & told[0].keys()
    assert told[0]["LC_ALL"] == "C.UTF-8"


def test_a_models_environment_is_installed_from_where_pip_would(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("UV_DEFAULT_INDEX", "UV_FIND_LINKS", "PIP_FIND_LINKS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PIP_INDEX_URL", "https://index.example/simple")
    monkeypatch.setenv("PYTHONPATH", "/ours")
    monkeypatch.setattr(indexes, "pip_settings", lambda: {"find-links": "/wheels"})
    program = (
        f"import json, os, pathlib; pathlib.Path({str(tmp_path / 'told')!r}).write_text(json.dumps(dict(os.environ)))"
    )
    environments._run([sys.executable, "-c", program])
    told = json.loads((tmp_path / "told").read_text())
    assert told["UV_DEFAULT_INDEX"] == "https://index.example/simple"
    assert told["UV_FIND_LINKS"] == "/wheels"
    assert not {"PYTHONPATH", "VIRTUAL_ENV"} & told.keys()
