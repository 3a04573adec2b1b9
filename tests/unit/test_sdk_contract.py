"""Every call of the SDK is a route of the API with these parameters, and every route for people has its call."""

import inspect
import re
from collections.abc import Callable, Iterator
from typing import Any
from uuid import UUID

import pytest
from pydantic import SecretStr

from control_plane.api.app import create_app
from control_plane.contracts.outcomes import OutcomeSpec
from control_plane.sdk import admin, governed
from control_plane.sdk.transport import Call
from control_plane.settings import ApiSettings

ROLLOUT = "0190a8f0-0000-7000-8000-000000000001"
GIVEN: dict[str, Any] = {
    "name": "churn",
    "model": "churn",
    "version": "2",
    "stage": "staging",
    "reason": "r",
    "period": "24h",
    "person": "bob",
    "role": "viewer",
    "shares": {"1": 90.0, "2": 10.0},
    "revision": 3,
    "document": {"kind": "policy", "name": "p"},
    "steps": [(5, 60)],
    "reported": [OutcomeSpec(prediction_id=UUID(ROLLOUT), value=True)],
}
# For other programs, or the classic spelling of a route that has a call.
NOT_FOR_PEOPLE = {"/webhooks/alertmanager", "/webhooks/alerts", "/webhooks/mlflow"}
NOT_FOR_PEOPLE |= {"/snapshot", "/routers/{router_id}", "/experiments"}


@pytest.fixture(scope="module")
def openapi() -> dict[str, Any]:
    return create_app(ApiSettings(postgres_dsn=SecretStr("postgresql+asyncpg://nobody@/none"))).openapi()


def builders() -> Iterator[tuple[str, Callable[..., Call[Any]]]]:
    for module in (admin, governed):
        for name, build in inspect.getmembers(module, inspect.isfunction):
            if build.__module__ == module.__name__ and not name.startswith("_"):
                yield name, build


def calls() -> Iterator[tuple[str, Call[Any]]]:
    for name, build in builders():
        yield name, build(**_arguments(build))


def _arguments(build: Callable[..., Any]) -> dict[str, Any]:
    """Everything the call needs, and everything else it takes where we have a value for it."""
    parameters = inspect.signature(build).parameters
    return {name: GIVEN.get(name, ROLLOUT) for name, p in parameters.items() if p.default is p.empty or name in GIVEN}


def route_of(call: Call[Any], openapi: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    for path, methods in openapi["paths"].items():
        pattern = re.sub(r"\{[^}]*\}", "[^/]+", path)
        if re.fullmatch(pattern, f"/api/v1{call.path}") and call.method.lower() in methods:
            return path, methods[call.method.lower()]
    raise AssertionError(f"{call.method} {call.path} is no route of the API")


@pytest.mark.parametrize(("name", "call"), list(calls()), ids=lambda value: value if isinstance(value, str) else "")
def test_a_call_is_a_route_with_these_parameters(name: str, call: Call[Any], openapi: dict[str, Any]) -> None:
    path, route = route_of(call, openapi)
    known = {parameter["name"].lower() for parameter in route.get("parameters", [])}
    assert call.query.keys() <= known, name
    assert {header.lower() for header in call.headers} <= known, name
    if isinstance(call.body, dict):
        schema = route["requestBody"]["content"]["application/json"]["schema"]
        named = [part["$ref"] for part in schema.get("anyOf", [schema]) if "$ref" in part]
        [component] = [openapi["components"]["schemas"][ref.rsplit("/", 1)[-1]] for ref in named]
        assert call.body.keys() <= component["properties"].keys(), name
        assert set(component.get("required", [])) <= call.body.keys(), name
    assert path.startswith("/api/v1/")


def test_every_parameter_of_a_call_is_known_to_its_route(openapi: dict[str, Any]) -> None:
    for name, build in builders():
        if "cursor" in build.__annotations__:
            call = build(**_arguments(build), limit=7, cursor="c")
            _, route = route_of(call, openapi)
            assert {"limit", "cursor"} <= {parameter["name"] for parameter in route["parameters"]}, name


def test_every_route_for_people_has_a_call(openapi: dict[str, Any]) -> None:
    called = {(call.method, route_of(call, openapi)[0]) for _, call in calls()}
    offered = {
        (method.upper(), path)
        for path, methods in openapi["paths"].items()
        for method in methods
        if path.startswith("/api/v1/") and path.removeprefix("/api/v1") not in NOT_FOR_PEOPLE
    }
    assert offered - called == set()
