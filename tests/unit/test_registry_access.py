"""What a request to MLflow is about, by a table of what its clients and its pages send."""

import pytest

from control_plane.domain.governance import MAY, Action, Grant, Role, Scope, refusal
from control_plane.domain.governance.registry_access import Kind, owned, wanted

API = "/api/2.0/mlflow/"
TABLE = {
    Kind.OPEN: ["GET /health", "GET /version"],
    Kind.READ: [
        "GET /",
        "GET /static-files/static/js/main.js",
        f"GET {API}experiments/get",
        f"POST {API}runs/search",
        "POST /ajax-api/2.0/mlflow/runs/search",
        "POST /api/3.0/mlflow/traces/search",
        f"GET {API}registered-models/alias",
        f"POST {API}registered-models/get-latest-versions",
        f"GET {API}model-versions/search",
        "GET /api/2.0/mlflow-artifacts/artifacts/1/abc/artifacts/model/MLmodel",
        "GET /get-artifact",
        "POST /graphql",
    ],
    Kind.LOG: [
        f"POST {API}experiments/create",
        f"POST {API}runs/create",
        f"POST {API}runs/log-batch",
        f"POST {API}logged-models",
        f"PATCH {API}logged-models/m-1",
        "PUT /api/2.0/mlflow-artifacts/artifacts/1/abc/artifacts/model/MLmodel",
        "POST /api/2.0/mlflow-artifacts/mpu/create/1/abc",
        "POST /api/2.0/preview/mlflow/runs/log-metric",
    ],
    Kind.REGISTER: [
        f"POST {API}registered-models/create",
        f"POST {API}model-versions/create",
        f"POST {API}registered-models/alias",
        f"POST {API}model-versions/set-tag",
    ],
    Kind.OURS: [
        f"DELETE {API}registered-models/delete",
        "DELETE /api/2.0/preview/mlflow/registered-models/delete",
        "DELETE /ajax-api/3.0/mlflow/model-versions/delete",
        f"POST {API}registered-models/rename",
        f"POST {API}model-versions/transition-stage",
        "DELETE /api/2.0/mlflow-artifacts/artifacts/1/abc",
    ],
    Kind.CLOSED: [
        f"GET {API}gateway/secrets/get",
        f"POST {API}webhooks",
        f"POST {API}workspaces",
        f"POST {API}made-up/call",
        "POST /signup",
        "GET /anything",
        "POST /v1/traces",
        f"DELETE {API}registered-models/delete/",
        f"DELETE {API}/registered-models/delete",
        f"DELETE {API}x/../registered-models/delete",
        f"DELETE {API}./registered-models/delete",
        "GET /static-files/../../etc/passwd",
        "GET /api/2.0/mlflow-artifacts/artifacts/..\\secret",
        "GET /a\nb",
    ],
}


@pytest.mark.parametrize("kind", Kind)
def test_each_request_is_about_what_the_table_says(kind: Kind) -> None:
    assert {line: wanted(*line.split(" ", 1)).kind for line in TABLE[kind]} == dict.fromkeys(TABLE[kind], kind)


def test_whatever_nobody_may_says_why() -> None:
    for kind in (Kind.OURS, Kind.CLOSED):
        assert all(wanted(*line.split(" ", 1)).why for line in TABLE[kind])


def test_the_names_of_stages_and_our_tags_are_the_control_planes() -> None:
    alias = f"{API}registered-models/alias"
    assert owned(alias, {"alias": "production"})
    assert owned(alias, {"alias": "Staging"})
    assert not owned(alias, {"alias": "champion"})
    assert owned(f"{API}model-versions/set-tag", {"key": "mlcp.digest"})
    assert owned(f"{API}registered-models/delete-tag", {"key": "mlcp.stage"})
    assert not owned(f"{API}model-versions/set-tag", {"key": "team"})


def test_a_data_scientists_key_logs_and_registers_and_releases_nothing() -> None:
    key = Grant(Role.OPERATOR, ("fraud*",), (Scope.TRACK,))
    assert refusal(key, Action.TRACK, "fraud") is None
    assert refusal(key, Action.READ, "fraud") is None
    for action in set(Action) - {Action.TRACK, Action.READ}:
        assert refusal(key, action, "fraud") is not None, action
    assert refusal(key, Action.TRACK, "churn") is not None
    assert {role for role in Role if Action.TRACK in MAY[role]} == {Role.OPERATOR, Role.APPROVER, Role.ADMIN}
