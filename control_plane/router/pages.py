"""What a person or a generator reads about one model: example, OpenAPI document, a page of documentation.

Made of what the version in Production says about itself (`Target.schema`), once per snapshot, on first request.
"""

from collections.abc import Mapping
from html import escape
from typing import Any, cast

import msgspec

from control_plane.contracts.snapshot import ModelRoute, Target

Json = dict[str, Any]  # a JSON document of our own making
_PROBLEM = "application/problem+json"
_STREAMS = (
    "application/x-ndjson",
    "text/csv",
    "application/vnd.apache.arrow.stream",
    "application/vnd.apache.parquet",
)
_STYLE = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#1b1b1b}"
    "pre{background:#f4f4f4;padding:1rem;overflow:auto}table{border-collapse:collapse;width:100%}"
    "td,th{text-align:left;border-bottom:1px solid #ddd;padding:.3rem .6rem;vertical-align:top}"
    "@media(prefers-color-scheme:dark){body{background:#161616;color:#eee}pre{background:#242424}}"
)


def described(target: Target | None) -> Json:
    """What the version says about itself; empty where it says nothing."""
    if target is None:
        return {}
    found: object = msgspec.json.decode(target.schema)
    return cast(Json, found) if isinstance(found, dict) else {}


def example(target: Target | None) -> bytes | None:
    """A valid predict body."""
    found = described(target).get("example")
    return msgspec.json.encode(found) if found is not None else None


def openapi(name: str, route: ModelRoute, target: Target | None) -> bytes:
    """OpenAPI 3.1 of the data plane's paths of one model."""
    about = described(target)
    predict = about.get("request_schema") or {"type": "object", "required": ["features"]}
    answer = {
        "type": "object",
        "required": ["prediction_id", "model", "model_version", "variant", "output"],
        "properties": {
            "prediction_id": {"type": "string", "format": "uuid"},
            "model": {"type": "string"},
            "model_version": {"type": "string"},
            "variant": {"type": "string"},
            "request_id": {"type": "string"},
            "output": {"description": "The model's output."},
            "decision": {"type": "string"},
            "threshold": {"type": "number"},
            "reasons": {"type": "array"},
            "logged": {"const": False, "description": "Present when the disk was full: there is no record."},
        },
    }
    outcome = {
        "type": "object",
        "required": ["value"],
        "properties": {
            "prediction_id": {"type": "string", "format": "uuid"},
            "unit_id": {"type": "string"},
            "name": {"type": "string", "default": "label"},
            "value": {"type": ["number", "boolean", "string"]},
            "currency": {"type": "string"},
            "observed_at": {"type": "string", "format": "date-time"},
            "outcome_id": {"type": "string", "format": "uuid", "description": "Makes sending twice harmless."},
        },
    }
    accepted = {"type": "object", "properties": {"accepted": {"type": "integer"}}}
    base = f"/ml/{name}"
    document: Json = {
        "openapi": "3.1.0",
        "info": {"title": f"{name} ({route.problem})", "version": target.version if target is not None else "none"},
        "paths": {
            f"{base}/predict": _post("Predict", predict, "200", answer),
            f"{base}/explain": _post("Explain the answer to the same body", predict, "200", {"type": "object"}),
            f"{base}/batch_predict": _batch(predict),
            f"{base}/outcomes": _post("Report what really happened", outcome, "202", accepted),
        },
        "components": {"securitySchemes": {"key": {"type": "http", "scheme": "bearer"}}},
        "security": [{"key": []}],
    }
    return msgspec.json.encode(document)


def docs(name: str, route: ModelRoute, target: Target | None) -> bytes:
    """One HTML page that needs nothing from anywhere else."""
    about = described(target)
    body = msgspec.json.format(example(target) or b"{}", indent=2).decode()
    properties: Mapping[str, Json] = _inner(about, "request_schema", "properties", "features", "properties")
    rows = "".join(
        f"<tr><td><code>{escape(feature)}</code></td><td>{escape(_kind(schema))}</td>"
        f"<td>{escape(str(schema.get('description', '')))}</td></tr>"
        for feature, schema in properties.items()
    )
    version = target.version if target is not None else "none"
    curl = (
        f"curl -H 'Authorization: Bearer KEY' -H 'Content-Type: application/json' -d @body.json URL/ml/{name}/predict"
    )
    page = (
        f"<!doctype html><html lang=en><meta charset=utf-8><title>{escape(name)}</title><style>{_STYLE}</style>"
        f"<h1>{escape(name)}</h1><p>Problem: {escape(route.problem)}. Version in use: {escape(version)}. "
        f"<a href='openapi.json'>OpenAPI</a>, <a href='example'>example</a>, <a href='health'>health</a>.</p>"
        f"<h2>Predict</h2><pre>{escape(curl)}</pre><p>body.json:</p><pre>{escape(body)}</pre>"
        f"<h2>Features</h2><table><tr><th>Name<th>Type<th>Meaning</tr>{rows}</table></html>"
    )
    return page.encode()


def _batch(predict: Json) -> Json:
    """Rows in and answers out, in any of the formats both ways."""
    row = _inner(predict, "properties", "features") or {"type": "object"}
    rows: Json = {"type": "object", "required": ["rows"], "properties": {"rows": {"type": "array", "items": row}}}
    made = _post("Predict many rows", rows, "200", {"type": "object"})
    streams: Json = {kind: {"schema": {"type": "string", "format": "binary"}} for kind in _STREAMS}
    made["post"]["requestBody"]["content"] |= streams
    made["post"]["responses"]["200"]["content"] |= streams
    return made


def _inner(document: Json, *path: str) -> Json:
    for member in path:
        document = document.get(member) or {}
    return document


def _kind(schema: Json) -> str:
    kind = schema.get("type", "")
    return " or ".join(str(part) for part in cast("list[object]", kind)) if isinstance(kind, list) else str(kind)


def _post(summary: str, body: Json, status: str, answer: Json) -> Json:
    problem: Json = {"description": "A problem document (RFC 9457)", "content": {_PROBLEM: {}}}
    answers = {status: {"description": "Done", "content": {"application/json": {"schema": answer}}}}
    refused = dict.fromkeys(("401", "403", "413", "422", "503", "504"), problem)
    return {
        "post": {
            "summary": summary,
            "requestBody": {"required": True, "content": {"application/json": {"schema": body}}},
            "responses": answers | refused,
        }
    }
