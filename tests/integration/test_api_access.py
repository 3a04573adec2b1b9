"""Who may call what: every route of the API with every role, from a table that names every route."""

from uuid import UUID

import httpx
import pytest
from fastapi.routing import APIRoute
from pydantic import SecretStr
from sqlalchemy import text

from control_plane.api.app import create_app
from control_plane.api.pages import create_pages
from control_plane.domain.governance import Role
from control_plane.settings import ApiSettings
from tests.support.api import Api, add_model

pytestmark = pytest.mark.integration
READ = "viewer operator approver admin auditor"
RUN = "operator approver admin"
ANY = "viewer operator approver admin auditor predictor nobody"  # no key asked for
TOKEN = ""  # the routers' own token, no role's key
TABLE = {
    "GET /health": ANY,
    "GET /models": READ,
    "GET /models/{model}": READ,
    "GET /models/{model}/versions": READ,
    "GET /models/{model}/versions/{version}": READ,
    "GET /models/{model}/timeline": READ,
    "GET /models/{model}/explain": READ,
    "GET /models/{model}/performance": READ,
    "GET /models/{model}/drift": READ,
    "GET /models/{model}/traffic": READ,
    "PUT /models/{model}/traffic": RUN,
    "POST /models/{model}/plan": READ,
    "POST /models/{model}/promote/{stage}": RUN,
    "POST /models/{model}/rollback": RUN,
    "POST /models/{model}/retrain": RUN,
    "POST /models/{model}/replay": RUN,
    "GET /models/{model}/replays": READ,
    "GET /models/{model}/replays/{replay_id}": READ,
    "GET /ab-tests": READ,
    "GET /ab-tests/{rollout_id}": READ,
    "GET /rollouts": READ,
    "GET /rollouts/{rollout_id}": READ,
    "POST /rollouts/{rollout_id}/{verb}": RUN,
    "GET /experiments": READ,
    "GET /approvals": READ,
    "GET /approvals/{approval_id}": READ,
    "POST /approvals/{approval_id}/approve": "approver admin",
    "POST /approvals/{approval_id}/reject": "approver admin",
    "POST /approvals/{approval_id}/withdraw": RUN,
    "GET /jobs": READ,
    "GET /jobs/{job_id}": READ,
    "GET /jobs/{job_id}/logs": READ,
    "POST /jobs/{job_id}/cancel": RUN,
    "POST /erasures": "admin",
    "GET /keys": "admin auditor",
    "POST /keys": "admin",
    "POST /keys/{key_id}/revoke": "admin",
    "POST /keys/{key_id}/rotate": "admin",
    "GET /principals": "admin auditor",
    "GET /audit": "approver admin auditor",
    "GET /audit/verify": "approver admin auditor",
    "GET /audit/export": "approver admin auditor",
    "GET /reports": READ,
    "POST /reports": "operator approver admin auditor",
    "GET /reports/schema": READ,
    "GET /reports/{report_id}": READ,
    "GET /reports/{report_id}.json": READ,
    "GET /reports/{report_id}.pdf": READ,
    "GET /notifications": READ,
    "POST /notifications/try": RUN,
    "POST /outcomes": "operator approver admin predictor",
    "GET /predictions/{prediction_id}": "operator approver admin auditor",
    "GET /policies": READ,
    "POST /policies": "admin",
    "POST /policies/plan": READ,
    "POST /policies/halt": RUN,
    "POST /policies/resume": "approver admin",
    "POST /policies/try": READ,
    "GET /policies/decisions": READ,
    "GET /policies/{name}": READ,
    "POST /webhooks/mlflow": RUN,
    "POST /webhooks/alertmanager": RUN,
    "POST /webhooks/alerts": RUN,
    "GET /snapshot": TOKEN,
    "POST /routers/{router_id}": TOKEN,
}
PAGES = {
    "GET /pages/sign-in": ANY,
    "POST /pages/sign-in": ANY,
    "GET /pages/style.css": ANY,
    "POST /pages/sign-out": READ,
    "GET /pages/approvals": READ,
    "GET /pages/approvals/{approval_id}": READ,
    "POST /pages/approvals/{approval_id}/{verb}": "approver admin",
}
_IDS = ("rollout_id", "job_id", "key_id", "prediction_id", "approval_id", "report_id", "replay_id")
IDS = dict.fromkeys(_IDS, str(UUID(int=7)))
FILLED = IDS | {
    "model": "fraud",
    "version": "1",
    "stage": "production",
    "verb": "pause",
    "router_id": "r",
    "name": "current",
}


def routes() -> set[str]:
    """Every route of the API as "METHOD path", asked of the application itself."""
    app = create_app(ApiSettings(postgres_dsn=SecretStr("postgresql+asyncpg://nobody@127.0.0.1:1/none")))
    found: set[str] = set()
    for path, methods in app.openapi()["paths"].items():
        found |= {f"{method.upper()} {path}" for method in methods}
    return found


def test_the_table_names_every_route_of_the_openapi_document() -> None:
    documented = {line.replace(" ", " /api/v1", 1) for line in TABLE if TABLE[line] != TOKEN}
    assert routes() == documented


