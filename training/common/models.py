"""Where a model's declaration and its optional code are: model.yaml, features.py, simulate.py."""

import importlib.util
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol

import pandas as pd
import yaml
from numpy.random import Generator
from pydantic import TypeAdapter, ValidationError

from control_plane.domain.model_config import ModelConfig, problems
from control_plane.errors import InvalidConfig, NotFound
from model_servers import places
from model_servers.places import folders as folders
from training.common import candidates

ROOT = Path(__file__).resolve().parents[2]
_CONFIG = TypeAdapter(ModelConfig)


class Features(Protocol):
    def __call__(self, raw: pd.DataFrame, *, label_delay_s: int) -> pd.DataFrame: ...


class Simulate(Protocol):
    def __call__(self, rows: int, rng: Generator, *, scenario: str = ...) -> pd.DataFrame: ...


@dataclass(frozen=True, slots=True)
class Source:
    """A model as its owner wrote it. `raw`: columns features.py needs, by type ("time" included)."""

    config: ModelConfig
    text: str
    features_file: Path | None = None
    simulate_file: Path | None = None

    def features(self) -> tuple[Features | None, Mapping[str, Mapping[str, Any]]]:
        """The function that makes final features of raw rows, and the raw columns it declares. None: raw is final."""
        if self.features_file is None:
            return None, {}
        module = _load(self.features_file)
        return _function(module, "features"), getattr(module, "RAW", {})

    def simulate(self) -> Simulate:
        if self.simulate_file is None:
            raise InvalidConfig(f"{self.config.name} has no simulate.py: give rows with --data FILE, or write one.")
        function: Simulate = _function(_load(self.simulate_file), "simulate")
        return function


def find(model: str, among: list[Path]) -> Source:
    """The first folder that has `model`/model.yaml, or a model with that alias.

    Raises NotFound, or InvalidConfig with every reason.
    """
    path = places.find(model, among)
    if path is None:
        raise NotFound(f"No model.yaml of {model!r} in {', '.join(str(folder) for folder in among)}.", model=model)
    return read(path)


def read(path: Path) -> Source:
    """Parse one model.yaml; its code is beside it or, for the checkout's own models, in training/<name>/."""
    text = path.read_text(encoding="utf-8")
    try:
        config = _CONFIG.validate_python(yaml.safe_load(text))
    except yaml.YAMLError as exc:
        raise InvalidConfig(f"{path} is not YAML: {exc}", reasons=[str(exc)]) from exc
    except ValidationError as exc:
        reasons = [f"{'.'.join(str(part) for part in e['loc'])}: {e['msg']}" for e in exc.errors()]
        raise InvalidConfig(f"{path}: {'; '.join(reasons)}", reasons=reasons) from exc
    reasons = problems(config) + _untrainable(config)
    if reasons:
        raise InvalidConfig(f"{path}: {'; '.join(reasons)}", reasons=reasons)
    places = [path.parent]
    if path.is_relative_to(ROOT / "model_servers"):
        places.append(ROOT / "training" / path.parent.name)
    return Source(config, text, _first(places, "features.py"), _first(places, "simulate.py"))


def _untrainable(config: ModelConfig) -> list[str]:
    found: list[str] = []
    if config.target is None:
        found.append("target: name the column to learn")
    if config.metric is None:
        found.append("metric: declare what candidates are selected by")
    elif config.metric.name not in METRICS[config.problem]:
        found.append(f"metric.name: {config.metric.name} does not fit a {config.problem} problem")
    has_text = any(feature.type == "text" for feature in config.features.values())
    if config.training.workers and not candidates.by_workers(config):
        found.append("training.workers: XGBoost alone is fitted by workers, and it is no candidate here")
    for kind in config.training.candidates or ():
        if has_text != (kind == "tfidf_linear"):
            found.append(f"training.candidates: {kind} {'cannot read text features' if has_text else 'needs text'}")
        if kind == "lightgbm" and importlib.util.find_spec("lightgbm") is None:
            found.append("training.candidates: lightgbm is not installed (extra `lightgbm`)")
    return found


METRICS: Mapping[str, frozenset[str]] = {
    "binary": frozenset({"roc_auc", "average_precision", "accuracy", "log_loss"}),
    "multiclass": frozenset({"accuracy", "macro_f1", "log_loss"}),
    "regression": frozenset({"rmse", "mae", "r2"}),
    "opaque": frozenset(),
}


def _first(places: list[Path], name: str) -> Path | None:
    return next((place / name for place in places if (place / name).is_file()), None)


def _load(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"mlcp_model_{path.parent.name}_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _function(module: ModuleType, name: str) -> Callable[..., pd.DataFrame]:
    function = getattr(module, name, None)
    if not callable(function):
        raise InvalidConfig(f"{module.__file__} defines no function {name}().")
    return function  # type: ignore[no-any-return]  # a parse boundary: the model's own code
