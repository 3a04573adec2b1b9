"""Refuse bad training data, naming column, check, how many rows and a few of them.

Types are checked first, value by value; what they let through goes through a pandera schema made of model.yaml
(ranges, nulls, categories, duplicates); leakage is looked for in the columns nothing was found in.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from control_plane.domain.model_config import Feature, FeatureType, ModelConfig, Problem
from training.common import data, labels, leakage

_EXAMPLES = 5
MIN_ROWS = 100


@dataclass(frozen=True, slots=True)
class Finding:
    """One reason to refuse. `examples`: "row 12: -3.0" (row numbers count from 0); values of personal data, id and
    unit are left out. `rows`: how many rows are concerned, 0 when the column as a whole is."""

    column: str
    check: str
    message: str
    rows: int = 0
    examples: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Checked:
    """`findings`: every reason to refuse, empty when the rows may be learnt from. `leakage`: looked for, or why not."""

    findings: tuple[Finding, ...]
    leakage: str


LEAKAGE_CHECKED = "checked"
LEAKAGE_TOO_FEW = "not checked: too few rows of the rarer answers"
LEAKAGE_LATER = "not checked: what was found has to be repaired first"


def raw(
    frame: pd.DataFrame, declared: Mapping[str, Mapping[str, Any]], config: ModelConfig
) -> tuple[pd.DataFrame, list[Finding]]:
    """Check and type the columns features.py reads. `declared`: {column: {type, nullable?, pii?}}; a type may be
    time."""
    hidden = _hidden(config) | {name for name, column in declared.items() if column.get("pii", False)}
    found = [_missing(name, "features.py reads it") for name in declared if name not in frame]
    if found:
        return frame, found
    frame = frame.copy()
    for name, column in declared.items():
        values, strange = _converted(frame[name], column["type"])
        found += _typed(name, frame[name], strange, column["type"], hide=name in hidden)
        null = pd.isna(values) & ~strange
        if null.any() and not column.get("nullable", False):
            found.append(_finding(name, "null", "has nulls, but features.py needs every value", null))
        if column["type"] == "integer" and not pd.isna(values).any():
            frame[name] = values.astype(np.int64)
        else:
            frame[name] = values
    return frame, found


def check(frame: pd.DataFrame, config: ModelConfig, *, now: datetime) -> Checked:
    """Look at rows of final features, target and keys.

    `now`: aware; event times after it are wrong.
    """
    target = labels.target_of(config)
    keys = [column for column in (config.id, config.unit, config.time) if column]
    wanted = dict.fromkeys([*config.features, target.column, *keys, *config.training.unique])
    found = [_missing(name, "model.yaml declares it") for name in wanted if name not in frame]
    if config.costs and (column := config.costs.false_negative_column) and column not in frame:
        found.append(_missing(column, "costs.false_negative_column names it"))
    if len(frame) < MIN_ROWS:
        found.append(Finding("", "rows", f"{len(frame)} rows; at least {MIN_ROWS} are needed"))
    if found:
        return Checked(tuple(found), LEAKAGE_LATER)
    hidden = _hidden(config)
    arrays: dict[str, NDArray[Any]] = {}
    mistyped: dict[str, NDArray[np.bool_]] = {}
    for name, feature in config.features.items():
        arrays[name], mistyped[name] = data.convert(frame[name], feature.type)
        found += _typed(name, frame[name], mistyped[name], feature.type, hide=name in hidden)
    found += _schema(arrays, mistyped, config)
    found += _repeated(frame, arrays, config)
    said = {(one.column, one.check) for one in found}
    found += [one for one in _keys(frame, config) + _amounts(frame, config) if (one.column, one.check) not in said]
    late = _times(frame, config, now)
    unclear = _target(frame, config)
    found += late + unclear
    if unclear:
        return Checked(tuple(found), LEAKAGE_LATER)
    wrong = {one.column for one in found}
    sound = {name: values for name, values in arrays.items() if name not in wrong}
    leaks = leakage.find(sound, frame, config, None if late else data.times(frame, config))
    found += [Finding(name, "leakage", message) for name, message in leaks or ()]
    return Checked(tuple(found), LEAKAGE_TOO_FEW if leaks is None else LEAKAGE_CHECKED)


def _schema(
    arrays: Mapping[str, NDArray[Any]], mistyped: Mapping[str, NDArray[np.bool_]], config: ModelConfig
) -> list[Finding]:
    import pandera.pandas as pa
    from pandera.errors import SchemaErrors

    columns = {
        name: pa.Column(None, _checks(feature, pa), nullable=feature.nullable)
        for name, feature in config.features.items()
    }
    try:
        pa.DataFrameSchema(columns).validate(pd.DataFrame(dict(arrays)), lazy=True)
    except SchemaErrors as exc:
        cases = exc.failure_cases
        named = [  # what is no value of the type was named as such, and is null only since
            not mistyped[str(column)][int(index)] for column, index in zip(cases["column"], cases["index"], strict=True)
        ]
        return _findings(cases[named], config)
    return []


def _repeated(frame: pd.DataFrame, arrays: Mapping[str, NDArray[Any]], config: ModelConfig) -> list[Finding]:
    """Rows that come again by their keys; where model.yaml declares none, whole rows as training would read them."""
    keys: set[tuple[str, ...]] = {(config.id,)} if config.id else set()
    if config.training.unique:
        keys.add(config.training.unique)
    if not keys:
        named = dict.fromkeys(
            column for column in (labels.target_of(config).column, config.unit, config.time) if column
        )
        whole = pd.DataFrame(dict(arrays) | {name: frame[name].to_numpy() for name in named})
        repeated = whole.duplicated(keep="first").to_numpy()
        said = "the whole row comes again; declare `id` or `training.unique` if equal rows are different cases"
        return [_finding("", "duplicate", said, repeated)] if repeated.any() else []
    found: list[Finding] = []
    for columns in sorted(keys):
        repeated = frame.duplicated(list(columns), keep="first").to_numpy()
        if repeated.any():
            said = "identifies a row, but the same value comes again"
            found.append(_finding(", ".join(columns), "duplicate", said, repeated))
    return found


def _keys(frame: pd.DataFrame, config: ModelConfig) -> list[Finding]:
    """Rows without an id cannot be told apart, rows without a unit cannot be kept on one side of the split.

    A unit that is declared a nullable feature may be missing: such rows then count as one unit.
    """
    found: list[Finding] = []
    for column in dict.fromkeys(key for key in (config.id, config.unit) if key):
        null = frame[column].isna().to_numpy()
        declared = config.features.get(column)
        if null.any() and (column == config.id or declared is None or not declared.nullable):
            said = "has nulls, but says whose row it is: drop those rows"
            said += "" if column == config.id else ", or declare it a nullable feature and they count as one unit"
            found.append(_finding(column, "null", said, null))
    return found


def _amounts(frame: pd.DataFrame, config: ModelConfig) -> list[Finding]:
    """Each row's own cost of a missed positive is a number, never null or negative."""
    column = config.costs.false_negative_column if config.costs else None
    if column is None:
        return []
    shown = None if column in _hidden(config) else frame[column]
    values, strange = data.convert(frame[column], FeatureType.NUMBER)
    negative = np.less(values, 0, where=~np.isnan(values), out=np.zeros(len(values), dtype=bool))
    return [
        _finding(column, check, message, rows, examples)
        for check, message, rows, examples in (
            ("type", "is costs.false_negative_column, but has values that are no number", strange, shown),
            ("null", "is costs.false_negative_column, but has nulls", np.isnan(values) & ~strange, None),
            ("range", "is costs.false_negative_column, but has negative values", negative, shown),
        )
        if rows.any()
    ]


