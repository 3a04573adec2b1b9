"""Everything that follows from a model.yaml is current, valid and refuses what it cannot express."""

import ast
import json
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml
from openapi_spec_validator import OpenAPIV31SpecValidator

from model_servers import generator
from model_servers.runtime import schema
from model_servers.runtime.spec import Config

MODELS = Path(generator.__file__).parent
OURS = sorted(path.parent.name for path in MODELS.glob("*/model.yaml"))
ODD: dict[str, Any] = {
    "name": "odd-one",
    "problem": "multiclass",
    "purpose": "Things with \"quotes\", 'more', \\ and {{ braces }}.",
    "features": {
        "größe (cm)": {"type": "number", "range": [-1.5, 2], "description": "Height\nand {% more %}"},
        "class": {"type": "category", "categories": ['a"b', "c"], "nullable": True},
        "_hidden": {"type": "integer", "example": 3.0},
        "ok": {"type": "boolean"},
    },
}


@pytest.fixture
def odd(tmp_path: Path) -> Path:
    folder = tmp_path / "models" / "odd_one"
    folder.mkdir(parents=True)
    (folder / "model.yaml").write_text(yaml.safe_dump(ODD))
    return folder


def test_the_three_models_are_there() -> None:
    assert {"churn", "fraud", "categorization"} <= set(OURS)


def test_what_is_committed_is_what_would_be_generated() -> None:
    assert generator.main(["--check"]) == 0


@pytest.mark.parametrize("model", OURS)
def test_every_openapi_document_is_valid(model: str) -> None:
    OpenAPIV31SpecValidator(json.loads((MODELS / model / "openapi.json").read_text())).validate()


@pytest.mark.parametrize("model", OURS)
def test_the_typed_request_reads_the_example_the_server_gives(model: str) -> None:
    namespace: dict[str, Any] = {"__name__": model}
    exec((MODELS / model / "schema.py").read_text(), namespace)
    config = msgspec.convert(yaml.safe_load((MODELS / model / "model.yaml").read_text()), Config)
    body = schema.example(config) | {"unit_id": "u-1"}
    request = msgspec.json.decode(json.dumps(body), type=namespace["PredictRequest"])
    assert msgspec.to_builtins(request)["features"] == body["features"]
    with pytest.raises(msgspec.ValidationError, match="unknown"):
        msgspec.json.decode(json.dumps({"features": {"unknown": 1}}), type=namespace["PredictRequest"])


@pytest.mark.parametrize("model", OURS)
def test_the_manifest_is_valid_yaml_that_probes_and_limits(model: str) -> None:
    objects = list(yaml.safe_load_all((MODELS / model / "k8s.yaml").read_text()))
    assert [item["kind"] for item in objects] == [
        "Deployment",
        "Service",
        "HorizontalPodAutoscaler",
        "PodDisruptionBudget",
    ]
    (container,) = objects[0]["spec"]["template"]["spec"]["containers"]
    assert container["readinessProbe"]["httpGet"]["path"] == "/ready"
    assert container["resources"]["requests"]["memory"].endswith("Mi")
    assert container["securityContext"]["readOnlyRootFilesystem"] is True


def test_every_generated_file_says_so() -> None:
    for model in OURS:
        for name in ("schema.py", "server.py", "Dockerfile", "k8s.yaml", "prometheus.yaml", "openapi.json"):
            assert "do not edit" in (MODELS / model / name).read_text()


