"""OpenAPI document of one model server, from the same schemas the runtime answers with at /schema."""

from typing import Any

from model_servers.runtime import schema
from model_servers.runtime.spec import Config

Json = dict[str, Any]


def document(config: Config) -> Json:
    """OpenAPI 3.1."""
    predict = _without_dialect(schema.request(config))
    answer = schema.answer(config)
    features = predict["properties"]["features"]
    version: Json = {"model": {"type": "string"}, "version": {"type": "string"}}
    rows: Json = {"type": "object", "properties": {"rows": {"type": "array", "items": features}}, "required": ["rows"]}
    predictions: Json = {
        "type": "object",
        "properties": {**version, "predictions": {"type": "array", "items": _ref("Answer")}},
    }
    return {
        "openapi": "3.1.0",
        "info": {
            "title": f"{config.name} model server",
            "version": "1",
            "description": " ".join(config.purpose.split()) or f"Answers of the model {config.name}.",
            "x-generated": f"from model.yaml by `mlcp generate {config.name}`: do not edit",
            **({"contact": {"email": config.owner}} if "@" in config.owner else {}),
        },
        "paths": {
            "/predict": {"post": _post("predict", "Score one request.", _ref("PredictRequest"), _ref("Answer"))},
            "/explain": {
                "post": _post(
                    "explain", "Score one request and say exactly why.", _ref("PredictRequest"), _ref("Explained")
                )
            },
            "/batch_predict": {"post": _post("batch_predict", "Score many rows.", rows, predictions)},
            "/live": {"get": _get("live", "The process runs.", {"type": "object"})},
            "/ready": {
                "get": _get(
                    "ready",
                    "The model is loaded, verified and warm.",
                    {"type": "object", "properties": {**version, "digest": {"type": "string"}}},
                )
            },
            "/schema": {"get": _get("schema", "Features, an example and JSON Schemas.", {"type": "object"})},
            "/metrics": {
                "get": {
                    "operationId": "metrics",
                    "summary": "Prometheus metrics of this version.",
                    "responses": {"200": {"description": "Metrics", "content": {"text/plain": {}}}},
                }
            },
        },
        "components": {
            "schemas": {
                "PredictRequest": predict,
                "Answer": answer,
                "Explained": _explained(answer),
                "Problem": _PROBLEM,
            }
        },
    }


_PROBLEM: Json = {
    "type": "object",
    "description": "RFC 9457; `reasons` names every field that is wrong.",
    "properties": {
        "type": {"type": "string", "format": "uri"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "reasons": {"type": "array", "items": {"type": "string"}},
    },
    "required": ["type", "title", "status", "detail"],
}


def _explained(answer: Json) -> Json:
    explanation: Json = {
        "type": "object",
        "properties": {
            "space": {"type": "string", "enum": ["margin", "probability"]},
            "of": {"type": ["string", "null"], "description": "The class explained, where there are several."},
            "base": {"type": "number", "description": "The score before any feature; base + contributions = score."},
            "contributions": {"type": "object", "additionalProperties": {"type": "number"}},
            "reasons": {"type": "array", "items": {"type": "string"}},
        },
    }
    return {**answer, "properties": {**answer["properties"], "explanation": explanation}}


def _post(name: str, summary: str, body: Json, answer: Json) -> Json:
    return {
        "operationId": name,
        "summary": summary,
        "requestBody": {"required": True, "content": {"application/json": {"schema": body}}},
        "responses": {"200": _response("The answer", answer), **_problems()},
    }


def _get(name: str, summary: str, answer: Json) -> Json:
    return {"operationId": name, "summary": summary, "responses": {"200": _response("The answer", answer)}}


def _response(description: str, answer: Json) -> Json:
    return {"description": description, "content": {"application/json": {"schema": answer}}}


def _problems() -> Json:
    told = {
        "400": "The body is not JSON",
        "413": "The body is larger than allowed",
        "422": "The features do not fit the model; every reason is named",
        "500": "The model failed on valid input",
        "503": "Too many requests at once, or not ready",
    }
    content: Json = {"application/problem+json": {"schema": _ref("Problem")}}
    return {status: {"description": text, "content": content} for status, text in told.items()}


def _ref(name: str) -> Json:
    return {"$ref": f"#/components/schemas/{name}"}


def _without_dialect(document: Json) -> Json:
    return {key: value for key, value in document.items() if key != "$schema"}
