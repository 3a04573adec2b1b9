"""MLflow: what is registered already, and putting one more version there. The only module that imports mlflow."""

import json
import os
import shutil
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from control_plane.domain.model_config import Feature, FeatureType, ModelConfig, Problem
from control_plane.errors import InvalidData, NotFound, RegistryUnavailable
from model_servers.native import digest
from training.common import models
from training.common.data import Fingerprint
from training.common.pipeline import Trained
from training.common.semver import Shape

RUNTIME, DIGEST, SEMVER, EVIDENCE = "mlcp.runtime", "mlcp.digest", "mlcp.semver", "mlcp.evidence"
_SIGNATURE, _FEATURES = "mlcp.signature", "mlcp.features"
_JOB = "mlcp.job"
_NATIVE = "artifacts/native"
_PARAM_LIMIT = 500  # characters MLflow keeps of a parameter


@dataclass(frozen=True, slots=True)
class Registered:
    version: str
    digest: str
    run_id: str
    experiment_id: str


class Registry:
    """A client of one MLflow server. Raises RegistryUnavailable, from any method, when it does not answer."""

    def __init__(self, url: str) -> None:
        for name, value in {
            "MLFLOW_DISABLE_TELEMETRY": "true",
            "DO_NOT_TRACK": "true",
            "GIT_PYTHON_REFRESH": "quiet",
            "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "3",
            "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
            "MLFLOW_LOGGING_LEVEL": "ERROR",
            "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
            "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
        }.items():
            os.environ.setdefault(name, value)  # read when mlflow is imported, which is here
        import mlflow
        from mlflow import MlflowClient

        self._mlflow: Any = mlflow
        mlflow.set_tracking_uri(url)
        mlflow.set_registry_uri(url)
        self._client: Any = MlflowClient(url, url)
        self._url = url

    def newest(self, model: str) -> tuple[str | None, Shape | None]:
        """Semantic version and shape of the newest version that has one; (None, None) if there is none."""
        with self._answering():
            found = self._client.search_model_versions(
                f"name = '{model}'", order_by=["version_number DESC"], max_results=100
            )
        for version in found:
            if semver := version.tags.get(SEMVER):
                tags = version.tags
                known = _SIGNATURE in tags and _FEATURES in tags
                return semver, Shape(tags[_SIGNATURE], tags[_FEATURES]) if known else None
        return None, None

    def of_job(self, model: str, job: str) -> tuple[Registered, dict[str, Any]] | None:
        """The version that this job registered before it was interrupted, and what is known of it; None without one."""
        with self._answering():
            newest = self._client.search_model_versions(
                f"name = '{model}'", order_by=["version_number DESC"], max_results=100
            )
            found = next((version for version in newest if version.tags.get(_JOB) == job), None)
            if found is None:
                return None
            experiment = str(self._client.get_run(found.run_id).info.experiment_id)
        tags = found.tags
        registered = Registered(str(found.version), tags[DIGEST], found.run_id, experiment)
        facts = {"model": model, "version": registered.version, "semver": tags[SEMVER], "digest": tags[DIGEST]}
        return registered, {**facts, "run_id": found.run_id, **json.loads(tags[EVIDENCE])}

    def production(self, model: str, into: Path) -> tuple[str, Path] | None:
        """The version with alias `production` and its native artifact, downloaded; None without one of ours."""
        from mlflow.exceptions import MlflowException

        with self._answering():
            try:
                version = self._client.get_model_version_by_alias(model, "production")
            except MlflowException as exc:
                if exc.error_code in {"RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"}:
                    return None
                raise
            if version.tags.get(RUNTIME) != "native":
                return None
            return str(version.version), self._download(version, into)

    def artifact(self, model: str, version: str, into: Path) -> Path:
        """The native artifact of a version, downloaded and as it was registered.

        Raises NotFound for a version that is none of ours, InvalidData where its content has changed since.
        """
        from mlflow.exceptions import MlflowException

        with self._answering():
            try:
                found = self._client.get_model_version(model, version)
            except MlflowException as exc:
                if exc.error_code in {"RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"}:
                    raise NotFound(f"MLflow has no version {version} of {model}.", model=model) from exc
                raise
            if found.tags.get(RUNTIME) != "native":
                raise NotFound(f"Version {version} of {model} was not made by this pipeline: it has no features.py.")
            folder = self._download(found, into)
        if (now := digest.of_folder(folder)) != found.tags.get(DIGEST):
            raise InvalidData(f"The artifact of {model} {version} is {now}, not what was registered.")
        return folder

    def _download(self, version: Any, into: Path) -> Path:
        uri = f"models:/{version.name}/{version.version}/{_NATIVE}"
        return Path(self._mlflow.artifacts.download_artifacts(artifact_uri=uri, dst_path=str(into)))

    def register(
        self,
        config: ModelConfig,
        trained: Trained,
        source: Fingerprint,
        shape: Shape,
        *,
        evidence: Mapping[str, Any],
        summary: str,
        example: Mapping[str, Any],
        pictures: Mapping[str, bytes],
        card: str,
        seed: int,
        job: str | None = None,
    ) -> Registered:
        """Log the runs and the model, and register it as one new version. No alias is touched.

        `trained.folder` is complete by now. A run that fails half way stays, marked FAILED, without a version.
        """
        sha = digest.of_folder(trained.folder)
        name = config.name
        with self._answering():
            experiment = self._mlflow.set_experiment(name)
            with self._mlflow.start_run(run_name=f"{name} {trained.manifest.semver}") as run:
                run_id = run.info.run_id
                self._log_parent(run_id, config, trained, source, seed)
                self._log_candidates(experiment.experiment_id, run_id, config, trained)
                self._log_files(run_id, pictures, card, trained.folder)
                info = self._log_model(config, trained, example)
                self._create_model(name, config.purpose)
                version = self._client.create_model_version(
                    name,
                    info.model_uri,
                    run_id=run_id,
                    model_id=info.model_id,
                    await_creation_for=0,  # nothing waits for an approval on a server of ours
                    tags={
                        RUNTIME: "native",
                        DIGEST: sha,
                        SEMVER: trained.manifest.semver,
                        EVIDENCE: summary,
                        _SIGNATURE: shape.signature,
                        _FEATURES: shape.features,
                        **({_JOB: job} if job else {}),
                    },
                )
                self._client.set_terminated(run_id)
        return Registered(str(version.version), sha, run_id, str(experiment.experiment_id))

    def _create_model(self, name: str, purpose: str) -> None:
        from mlflow.exceptions import MlflowException

        try:
            self._client.create_registered_model(name, description=purpose)
        except MlflowException as exc:
            if exc.error_code != "RESOURCE_ALREADY_EXISTS":
                raise

    def _log_parent(self, run_id: str, config: ModelConfig, trained: Trained, source: Fingerprint, seed: int) -> None:
        from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, RunTag

        params = {
            "winner": trained.winner.candidate.name,
            "seed": seed,
            "threshold": trained.manifest.threshold,
            "calibration": trained.manifest.calibration.method if trained.manifest.calibration else None,
            "data_sha256": source.sha256,
            "data_rows": source.rows,
            "data_from": source.start,
            "data_to": source.end,
            "data_source": source.source,
        }
        metrics = dict(trained.metrics) | {"low_95": trained.interval.low, "high_95": trained.interval.high}
        self._client.log_batch(
            run_id,
            metrics=[Metric(key, value, 0, 0) for key, value in metrics.items() if value == value],
            params=[Param(key, str(value)[:_PARAM_LIMIT]) for key, value in params.items() if value is not None],
            tags=[RunTag("mlcp.model", config.name), RunTag(SEMVER, trained.manifest.semver)],
        )
        data = Dataset(config.name, source.sha256[:36], "local", source.source, None, f'{{"num_rows": {source.rows}}}')
        self._client.log_inputs(run_id, [DatasetInput(data, [InputTag("mlflow.data.context", "training")])])

    def _log_candidates(self, experiment_id: str, parent: str, config: ModelConfig, trained: Trained) -> None:
        from mlflow.entities import Metric, Param

        assert config.metric is not None
        for tried in trained.tried:
            child = self._client.create_run(
                experiment_id,
                tags={"mlflow.parentRunId": parent, "mlcp.candidate": tried.candidate.kind},
                run_name=tried.candidate.name,
            )
            params = {"kind": tried.candidate.kind, **tried.fitted.params, "rounds": tried.fitted.rounds}
            metrics = {f"validation_{config.metric.name}": tried.value, "fit_seconds": tried.seconds}
            self._client.log_batch(
                child.info.run_id,
                metrics=[Metric(key, value, 0, 0) for key, value in metrics.items() if value == value],
                params=[Param(key, str(value)[:_PARAM_LIMIT]) for key, value in params.items() if value is not None],
            )
            self._client.set_terminated(child.info.run_id)

    def _log_files(self, run_id: str, pictures: Mapping[str, bytes], card: str, native: Path) -> None:
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary)
            (folder / "pictures").mkdir()
            for name, content in pictures.items():
                (folder / "pictures" / name).write_bytes(content)
            (folder / "model_card.md").write_text(card, encoding="utf-8")
            for name in ("evidence.json", "profile.json"):
                shutil.copyfile(native / name, folder / name)
            self._client.log_artifacts(run_id, str(folder))

    def _log_model(self, config: ModelConfig, trained: Trained, example: Mapping[str, Any]) -> Any:
        import pandas as pd

        with tempfile.TemporaryDirectory() as temporary, warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # advice on type hints
            code = Path(temporary) / "model_servers"
            _copy_runtime(code)
            return self._mlflow.pyfunc.log_model(
                name="model",
                python_model=str(models.ROOT / "training" / "common" / "pyfunc_entry.py"),
                artifacts={"native": str(trained.folder)},
                code_paths=[str(code)],
                signature=_signature(config),
                input_example=pd.DataFrame([example["features"]]),
                pip_requirements=_requirements(trained.manifest.kind),
            )

    @contextmanager
    def _answering(self) -> Iterator[None]:
        """Translate what mlflow raises when its server is away or fails."""
        import requests
        from mlflow.exceptions import MlflowException

        try:
            yield
        except (MlflowException, requests.RequestException) as exc:
            raise RegistryUnavailable(f"MLflow at {self._url}: {exc}") from exc