@pytest.mark.parametrize("model", OURS)
def test_what_an_image_copies_is_enough_to_start_its_server(tmp_path: Path, model: str) -> None:
    lines = (MODELS / model / "Dockerfile").read_text().splitlines()
    for source, to in (line.split()[1:] for line in lines if line.startswith("COPY ")):
        target = tmp_path / to / Path(source).name if to.endswith("/") or to == "." else tmp_path / to
        target.parent.mkdir(parents=True, exist_ok=True)
        path = MODELS.parent / source
        (shutil.copytree if path.is_dir() else shutil.copy)(path, target)
    modules = ("model_servers.runtime.app", "model_servers.runtime.__main__", f"model_servers.{model}.server")
    # -S: without site's .pth files, by which this checkout could be imported from anywhere
    places = [str(tmp_path), sysconfig.get_path("purelib"), sysconfig.get_path("platlib")]
    program = f"import sys; sys.path += {places!r}; import {', '.join(modules)}; print(model_servers.__file__)"
    argv = [sys.executable, "-I", "-S", "-c", program]
    done = subprocess.run(argv, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str(tmp_path / "model_servers" / "__init__.py")


def test_names_that_are_no_identifiers_are_kept_on_the_wire(odd: Path) -> None:
    files = generator.generate(odd)
    namespace: dict[str, Any] = {"__name__": "odd"}
    exec(files["schema.py"], namespace)
    body = {"features": {"größe (cm)": 1, "class": None, "_hidden": 2, "ok": True}}
    request = msgspec.json.decode(json.dumps(body), type=namespace["PredictRequest"])
    assert msgspec.to_builtins(request) == body
    ast.parse(files["server.py"])
    OpenAPIV31SpecValidator(json.loads(files["openapi.json"])).validate()
    assert next(iter(yaml.safe_load_all(files["k8s.yaml"])))["metadata"]["name"] == "odd-one-deployment"


def test_check_tells_what_is_not_current_and_writes_nothing(odd: Path, capsys: pytest.CaptureFixture[str]) -> None:
    models = ["--models", str(odd.parent)]
    assert generator.main(["odd_one", *models]) == 0
    assert generator.main(["odd_one", *models, "--check"]) == 0
    (odd / "schema.py").write_text("# by hand")
    capsys.readouterr()
    assert generator.main([*models, "--check"]) == 1
    assert capsys.readouterr().out == f"not current: {odd / 'schema.py'}\n"
    assert (odd / "schema.py").read_text() == "# by hand"


def test_a_model_is_found_where_training_finds_it(
    odd: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (odd / "model.yaml").write_text(yaml.safe_dump({**ODD, "aliases": ["strange"]}))
    broken = odd.parent / "a_broken_one"
    broken.mkdir()
    (broken / "model.yaml").write_text("{")
    monkeypatch.setenv("MLCP_MODELS", str(odd.parent))
    assert generator.main(["strange"]) == 0
    assert (odd / "server.py").exists()
    assert generator.main(["nosuch"]) == 2
    assert f"'nosuch' in {odd.parent}" in capsys.readouterr().err


def test_out_names_another_folder(odd: Path, tmp_path: Path) -> None:
    assert generator.main(["odd_one", "--models", str(odd.parent), "--out", str(tmp_path / "out")]) == 0
    assert (tmp_path / "out" / "Dockerfile").exists()
    assert not (odd / "Dockerfile").exists()


@pytest.mark.parametrize("as_text", [True, False])
def test_a_signature_that_disagrees_is_refused_with_every_difference(
    odd: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], as_text: bool
) -> None:
    columns = [
        {"name": "größe (cm)", "type": "double"},
        {"name": "class", "type": "string"},
        {"name": "_hidden", "type": "string"},
        {"name": "more", "type": "long"},
    ]
    path = tmp_path / "signature.json"
    path.write_text(json.dumps({"inputs": json.dumps(columns) if as_text else columns, "outputs": None}))
    assert generator.main(["odd_one", "--models", str(odd.parent), "--signature", str(path)]) == 2
    told = capsys.readouterr().err
    assert "ok: not in the signature" in told
    assert "more: not in model.yaml" in told
    assert "_hidden: declared integer, signed string" in told
    path.write_text('{"inputs": [{"type": "tensor"}]}')
    assert generator.main(["odd_one", "--models", str(odd.parent), "--signature", str(path)]) == 2
    assert "not a signature with named columns" in capsys.readouterr().err


def test_a_model_yaml_that_cannot_be_read_is_told_in_one_line(odd: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (odd / "model.yaml").write_text("name: [")
    assert generator.main(["--models", str(odd.parent)]) == 2
    shutil.rmtree(odd)
    assert generator.main(["odd_one", "--models", str(odd.parent)]) == 2
    assert "model.yaml" in capsys.readouterr().err