def test_the_table_names_every_page() -> None:
    routes = [route for route in create_pages().routes if isinstance(route, APIRoute)]
    assert {f"{method} /pages{route.path}" for route in routes for method in route.methods} == PAGES.keys()


@pytest.mark.parametrize("role", Role)
async def test_a_page_is_for_whoever_the_table_says(api: Api, role: Role) -> None:
    signed_in = httpx.AsyncClient(base_url=api.url)
    nobody = httpx.AsyncClient(base_url=api.url)
    async with signed_in, nobody:
        begun = await signed_in.post("/pages/sign-in", data={"key": await api.key(role)})
        assert (begun.status_code == 303) == (role in READ.split())
        for line, allowed in PAGES.items():
            method, path = line.split()
            filled = path.format_map({**FILLED, "verb": "approve"})
            stranger = await nobody.request(method, filled)
            if allowed != ANY:
                assert (stranger.status_code, stranger.headers["location"]) == (303, "/pages/sign-in"), line
            if method == "GET":
                seen = await signed_in.get(filled)
                assert (seen.status_code in {200, 404}) == (allowed == ANY or role in allowed.split()), line
            elif allowed != ANY:  # without what only its own page knows
                forged = await signed_in.request(method, filled, data={"reason": "x"})
                assert forged.status_code == (403 if role in READ.split() else 303), line


@pytest.mark.parametrize("role", [*Role, "nobody"])
async def test_a_role_may_do_exactly_what_the_table_says(api: Api, role: str) -> None:
    await add_model(api.maker)
    client = api.client() if role == "nobody" else await api.as_(role)
    wrong: list[str] = []
    for line, allowed in TABLE.items():
        method, path = line.split()
        filled = path.format_map(FILLED)
        answer = await client.request(method, filled, json={} if method != "GET" else None)
        expected = role in allowed.split()
        if expected != (answer.status_code not in {401, 403}) or answer.status_code >= 500:
            wrong.append(f"{line}: {answer.status_code}")
        if role == "nobody" and allowed != ANY:
            assert answer.status_code == 401
            assert answer.headers["www-authenticate"] == "Bearer"
    assert not wrong


@pytest.mark.parametrize("end", ["expired", "revoked"])
async def test_a_key_that_has_ended_opens_nothing(api: Api, end: str) -> None:
    await add_model(api.maker)
    client = await api.as_("admin")
    assert (await client.get("/models")).status_code == 200
    ended = "expires_at = now() - interval '1 second'" if end == "expired" else "revoked_at = now()"
    async with api.maker.begin() as session:
        await session.execute(text(f"UPDATE api_keys SET {ended}"))
    wrong: list[str] = []
    for line, allowed in TABLE.items():
        method, path = line.split()
        answer = await client.request(method, path.format_map(FILLED), json={} if method != "GET" else None)
        if (answer.status_code == 401) != (allowed != ANY):
            wrong.append(f"{line}: {answer.status_code}")
    assert not wrong


async def test_a_key_reaches_only_the_models_it_covers(api: Api) -> None:
    await add_model(api.maker, "fraud")
    await add_model(api.maker, "churn")
    operator = await api.as_("operator", "fraud*")
    assert [m["name"] for m in (await operator.get("/models")).json()["items"]] == ["fraud"]
    assert (await operator.get("/models/churn")).status_code == 403
    why = {"reason": "x"}
    assert (await operator.post("/models/churn/promote/production", json=why)).status_code == 403
    started = await (await api.as_("operator")).post("/models/churn/promote/production", json=why)
    assert (await operator.get(f"/rollouts/{started.json()['id']}")).status_code == 403
    assert (await operator.post(f"/rollouts/{started.json()['id']}/abort", json=why)).status_code == 403
    assert (await operator.get("/rollouts")).json()["items"] == []
    refused = await operator.post("/outcomes", json=[{"model": "churn", "unit_id": "u", "value": 1}])
    assert (refused.status_code, refused.json()["type"].rsplit("/")[-1]) == (403, "forbidden")


@pytest.mark.parametrize("header", ["Bearer wrong", "Basic YTpi", "Bearer", "mlcp_x"])
async def test_a_wrong_key_is_401_and_says_nothing_of_why(api: Api, header: str) -> None:
    answer = await api.client().get("/models", headers={"Authorization": header})
    assert (answer.status_code, answer.json()["type"].rsplit("/")[-1]) == (401, "unauthenticated")


async def test_the_routers_token_opens_the_snapshot_and_nothing_else(api: Api) -> None:
    router = api.client("router-token")
    assert (await router.get("/snapshot")).status_code == 304
    assert (await router.get("/models")).status_code == 401
    report = {"epoch": 1, "revision": 1, "pins": {}, "rejected": None, "at": 1.5}
    assert (await router.post("/routers/r1", json=report)).status_code == 204
    assert (await router.post("/routers/r1", json={"epoch": -1})).status_code == 422


async def test_paths_that_are_no_route_are_problems_too(api: Api) -> None:
    async with httpx.AsyncClient(base_url=api.url) as root:
        answer = await root.get("/admin.php")
    assert (answer.status_code, answer.headers["content-type"]) == (404, "application/problem+json")
