"""JSON Schema and example of a model's predict body. The runtime's /schema and the generator share this."""

from collections.abc import Mapping
from typing import Any

from model_servers.runtime.spec import Config, Feature, FeatureKind

_JSON_TYPE: dict[FeatureKind, str] = {
    "number": "number",
    "integer": "integer",
    "boolean": "boolean",
    "category": "string",
    "text": "string",
}
EXPECTED: dict[FeatureKind, str] = {
    "number": "a number",
    "integer": "an integer",
    "boolean": "true or false",
    "category": "a string",
    "text": "a string",
}

Json = dict[str, Any]  # a JSON document of our own making


def of_feature(feature: Feature) -> Json:
    """Ranges and categories are described, not enforced: a customer outside them is served and counted."""
    kind = _JSON_TYPE[feature.type]
    schema: Json = {"type": [kind, "null"] if feature.nullable else kind}
    notes: list[str] = []
    if feature.range:
        notes.append(f"Usually {_plain(feature.range[0])} to {_plain(feature.range[1])}.")
    if feature.categories:
        notes.append("Known values: " + ", ".join(feature.categories[:50]) + "; others are served as unseen.")
    if feature.description:
        notes.insert(0, feature.description.removesuffix(".") + "." * bool(notes))
    if notes:
        schema["description"] = " ".join(notes)
    schema["examples"] = [example_of(feature)]
    return schema


def request(config: Config, recorded: Mapping[str, object] | None = None) -> Json:
    """JSON Schema (2020-12) of the predict body; `recorded` as in `example`."""
    features: Json = {
        "type": "object",
        "properties": {name: of_feature(feature) for name, feature in config.features.items()},
        "required": list(config.features),
        "additionalProperties": False,
    }
    properties: Json = {
        "features": features,
        "unit_id": {"type": "string", "description": "Assignment unit, such as a customer's id; at most 128 bytes."},
        "request_id": {"type": "string", "description": "The caller's own id of this request."},
        "model_version": {"type": "string", "description": "A version or alias to pin; needs the scope predict:pin."},
    }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": f"Predict body of {config.name}",
        "type": "object",
        "properties": properties,
        "required": ["features"],
        "examples": [example(config, recorded)],
    }


def answer(config: Config) -> Json:
    """JSON Schema of the model server's answer."""
    number: Json = {"type": "number"}
    probability: Json = {"type": "number", "minimum": 0, "maximum": 1}
    output: Json
    match config.problem:
        case "binary":
            output = {"probability": {**probability, "description": f"Of {config.decision.positive}."}}
        case "multiclass":
            output = {"label": {"type": "string"}, "probability": probability}
        case "regression":
            output = {"value": number}
        case "opaque":
            output = {"value": {"description": "Whatever the model returned for the row."}}
    properties: Json = {"output": {"type": "object", "properties": output, "required": list(output)}}
    if config.problem == "binary":
        properties["decision"] = {"type": "string", "enum": [config.decision.positive, config.decision.negative]}
        properties["threshold"] = probability
    if config.serving.explain == "top":
        properties["reasons"] = {"type": "array", "items": {"type": "string"}}
    return {"type": "object", "properties": properties, "required": ["output"]}


def example(config: Config, recorded: Mapping[str, object] | None = None) -> Json:
    """A valid predict body. `recorded`: features of the artifact's own example; what it lacks is made up."""
    known = recorded or {}
    return {"features": {n: known.get(n, example_of(f)) for n, f in config.features.items()}}


def example_of(feature: Feature) -> object:
    """The declared example, else one that fits type, range and categories."""
    if feature.example is not None:
        return _of_type(feature.type, feature.example)
    low, high = feature.range or (0.0, 1.0)
    match feature.type:
        case "number":
            return round((low + high) / 2, 6)
        case "integer":
            return int((low + high) // 2)
        case "boolean":
            return False
        case "category":
            return feature.categories[0] if feature.categories else "a"
        case "text":
            return "text"


def problem_words(config: Config) -> dict[str, str]:
    """The words a product service reads in `decision`; empty where there is no decision."""
    if config.problem != "binary":
        return {}
    return {"positive": config.decision.positive, "negative": config.decision.negative}


def _of_type(kind: FeatureKind, value: float | bool | str) -> object:
    if kind == "integer" and isinstance(value, float) and value.is_integer():
        return int(value)
    return value


def _plain(number: float) -> str:
    return str(int(number)) if float(number).is_integer() else str(number)