def _checks(feature: Feature, pa: Any) -> list[Any]:
    checks: list[Any] = []
    if feature.range is not None:
        checks.append(pa.Check.in_range(*feature.range, name="range"))
    if feature.categories is not None:
        checks.append(pa.Check.isin(list(feature.categories), name="category"))
    return checks


def _findings(cases: pd.DataFrame, config: ModelConfig) -> list[Finding]:
    """pandera's failure cases, one line per value, folded into one finding per column and check."""
    said = {"not_nullable": "null", "in_range": "range", "isin": "category"}
    found: list[Finding] = []
    hidden = _hidden(config)
    for (column, name), rows in cases.groupby(["column", "check"], sort=False):
        kind = said.get(str(name).split("(")[0], str(name))
        feature = config.features[str(column)]
        message = {
            "null": "is not nullable",
            "range": f"has values outside {list(feature.range or ())}",
            "category": f"has values that are none of the {len(feature.categories or ())} declared categories",
        }.get(kind, f"fails {name}")
        shown = [
            f"row {int(index)}" if str(column) in hidden or kind == "null" else f"row {int(index)}: {_plain(value)!r}"
            for index, value in zip(rows["index"].head(_EXAMPLES), rows["failure_case"].head(_EXAMPLES), strict=True)
        ]
        found.append(Finding(str(column), kind, message, len(rows), tuple(shown)))
    return found


