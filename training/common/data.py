"""Rows from files, and features as the arrays everything else works on."""

import hashlib
import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from control_plane.domain.model_config import Feature, FeatureType, ModelConfig
from control_plane.errors import InvalidData

_TEXTUAL = {FeatureType.CATEGORY, FeatureType.TEXT}


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """What was trained on, for the record. `start`, `end`: event times, ISO 8601 in UTC, None without a time column."""

    sha256: str
    rows: int
    source: str
    start: str | None = None
    end: str | None = None


def read(path: Path, config: ModelConfig) -> pd.DataFrame:
    """A Parquet or CSV file as it is; nothing is coerced here, so that validation can name what is wrong."""
    try:
        match path.suffix.lower():
            case ".parquet":
                return pd.read_parquet(path)
            case ".csv":
                words = {name: "str" for name, feature in config.features.items() if feature.type in _TEXTUAL}
                frame = pd.read_csv(path, dtype=words)
                if not isinstance(frame.index, pd.RangeIndex):  # the first column would be taken for names of rows
                    raise InvalidData(f"{path}: its rows have more values than its head has names.")
                return frame
            case suffix:
                raise InvalidData(f"{path}: {suffix or 'no suffix'} is neither .parquet nor .csv.")
    except (OSError, ValueError, UnicodeDecodeError) as exc:  # pyarrow's and pandas' parse errors are ValueErrors
        raise InvalidData(f"{path} cannot be read: {exc}") from exc


def read_logged(url: str) -> tuple[pd.DataFrame, str]:
    """Rows of the prediction log, one JSON object a line, and the SHA-256 of the file. `url`: file:// or s3://."""
    from pyarrow import fs

    digest, rows = hashlib.sha256(), list[dict[str, Any]]()
    try:
        system, path = fs.FileSystem.from_uri(url)
        with system.open_input_stream(path) as source, io.BufferedReader(source, 2**20) as lines:
            for line in lines:
                digest.update(line)
                rows.append(json.loads(line))
    except (OSError, ValueError) as exc:
        raise InvalidData(f"The rows out of the log cannot be read: {exc}") from exc
    return pd.DataFrame.from_records(rows), digest.hexdigest()


def hash_file(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def hash_frame(frame: pd.DataFrame) -> str:
    """Of simulated rows, which have no file: independent of the machine, not of the pandas version."""
    return hashlib.sha256(pd.util.hash_pandas_object(frame, index=False).to_numpy().tobytes()).hexdigest()


def times(frame: pd.DataFrame, config: ModelConfig) -> NDArray[np.int64] | None:
    """Event times in whole microseconds since 1970 (UTC); None without a time column. The column is valid by now."""
    if config.time is None:
        return None
    return parse_times(frame[config.time]).to_numpy().astype("datetime64[us]").astype(np.int64)


def parse_times(values: "pd.Series[Any]") -> "pd.Series[Any]":
    """As naive UTC; NaT for what is no time. A time without a zone is UTC; a number is refused, its unit is unknown."""
    if pd.api.types.is_numeric_dtype(values):
        return pd.Series(pd.NaT, index=values.index, dtype="datetime64[us]")
    parsed = pd.to_datetime(values, errors="coerce", utc=True, format=None if _is_time(values) else "ISO8601")
    return parsed.dt.tz_localize(None)


def _is_time(values: "pd.Series[Any]") -> bool:
    return pd.api.types.is_datetime64_any_dtype(values)


def fingerprint(frame: pd.DataFrame, config: ModelConfig, *, sha256: str, source: str) -> Fingerprint:
    at = times(frame, config)
    if at is None or not len(at):
        return Fingerprint(sha256, len(frame), source)
    start, end = (str(np.datetime64(int(value), "us")) + "Z" for value in (at.min(), at.max()))
    return Fingerprint(sha256, len(frame), source, start, end)


def convert(values: "pd.Series[Any]", kind: FeatureType) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """Values as arrays (floats with NaN for null; strings with None for null) and which of them are not of `kind`.

    A boolean is True/False, 0/1 or the words true/false/yes/no in any case. Infinity is not a number.
    """
    null = values.isna().to_numpy()
    if kind in _TEXTUAL:
        if isinstance(values.dtype, pd.CategoricalDtype):
            values = values.astype(values.cat.categories.dtype)
        words = values.astype(object)
        strange = ~null & ~words.map(lambda value: isinstance(value, str)).to_numpy(dtype=bool)
        if strange.any() and pd.api.types.is_integer_dtype(values.dtype):  # codes like 4711 are words
            words, strange = words.map(str, na_action="ignore"), np.zeros(len(words), dtype=bool)
        out = words.to_numpy(dtype=object, copy=True)
        out[null] = None
        return out, strange
    if kind is FeatureType.BOOLEAN and not (pd.api.types.is_bool_dtype(values) or _numeric(values)):
        known = {"true": 1.0, "yes": 1.0, "1": 1.0, "false": 0.0, "no": 0.0, "0": 0.0}
        values = values.map(lambda value: known.get(str(value).lower(), value), na_action="ignore")
    numbers = pd.to_numeric(values, errors="coerce").to_numpy(dtype=np.float64, na_value=np.nan)
    strange = ~null & ~np.isfinite(numbers)
    with np.errstate(invalid="ignore"):
        if kind is FeatureType.INTEGER:
            strange |= ~null & (numbers != np.floor(numbers))
        elif kind is FeatureType.BOOLEAN:
            strange |= ~null & (numbers != 0) & (numbers != 1)
    return np.where(strange, np.nan, numbers), strange


def _numeric(values: "pd.Series[Any]") -> bool:
    return pd.api.types.is_numeric_dtype(values)


def columns(frame: pd.DataFrame, features: Mapping[str, Feature]) -> list[NDArray[Any]]:
    """The features in declared order, as the native runtime reads them. Values are valid by now, or null."""
    return [convert(frame[name], feature.type)[0] for name, feature in features.items()]
