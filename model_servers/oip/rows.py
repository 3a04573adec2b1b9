"""Tensors -> rows of a tabular model: one tensor per feature, or one matrix of all of them in the model's order."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal, cast

import msgspec

from model_servers.oip.tensors import Malformed, Tensor, Value

MOST_ROWS: Final = 64  # of one request; what one call of the model takes. More rows are /batch_predict's
_MOST_REASONS: Final = 100

Kind = Literal["number", "integer", "boolean", "text", "any"]
_DATATYPES: Final[Mapping[Kind, str]] = {
    "number": "FP64",
    "integer": "INT64",
    "boolean": "BOOL",
    "text": "BYTES",
    "any": "BYTES",
}
_EXPECTED: Final[Mapping[Kind, str]] = {
    "number": "a finite number",
    "integer": "an integer",
    "boolean": "true or false",
    "text": "text",
    "any": "a value",
}
_JSON_KINDS: Final[Mapping[object, Kind]] = {
    "number": "number",
    "integer": "integer",
    "boolean": "boolean",
    "string": "text",
}


class Input(msgspec.Struct, frozen=True):
    """A feature as an input tensor."""

    name: str
    kind: Kind
    nullable: bool = False

    def described(self) -> dict[str, object]:
        """Its entry in the model's metadata; MLServer's clients read `content_type`."""
        entry: dict[str, object] = {"name": self.name, "datatype": _DATATYPES[self.kind], "shape": [-1, 1]}
        parameters: dict[str, object] = {"content_type": "str"} if self.kind == "text" else {}
        if self.nullable:
            parameters["nullable"] = True
        return entry | ({"parameters": parameters} if parameters else {})


def declared(request_schema: Mapping[str, Any]) -> tuple[Input, ...]:
    """The inputs a predict body's JSON Schema declares, in its order; empty where it declares none."""
    features: Any = request_schema
    for member in ("properties", "features", "properties"):
        features = features.get(member) or {}
    made: list[Input] = []
    for name, schema in cast("Mapping[str, Mapping[str, object]]", features).items():
        given = schema.get("type")
        kinds = cast("list[object]", given) if isinstance(given, list) else [given]
        found: list[Kind] = [_JSON_KINDS[kind] for kind in kinds if kind in _JSON_KINDS]
        made.append(Input(name, found[0] if found else "any", "null" in kinds))
    return tuple(made)


def rows(
    tensors: Sequence[Tensor],
    inputs: Sequence[Input],
    *,
    also: frozenset[str] = frozenset(),
    most: int = MOST_ROWS,
) -> list[dict[str, Value]]:
    """One dict of features per row.

    Each feature is a tensor [n] or [n, 1] of its name; or there is one tensor [n, features] of any other name. NaN
    and JSON's null are null. A nullable feature without a tensor is null in every row. `also`: names of further
    tensors that may be there, passed on as they are. `inputs` empty: every tensor is a feature, whatever its type.

    Raises Malformed with every reason: a tensor unknown or missing, row counts that differ, values that do not fit.
    """
    if not tensors:
        raise Malformed("inputs: expected at least one tensor")
    known = {given.name: given for given in inputs}
    matrix = next((t for t in tensors if inputs and t.name not in known and t.name not in also), None)
    if matrix is not None and len(matrix.shape) == 2 and not any(t.name in known for t in tensors):
        columns = _of_matrix(matrix, inputs)
        given = [t for t in tensors if t is not matrix]
    else:
        columns, given = dict[str, list[Value]](), list(tensors)
    count = tensors[0].shape[0]
    reasons = [
        f"inputs.{t.name}: has {t.shape[0]} rows, {tensors[0].name} has {count}"
        for t in tensors[1:]
        if t.shape[0] != count
    ]
    if not 1 <= count <= most:
        reasons.append(f"inputs: 1 to {most} rows are taken at once, got {count}; batch_predict takes any number")
    for tensor in given:
        if inputs and tensor.name not in known and tensor.name not in also:
            reasons.append(f"inputs.{tensor.name}: unknown; the model has {', '.join(known)}")
        elif tensor.shape[1:] not in ([], [1]):
            reasons.append(f"inputs.{tensor.name}: shape {tensor.shape} must be [n] or [n, 1]")
        else:
            columns[tensor.name] = tensor.values
    if reasons:
        raise Malformed(*reasons)
    for feature in inputs:
        if feature.name not in columns:
            if not feature.nullable:
                reasons.append(f"inputs.{feature.name}: missing")
            columns[feature.name] = [None] * count
        else:
            columns[feature.name] = _fitted(feature, columns[feature.name], reasons)
    if reasons:
        raise Malformed(*_capped(reasons))
    ordered = [feature.name for feature in inputs] + [name for name in columns if name not in known]
    return [{name: columns[name][row] for name in ordered} for row in range(count)]


def _of_matrix(tensor: Tensor, inputs: Sequence[Input]) -> dict[str, list[Value]]:
    width = tensor.shape[1]
    if width != len(inputs):
        names = ", ".join(feature.name for feature in inputs)
        raise Malformed(f"inputs.{tensor.name}: has {width} columns, the model has {len(inputs)} features: {names}")
    return {feature.name: tensor.values[i::width] for i, feature in enumerate(inputs)}


def _fitted(feature: Input, values: Sequence[Value], reasons: list[str]) -> list[Value]:
    """The values in the feature's own type; reasons name the row of each that has none."""
    made: list[Value] = []
    for row, value in enumerate(values):
        fit = _fit(feature.kind, value)
        if fit is None and not (feature.nullable and _is_null(value)):
            shown = "null" if _is_null(value) else type(value).__name__ if isinstance(value, str) else value
            reasons.append(f"inputs.{feature.name}[{row}]: expected {_EXPECTED[feature.kind]}, got {shown}")
        made.append(fit)
    return made


def _is_null(value: Value) -> bool:
    return value is None or value != value


def _fit(kind: Kind, value: Value) -> Value:
    """`value` as `kind`; None where it is null or does not fit."""
    if _is_null(value):
        return None
    match kind:
        case "number":
            fits = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
            return value if fits else None
        case "integer":
            if isinstance(value, float) and value.is_integer():
                return int(value)
            return value if isinstance(value, int) and not isinstance(value, bool) else None
        case "boolean":
            return bool(value) if value in (0, 1) else None
        case "text":
            return value if isinstance(value, str) else None
        case "any":
            return value


def _capped(reasons: list[str]) -> list[str]:
    more = len(reasons) - _MOST_REASONS
    return [*reasons[:_MOST_REASONS], f"and {more} more"] if more > 0 else reasons
