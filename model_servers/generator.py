"""`python -m model_servers.generator [MODEL] [--check]`: everything of a model server that follows from its model.yaml.

Writes schema.py, server.py, Dockerfile, k8s.yaml, kustomization.yaml, prometheus.yaml (rules) and openapi.json beside
model.yaml, or into --out. With --check it writes nothing and ends with 1 when a file is not what would be written.
MODEL is a name or an alias, looked for in the folders of MLCP_MODELS, then among the checkout's own. Without MODEL: all
models.
"""

import argparse
import ast
import json
import keyword
import os
import string
import sys
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import jinja2
import msgspec
import yaml

from model_servers import openapi, places
from model_servers.runtime import schema
from model_servers.runtime.spec import Config, Feature

_HERE: Final = Path(__file__).parent
_PYTHON_TYPES: Final = {"number": "float", "integer": "int", "boolean": "bool", "category": "str", "text": "str"}
_KUSTOMIZATION: Final = """# Generated from model.yaml by `mlcp generate {0}`: do not edit.
apiVersion: kustomize.config.k8s.io/v1beta1
kind: Kustomization
resources: [k8s.yaml]
"""
_SIGNED: Final = {  # MLflow's column types a declared feature may have
    "number": {"double", "float", "long", "integer"},
    "integer": {"long", "integer", "double", "float"},
    "boolean": {"boolean"},
    "category": {"string"},
    "text": {"string"},
}

LATENCY_BOUNDS_S: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)  # the router's
_WINDOWS: Final = ("5m", "30m", "1h", "2h", "6h", "1d", "3d")  # of infra/prometheus/rules/slo.yaml
_ERRORS: Final = {"log_loss", "rmse", "mae"}  # metrics of which less is better


class CannotGenerate(Exception):
    """model.yaml or the signature cannot be used; the text says why."""


class _Resources(msgspec.Struct):
    cpu_request: str = "250m"
    memory_request: str = "256Mi"
    min_replicas: int = 2
    max_replicas: int = 6


class _Serving(msgspec.Struct):
    workers: int = 2


class _Slo(msgspec.Struct):
    p95_ms: float = 50.0
    error_rate: float = 0.01
    availability: float = 0.999


class _Drift(msgspec.Struct):
    psi: float = 0.1
    performance_drop: float = 0.05


class _Metric(msgspec.Struct):
    name: str
    minimum: float | None = None


class _Deployment(msgspec.Struct):
    """What manifest and rules read of model.yaml beside the runtime's own part."""

    resources: _Resources = msgspec.field(default_factory=_Resources)
    serving: _Serving = msgspec.field(default_factory=_Serving)
    slo: _Slo = msgspec.field(default_factory=_Slo)
    drift: _Drift = msgspec.field(default_factory=_Drift)
    metric: _Metric | None = None


class _Signature(msgspec.Struct):
    """MLflow's ModelSignature as JSON; `inputs` is JSON in a string, as in the MLmodel file, or the list itself."""

    inputs: str | list[object]


class _Column(msgspec.Struct):
    name: str
    type: str


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m model_servers.generator", description=__doc__)
    parser.add_argument("model", nargs="?", help="name or alias; default: every model there is")
    parser.add_argument("--models", type=Path, help="folder of the models' folders; default: MLCP_MODELS and our own")
    parser.add_argument("--out", type=Path, help="where to write; default: beside model.yaml")
    parser.add_argument("--signature", type=Path, help="MLflow signature (JSON) the features have to match")
    parser.add_argument("--check", action="store_true", help="write nothing; end with 1 when something is not current")
    arguments = parser.parse_args(argv)
    among = [arguments.models] if arguments.models else places.folders(os.environ)
    stale: list[Path] = []
    try:
        for folder in _chosen(arguments.model, among):
            files = generate(folder, arguments.signature)
            stale += _settle(files, arguments.out or folder, check=arguments.check)
    except CannotGenerate as exc:
        sys.stderr.write(f"{exc}\n")
        return 2
    for path in stale:
        sys.stdout.write(f"{'not current: ' if arguments.check else 'wrote '}{path}\n")
    return 1 if arguments.check and stale else 0


def _chosen(model: str | None, among: Sequence[Path]) -> list[Path]:
    """The folder of `model`, or of every model. Raises CannotGenerate if there is no such model."""
    if not model:
        return [path.parent for folder in among for path in sorted(folder.glob("*/model.yaml"))]
    path = places.find(model, among)
    if path is None:
        raise CannotGenerate(f"No model.yaml of {model!r} in {', '.join(map(str, among))}.")
    return [path.parent]


def generate(folder: Path, signature: Path | None = None) -> dict[str, str]:
    """File name -> content, for the model whose model.yaml is in `folder`. Raises CannotGenerate."""
    path = folder / "model.yaml"
    try:
        raw: object = yaml.safe_load(path.read_text(encoding="utf-8"))
        config, deployment = msgspec.convert(raw, Config), msgspec.convert(raw, _Deployment)
    except (OSError, yaml.YAMLError, msgspec.ValidationError) as exc:
        raise CannotGenerate(f"{path}: {exc}") from exc
    if signature:
        _match(config, signature)
    environment = jinja2.Environment(  # noqa: S701  (Python, YAML and Dockerfile: nothing here is HTML)
        loader=jinja2.FileSystemLoader(_HERE / "templates"),
        undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
    )
    values = _values(config, deployment, folder.name)
    names = ("schema.py", "server.py", "Dockerfile", "k8s.yaml", "prometheus.yaml")
    files = {name: environment.get_template(f"{name}.j2").render(values) for name in names}
    files["kustomization.yaml"] = _KUSTOMIZATION.format(config.name)
    files["openapi.json"] = json.dumps(openapi.document(config), indent=2, ensure_ascii=False) + "\n"
    ast.parse(files["schema.py"])
    return files