def _times(frame: pd.DataFrame, config: ModelConfig, now: datetime) -> list[Finding]:
    if config.time is None:
        return []
    parsed = data.parse_times(frame[config.time])
    shown = None if config.time in _hidden(config) else frame[config.time]
    wrong = parsed.isna().to_numpy()
    late = (parsed > pd.Timestamp(now).tz_convert("UTC").tz_localize(None)).to_numpy()
    found: list[Finding] = []
    if wrong.any():
        found.append(_finding(config.time, "type", "has values that are no time", wrong, shown))
    if late.any():
        found.append(_finding(config.time, "range", "lies in the future", late, shown))
    return found


def _target(frame: pd.DataFrame, config: ModelConfig) -> list[Finding]:
    target = labels.target_of(config)
    column = frame[target.column]
    match config.problem:
        case Problem.BINARY:
            yes = labels.is_positive(column, target.positive)
            others = list(column[~yes].dropna().unique())
            no_count = int((~yes & (column.notna().to_numpy() | (config.label.absence_means == "negative"))).sum())
            if not yes.any() or not no_count:
                what = f"no row says {target.positive!r}" if not yes.any() else f"every row says {target.positive!r}"
                return [Finding(target.column, "target", f"{what}: there is nothing to tell apart")]
            if len(others) > 1:
                listed = ", ".join(repr(value) for value in others[:_EXAMPLES])
                return [Finding(target.column, "target", f"a binary target has two values; beside "
                                f"{target.positive!r} there are {len(others)}: {listed}")]  # fmt: skip
        case Problem.MULTICLASS:
            if column.nunique() < 2:
                return [Finding(target.column, "target", "has fewer than two classes: there is nothing to tell apart")]
        case Problem.REGRESSION | Problem.OPAQUE:
            _, strange = data.convert(column, FeatureType.NUMBER)
            if strange.any():
                return _typed(target.column, column, strange, "number", hide=False)
            if column.nunique() < 2:
                return [Finding(target.column, "target", "is constant: there is nothing to learn")]
    return []


def _hidden(config: ModelConfig) -> set[str]:
    """Columns whose values no report shows: personal data, and what names a row or whose it is."""
    personal = {name for name, feature in config.features.items() if feature.pii}
    return personal | {key for key in (config.id, config.unit) if key}


def _converted(values: "pd.Series[Any]", kind: str) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    if kind == "time":
        parsed = data.parse_times(values)
        return parsed.to_numpy(), (parsed.isna() & values.notna()).to_numpy()
    return data.convert(values, FeatureType(kind))


def _typed(name: str, values: "pd.Series[Any]", strange: NDArray[np.bool_], kind: str, *, hide: bool) -> list[Finding]:
    if not strange.any():
        return []
    return [_finding(name, "type", f"has values that are no {kind}", strange, None if hide else values)]


def _finding(
    column: str, check: str, message: str, rows: NDArray[np.bool_], values: "pd.Series[Any] | None" = None
) -> Finding:
    at = np.flatnonzero(rows)
    shown = [f"row {i}" if values is None else f"row {i}: {_plain(values.iloc[i])!r}" for i in at[:_EXAMPLES].tolist()]
    return Finding(column, check, message, len(at), tuple(shown))


def _plain(value: Any) -> Any:
    """9.0 and not np.float64(9.0)."""
    return value.item() if isinstance(value, np.generic) else value


def _missing(name: str, why: str) -> Finding:
    return Finding(name, "schema", f"is missing; {why}")
