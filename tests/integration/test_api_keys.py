"""API keys: made, used, replaced, revoked."""

from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import text, update

from control_plane.adapters.store.tables import KeyRow
from tests.support.api import Api, add_model

pytestmark = pytest.mark.integration
WHY = {"reason": "a test"}


async def test_a_key_works_until_it_is_revoked_and_each_step_is_audited(api: Api) -> None:
    admin = await api.as_("admin")
    made = (await admin.post("/keys", json={"person": "eve", "role": "viewer", **WHY})).json()
    assert made["secret"].startswith(made["prefix"])
    assert len(made["secret"]) >= 43 + len("mlcp_")  # 256 bits
    eve = api.client(made["secret"])
    assert (await eve.get("/models")).status_code == 200
    fresh = (await admin.post(f"/keys/{made['id']}/rotate", json=WHY)).json()
    assert (await eve.get("/models")).status_code == 401
    eve = api.client(fresh["secret"])
    assert (await eve.get("/models")).status_code == 200
    assert (await admin.post(f"/keys/{made['id']}/rotate", json=WHY)).status_code == 409
    revoked = await admin.post(f"/keys/{fresh['id']}/revoke", json=WHY)
    assert (revoked.status_code, revoked.json()["revoked_at"] is not None) == (200, True)
    assert (await admin.post(f"/keys/{fresh['id']}/revoke", json=WHY)).status_code == 409
    assert (await eve.get("/models")).status_code == 401
    actions = [row["action"] for row in (await admin.get("/audit")).json()["items"]]
    assert actions[:3] == ["key.revoke", "key.rotate", "key.create"]


async def test_an_expired_key_is_refused(api: Api) -> None:
    secret = await api.key("viewer", expires_in_s=60)
    viewer = api.client(secret)
    assert (await viewer.get("/models")).status_code == 200
    async with api.maker.begin() as session:
        await session.execute(update(KeyRow).values(expires_at=datetime.now(UTC) - timedelta(seconds=1)))
    assert (await viewer.get("/models")).status_code == 401


async def test_a_disabled_person_has_no_working_key(api: Api) -> None:
    viewer = await api.as_("viewer")
    async with api.maker.begin() as session:
        await session.execute(text("UPDATE principals SET disabled_at = now()"))
    assert (await viewer.get("/models")).status_code == 401


async def test_one_person_in_one_role_is_one_principal(api: Api) -> None:
    admin = await api.as_("admin")
    for models in (["*"], ["*"], ["fraud"]):
        await admin.post("/keys", json={"person": "eve", "role": "viewer", "models": models, **WHY})
    people = [p["models"] for p in (await admin.get("/principals")).json()["items"] if p["person"] == "eve"]
    assert sorted(people) == [["*"], ["fraud"]]


async def test_lists_are_walked_page_by_page_without_gap_or_double(api: Api) -> None:
    admin = await api.as_("admin")
    for number in range(5):
        await admin.post("/keys", json={"person": f"p{number}", "role": "viewer", **WHY})
        await add_model(api.maker, f"model-{number}", versions=3)
    for path, key in (("/keys", "id"), ("/models", "name"), ("/audit", "seq"), ("/models/model-0/versions", "version")):
        whole = [item[key] for item in (await admin.get(path)).json()["items"]]
        walked: list[str] = []
        cursor: str | None = None
        while cursor is not None or not walked:
            page = (await admin.get(path, params={"limit": 2} | ({"cursor": cursor} if cursor else {}))).json()
            walked, cursor = walked + [item[key] for item in page["items"]], page["next"]
        assert walked == whole
        assert len(whole) >= 3
