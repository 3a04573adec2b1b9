"""Serves any MLflow model by `mlflow.pyfunc`: slower, in frames, and with whatever the model's author imports."""

import importlib
import json
import logging
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import Any, Final, cast

from model_servers.runtime import schema
from model_servers.runtime.engine import ModelFailed
from model_servers.runtime.features import Row
from model_servers.runtime.problems import Refused
from model_servers.runtime.spec import BadSpec, Config, Feature

_log = logging.getLogger(__name__)

# MLflow's column types -> pandas dtypes. Integers with nulls take pandas' own nullable type.
_DTYPES: Final = {
    "double": "float64",
    "float": "float32",
    "long": "int64",
    "integer": "int32",
    "boolean": "bool",
    "string": "object",
    "datetime": "datetime64[ns]",
}
_NULLABLE: Final = {"int64": "Int64", "int32": "Int32", "bool": "object"}
_DECLARED: Final = {"number": "float64", "integer": "int64", "boolean": "bool", "category": "object", "text": "object"}


def preload(folder: Path) -> None:
    """Import what loading `folder` will import, before the fork, so that workers share its pages.

    Nothing of the model itself is loaded or run here. A process that forks should have one thread; Arrow's allocator
    has one of its own, which knows about forks.
    """
    importlib.import_module("mlflow.pyfunc")
    models = importlib.import_module("mlflow.models")
    with suppress(Exception):  # a broken MLmodel is reported by the worker that loads it
        flavors: dict[str, Any] = models.Model.load(str(folder)).flavors
        for name in (flavors.get("python_function", {}).get("loader_module"), *flavors):
            with suppress(ImportError):
                importlib.import_module(str(name))
    if threads := _threads() - {"jemalloc_bg_thd"}:
        _log.warning("threads before the fork", extra={"threads": sorted(threads)})


def _threads() -> set[str]:
    """Names of this process's threads but the main one; empty where the system does not tell."""
    tasks = Path("/proc/self/task")
    return {(task / "comm").read_text().strip() for task in tasks.glob("*") if task.name != str(os.getpid())}


class PyfuncEngine:
    """Implements Engine. Loads at first use, or when told to: most foreign models never see a batch."""

    def __init__(self, folder: Path, config: Config) -> None:
        self._folder = folder
        self._config = config
        self.features = config.features
        self._names = list(config.features)

    def load(self) -> None:
        """Raises BadSpec for a signature that has no named columns, and whatever the model's loading raises."""
        self._loaded  # noqa: B018  (a cached property)

    @cached_property
    def _loaded(self) -> tuple[Any, dict[str, str]]:
        """The model and the pandas dtype of each column."""
        model: Any = importlib.import_module("mlflow.pyfunc").load_model(str(self._folder))
        return model, _dtypes(model.metadata.get_input_schema(), self.features)

    @property
    def rows_at_once(self) -> bool:
        """Whether a row scored among others scores the same; found out, once, by scoring the example."""
        return self._independent

    @cached_property
    def _independent(self) -> bool:
        example = schema.example(self._config, self.recorded_example())["features"]
        row = tuple(example[name] for name in self._names)
        try:
            alone = self._values([row])
            among = self._values([row, row, row])
        except Exception:  # noqa: BLE001  (the author's code; a request will show it again)
            return False
        return len(alone) == 1 and [_json(value) for value in among] == [_json(alone[0])] * 3

    def recorded_example(self) -> Mapping[str, object] | None:
        with suppress(Exception):  # any shape but one table row is no example of ours
            table = json.loads((self._folder / "serving_input_example.json").read_bytes())["dataframe_split"]
            found: dict[str, object] = dict(zip(table["columns"], table["data"][0], strict=True))
            return found
        return None

    def answers(self, rows: Sequence[Row], hurried: bool = False) -> list[bytes]:
        return [b'{"output":{"value":%b}}' % _json(value) for value in self._values(rows)]

    def explanations(self, rows: Sequence[Row]) -> list[bytes]:
        detail = "A model of its author's own code has no exact attributions."
        raise Refused(422, "not-explainable", "This model cannot be explained", detail, [f"model: {detail}"])

    def _values(self, rows: Sequence[Row]) -> list[Any]:
        pandas: Any = importlib.import_module("pandas")
        model, dtypes = self._loaded
        columns = zip(self._names, zip(*rows, strict=True), strict=True)
        frame = {name: pandas.Series(list(column), dtype=_dtype(dtypes[name], column)) for name, column in columns}
        return per_row(model.predict(pandas.DataFrame(frame)), len(rows))


def per_row(result: Any, rows: int) -> list[Any]:
    """One plain Python value per row out of what a model returned: array, frame, series, list or dict of columns.

    Anything that does not have one value per row is the answer of a single row, and raises ModelFailed for several.
    """
    values: Any = result
    if hasattr(result, "to_dict") and hasattr(result, "columns"):
        values = result.to_dict(orient="records")
    elif hasattr(result, "tolist"):
        values = result.tolist()
    elif isinstance(result, dict):
        values = _records(cast("dict[str, Any]", result), rows)
    if isinstance(values, list):
        made = cast("list[Any]", cast("object", values))
        if len(made) == rows:
            return made
    if rows == 1:
        return [values]
    raise ModelFailed("the model does not return one value per row")


def _records(columns: dict[str, Any], rows: int) -> Any:
    """A dict of columns turned into one dict per row; any other dict as it is."""
    lists: dict[str, list[Any]] = {}
    for name, value in columns.items():
        column: Any = value.tolist() if hasattr(value, "tolist") else value
        if not isinstance(column, list):
            return columns
        lists[name] = cast("list[Any]", cast("object", column))
    if not lists or any(len(column) != rows for column in lists.values()):
        return columns
    return [dict(zip(lists, values, strict=True)) for values in zip(*lists.values(), strict=True)]


def _json(value: Any) -> bytes:
    """NaN and infinity become null: JSON has no other word for them."""
    return json.dumps(_plain(value), allow_nan=False, separators=(",", ":")).encode()


def _plain(value: Any) -> Any:
    match value:
        case None | bool() | int() | str():
            return value
        case float():
            return value if math.isfinite(value) else None
        case dict():
            members = cast("dict[Any, Any]", cast("object", value))
            return {str(key): _plain(inner) for key, inner in members.items()}
        case list() | tuple() | set():
            elements = cast("Iterable[Any]", cast("object", value))
            return [_plain(inner) for inner in elements]
        case _ if hasattr(value, "tolist"):
            return _plain(value.tolist())
        case _ if hasattr(value, "isoformat"):
            return value.isoformat()
        case _:
            raise ModelFailed(f"the model returned a {type(value).__name__}, which has no JSON form")


def _dtypes(signature: Any, features: Mapping[str, Feature]) -> dict[str, str]:
    """A pandas dtype per feature: the signature's where there is one, else the declared type's."""
    if signature is None:
        return {name: _DECLARED[feature.type] for name, feature in features.items()}
    if signature.is_tensor_spec() or not signature.has_input_names():
        raise BadSpec("artifact: its signature has no named columns; log it with a DataFrame as input example")
    signed = {column.name: str(getattr(column.type, "name", column.type)) for column in signature.inputs}
    if unknown := sorted(set(features) - set(signed)):
        raise BadSpec(f"config.features: {', '.join(unknown)} not in the artifact's signature")
    return {name: _DTYPES.get(signed[name], "object") for name in features}


def _dtype(dtype: str, column: Sequence[object]) -> str:
    return _NULLABLE.get(dtype, dtype) if None in column else dtype