def _settle(files: Mapping[str, str], folder: Path, *, check: bool) -> list[Path]:
    """The files that differ; written unless `check`."""
    folder.mkdir(parents=True, exist_ok=True)
    if not check and not (folder / "__init__.py").exists():
        (folder / "__init__.py").touch()
    stale: list[Path] = []
    for name, content in files.items():
        path = folder / name
        if not path.exists() or path.read_text(encoding="utf-8") != content:
            stale.append(path)
            if not check:
                path.write_text(content, encoding="utf-8")
    return stale


def _values(config: Config, deployment: _Deployment, folder: str) -> dict[str, Any]:
    """What the templates read."""
    fields = [_field(i, name, feature) for i, (name, feature) in enumerate(config.features.items())]
    renamed = {
        field["name"]: name for field, name in zip(fields, config.features, strict=True) if field["name"] != name
    }
    positive, negative = config.decision.positive, config.decision.negative
    output = {
        "binary": [f"probability: float  # of {positive}, calibrated"],
        "multiclass": ["label: str", "probability: float  # of that label"],
        "regression": ["value: float"],
        "opaque": ["value: object  # whatever the model returned for the row"],
    }[config.problem]
    return {
        "config": config,
        "purpose": textwrap.fill(_in_docstring(config.purpose) or f"Model {config.name}.", 118),
        "fields": fields,
        "rename": f", rename={renamed!r}" if renamed else "",
        "literals": config.problem == "binary",
        "output": output,
        "words": f"{_quoted(positive)}, {_quoted(negative)}",
        "positive": positive,
        "folder": folder,
        "dns": config.name.replace("_", "-"),
        "workers": deployment.serving.workers,
        "resources": deployment.resources,
        "memory_limit": _twice(deployment.resources.memory_request),
        "slo": deployment.slo,
        "drift": deployment.drift,
        "metric": deployment.metric,
        "errors": _ERRORS,
        "windows": _WINDOWS,
        "slow": _slow(config.name, deployment.slo.p95_ms / 1_000),
    }


def _twice(quantity: str) -> str:
    """Of a Kubernetes quantity: what a server may take while it drains one version's requests and reads a batch."""
    number = quantity.rstrip(string.ascii_letters)
    return f"{2 * int(number)}{quantity[len(number) :]}" if number.isdecimal() else quantity


def _slow(model: str, limit_s: float) -> str:
    """PromQL of the share of answers slower than `limit_s`, with WINDOW for the range.

    Between two bounds of the router's histogram answers count as evenly spread, as in histogram_quantile.
    """

    def rate(series: str, *labels: str) -> str:
        selected = ",".join([f'model_name="{model}"', *labels])
        return f"sum by (model_name) (rate(model_prediction_latency_seconds_{series}{{{selected}}}[WINDOW]))"

    def within(bound: float) -> str:
        return rate("bucket", f'le="{bound}"')

    below = max((bound for bound in LATENCY_BOUNDS_S if bound <= limit_s), default=None)
    above = min((bound for bound in LATENCY_BOUNDS_S if bound > limit_s), default=None)
    if below is None:
        fast = f"{within(LATENCY_BOUNDS_S[0])} * {limit_s / LATENCY_BOUNDS_S[0]:.6g}"
    elif above is None or below == limit_s:
        fast = within(below)
    else:
        share = (limit_s - below) / (above - below)
        fast = f"({within(below)} * {1 - share:.6g} + {within(above)} * {share:.6g})"
    return f"1 - {fast} / {rate('count')}"


def _field(index: int, name: str, feature: Feature) -> dict[str, str]:
    plain = name.isidentifier() and not name.startswith("_") and not keyword.iskeyword(name)
    described = schema.of_feature(feature).get("description", "")
    return {
        "name": name if plain else f"feature_{index}",
        "type": _PYTHON_TYPES[feature.type] + (" | None" if feature.nullable else ""),
        "description": _quoted(described or name),
        "example": _quoted(schema.example_of(feature)),
    }


def _in_docstring(text: str) -> str:
    return text.strip().replace("\\", "\\\\").replace('"' * 3, "'" * 3)


def _quoted(value: object) -> str:
    """A Python literal in double quotes."""
    return json.dumps(value, ensure_ascii=False) if isinstance(value, str) else repr(value)


def _match(config: Config, path: Path) -> None:
    """Raises CannotGenerate, naming every difference, when the registered signature has other columns."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        inputs = msgspec.convert(document, _Signature).inputs if isinstance(document, dict) else document
        columns = msgspec.convert(json.loads(inputs) if isinstance(inputs, str) else inputs, list[_Column])
    except (OSError, ValueError) as exc:
        raise CannotGenerate(f"{path}: not a signature with named columns: {exc}") from exc
    signed = {column.name: column.type for column in columns}
    wrong = [f"{name}: not in the signature" for name in config.features if name not in signed]
    wrong += [f"{name}: not in model.yaml" for name in signed if name not in config.features]
    wrong += [
        f"{name}: declared {feature.type}, signed {signed[name]}"
        for name, feature in config.features.items()
        if name in signed and signed[name] not in _SIGNED[feature.type]
    ]
    if wrong:
        raise CannotGenerate(f"{path} and model.yaml disagree:\n" + "\n".join(f"  {line}" for line in wrong))


if __name__ == "__main__":
    sys.exit(main())
