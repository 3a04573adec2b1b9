"""A version someone else serves over the Open Inference Protocol: its description, and how its inputs are laid out.

The deployer writes the description into the snapshot (`Target.schema`); the router reads it there and translates.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal, cast

import msgspec

Kind = Literal["number", "integer", "boolean", "text"]
KINDS: Final[Mapping[str, Kind]] = {  # feature types of model.yaml
    "number": "number",
    "integer": "integer",
    "boolean": "boolean",
    "category": "text",
    "text": "text",
}
_JSON_TYPES: Final[Mapping[Kind, str]] = {
    "number": "number",
    "integer": "integer",
    "boolean": "boolean",
    "text": "string",
}
_DATATYPES: Final[Mapping[Kind, str]] = {"number": "FP64", "integer": "INT64", "boolean": "BOOL", "text": "BYTES"}


class Feature(msgspec.Struct, frozen=True):
    """A feature as clients send it."""

    kind: Kind
    nullable: bool = False

    def schema(self) -> dict[str, object]:
        """JSON Schema of its value."""
        kind = _JSON_TYPES[self.kind]
        return {"type": [kind, "null"] if self.nullable else kind}


class RemoteTensor(msgspec.Struct, frozen=True):
    """An input or output as the server's metadata says."""

    name: str
    datatype: str
    shape: tuple[int, ...] = (-1,)


class Decision(msgspec.Struct, frozen=True):
    """How a binary answer becomes a decision."""

    threshold: float = 0.5
    positive: str = "yes"
    negative: str = "no"


class Description(msgspec.Struct, frozen=True):
    """`Target.schema` of a version served elsewhere, as far as the router needs it."""

    features: tuple[str, ...]
    inputs: dict[str, Feature]  # by feature
    endpoint: tuple[RemoteTensor, ...] = ()  # the server's inputs; empty where its metadata names none
    problem: str = "opaque"
    decision: Decision = Decision()


class Part(msgspec.Struct, frozen=True):
    """One tensor of a request: the features it holds, in order, and its shape for one row."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    features: tuple[str, ...]


def layout(features: Mapping[str, Feature], remote: Sequence[RemoteTensor]) -> tuple[Part, ...]:
    """How one row is sent: a tensor per feature where the server names its inputs so, else one matrix of all.

    A server whose metadata names no inputs gets a matrix `input-0` of FP32 where every feature is a number or a
    boolean, else a tensor per feature.

    Raises ValueError: its inputs are neither.
    """
    if remote and all(tensor.name in features for tensor in remote):
        return tuple(
            Part(tensor.name, tensor.datatype, (1,) * max(1, len(tensor.shape)), (tensor.name,)) for tensor in remote
        )
    names = tuple(features)
    if not remote and any(feature.kind == "text" for feature in features.values()):
        return tuple(Part(name, _DATATYPES[features[name].kind], (1, 1), (name,)) for name in names)
    if not remote:
        return (Part("input-0", "FP32", (1, len(names)), names),)
    if len(remote) > 1:
        odd = [tensor.name for tensor in remote if tensor.name not in features]
        raise ValueError(f"Its inputs {', '.join(odd)} are no features of model.yaml, which has {', '.join(names)}.")
    (matrix,) = remote
    width = matrix.shape[-1] if len(matrix.shape) > 1 else -1
    if width not in (-1, len(names)):
        raise ValueError(f"Its input {matrix.name} has {width} columns, model.yaml has {len(names)} features.")
    return (Part(matrix.name, matrix.datatype, (1, len(names)), names),)


def describe(config: Mapping[str, Any], metadata: Mapping[str, Any]) -> dict[str, object]:
    """The description of a version with this model.yaml on a server with this metadata.

    Raises ValueError: no features are declared and the metadata names none either, or the two do not fit.
    """
    try:
        remote = msgspec.convert(metadata.get("inputs") or [], tuple[RemoteTensor, ...])
    except msgspec.ValidationError as exc:
        raise ValueError(f"Its metadata is not the protocol's: {exc}") from exc
    declared = cast("Mapping[str, Mapping[str, Any]]", config.get("features") or {})
    features = {
        name: Feature(KINDS[str(given.get("type", "number"))], bool(given.get("nullable")))
        for name, given in declared.items()
    } or {tensor.name: Feature(_kind_of(tensor.datatype)) for tensor in remote}
    if not features:
        raise ValueError("Neither model.yaml nor the server's metadata names a feature.")
    layout(features, remote)
    given = cast("Mapping[str, Any]", config.get("decision") or {})
    decision = Decision(**{name: given[name] for name in ("threshold", "positive", "negative") if given.get(name)})
    schema = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "type": "object",
        "required": ["features"],
        "properties": {
            "features": {
                "type": "object",
                "properties": {name: feature.schema() for name, feature in features.items()},
                "required": list(features),
                "additionalProperties": False,
            }
        },
    }
    described = Description(tuple(features), features, remote, str(config.get("problem") or "opaque"), decision)
    return {**cast("dict[str, object]", msgspec.to_builtins(described)), "oip": True, "request_schema": schema}


def _kind_of(datatype: str) -> Kind:
    if datatype.startswith("FP") or datatype == "BF16":
        return "number"
    return "integer" if "INT" in datatype else "boolean" if datatype == "BOOL" else "text"