def _copy_runtime(target: Path) -> None:
    """The native runtime's code alone, as a package of the same name."""
    source = models.ROOT / "model_servers"
    shutil.copytree(source / "native", target / "native", ignore=shutil.ignore_patterns("__pycache__"))
    (target / "__init__.py").write_text('"""The native runtime this model was logged with."""\n', encoding="utf-8")


def _requirements(kind: str) -> list[str]:
    from importlib.metadata import version

    library = {"xgboost": ["xgboost-cpu"], "forest": ["xgboost-cpu"], "lightgbm": ["lightgbm"]}.get(kind, [])
    return [f"{package}=={version(package)}" for package in ("mlflow", "numpy", "pandas", *library)]


def _signature(config: ModelConfig) -> Any:
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, Schema

    inputs: list[Any] = [
        ColSpec(_type(feature), name, required=not feature.nullable) for name, feature in config.features.items()
    ]
    outputs: list[Any] = {
        Problem.BINARY: [ColSpec("double", "probability"), ColSpec("string", "decision")],
        Problem.MULTICLASS: [ColSpec("string", "label"), ColSpec("double", "probability")],
        Problem.REGRESSION: [ColSpec("double", "value")],
        Problem.OPAQUE: [],
    }[config.problem]
    return ModelSignature(Schema(inputs), Schema(outputs))


def _type(feature: Feature) -> str:
    """A nullable integer is a double to MLflow: pandas has no null in an integer column."""
    match feature.type:
        case FeatureType.NUMBER:
            return "double"
        case FeatureType.INTEGER:
            return "double" if feature.nullable else "long"
        case FeatureType.BOOLEAN:
            return "double" if feature.nullable else "boolean"
        case FeatureType.CATEGORY | FeatureType.TEXT:
            return "string"
