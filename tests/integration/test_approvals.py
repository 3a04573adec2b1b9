"""Approvals on the real API: what waits, who may say yes, and that a yes happens once."""

import asyncio
import re
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from pydantic import SecretStr
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from control_plane.adapters.store import approvals as store
from control_plane.adapters.store import audit
from control_plane.domain.audit import Actor, first_bad
from control_plane.errors import Conflict
from control_plane.sdk import AsyncControlPlane
from control_plane.services import approvals, promotion, proposals
from control_plane.services.cutover import Cause
from control_plane.settings import ApiSettings
from control_plane.worker import govern
from tests.integration.test_api_releases import reconcile
from tests.integration.test_sdk_api import mlcp
from tests.support.api import Api, add_model, add_version, everything, serving

pytestmark = pytest.mark.integration
WHY = {"reason": "a test"}


@pytest.fixture
async def prod(dsn: str, maker: async_sessionmaker[AsyncSession], home: Path) -> AsyncIterator[Api]:
    """The API under the policy prod, with version 1 of fraud in Production and version 2 ready to be promoted."""
    await add_model(maker)
    settings = ApiSettings(postgres_dsn=SecretStr(dsn), home=home)
    async with serving(settings) as url:
        setup = Api(url, maker)
        first = await (await setup.as_("operator")).post("/models/fraud/promote/production", json={"version": "1"})
        assert first.status_code == 202
        await reconcile(maker)
        await setup.close()
    async with serving(settings.model_copy(update={"policy": "prod"})) as url:
        api = Api(url, maker)
        yield api
        await api.close()


async def person(api: Api, name: str, role: str = "approver", **more: Any) -> httpx.AsyncClient:
    return api.client(await api.key(role, person=name, **more))


async def asked(api: Api, who: httpx.AsyncClient | None = None, **spec: Any) -> dict[str, Any]:
    """The approval a promotion of version 2 has to wait for."""
    who = who or await person(api, "Ann", "operator")
    answer = await who.post("/models/fraud/promote/production", json={"version": "2", "bake_s": 60, **WHY, **spec})
    assert (answer.status_code, answer.json()["state"]) == (202, "pending"), answer.text
    return dict(answer.json())


async def say(who: httpx.AsyncClient, approval: dict[str, Any], verb: str = "approve") -> httpx.Response:
    headers = {"If-Match": approval["etag"]}
    return await who.post(f"/approvals/{approval['id']}/{verb}", json={"reason": f"{verb} it"}, headers=headers)


async def count(api: Api, table: str) -> int:
    async with api.maker() as session:
        return int(await session.scalar(text(f"SELECT count(*) FROM {table}")) or 0)


async def test_a_promotion_waits_for_another_person_and_is_then_carried_out_once(prod: Api) -> None:
    ann, ben = await person(prod, "Ann", "operator"), await person(prod, "Ben")
    approval = await asked(prod, ann)
    assert approval["will"][0] == "Version 2 of fraud goes live instead of version 1, by the strategy blue_green."
    assert approval["content"]["judged"]["value"] == 0.72
    assert await count(prod, "rollouts") == 1
    assert (await asked(prod, ann))["id"] == approval["id"]  # asked for again: the same one
    assert [a["id"] for a in (await ben.get("/approvals?state=pending")).json()["items"]] == [approval["id"]]
    shown = await ben.get(f"/approvals/{approval['id']}")
    assert shown.headers["etag"] == shown.json()["etag"] == approval["etag"]
    done = await say(ben, approval)
    assert (done.status_code, done.json()["state"]) == (200, "approved")
    rollout = (await ben.get(f"/rollouts/{done.json()['result']['rollout']}")).json()
    assert (rollout["candidate_version"], rollout["created_by"], rollout["bake_s"]) == ("2", "Ann", 60)
    assert (await say(ben, approval)).status_code == 409  # replayed
    assert (await say(ben, done.json())).json()["type"].endswith("/conflict")
    assert await count(prod, "rollouts") == 2
    async with prod.maker() as session:
        links = await audit.links(session)
        assert first_bad(links) is None
        newest_first = await audit.page(session, before=None, limit=10)
        told = {record["action"]: record for record, _ in reversed(newest_first)}
    assert told["model.promote"]["actor"]["person"] == "Ann"
    assert told["model.promote"]["approver"]["person"] == "Ben"
    assert told["approval.approve"]["after"]["result"] == done.json()["result"]
    assert told["approval.request"]["evidence"] == approval["content"]


async def test_the_author_never_approves_whichever_key_is_used(prod: Api) -> None:
    approval = await asked(prod, await person(prod, "Ann", "operator"))
    before = await everything(prod.maker)
    for other in (await person(prod, "Ann"), await person(prod, " ann "), await person(prod, "Ann", "admin")):
        before = await everything(prod.maker)
        answer = await say(other, approval)
        assert (answer.status_code, answer.json()["type"].rsplit("/")[-1]) == (403, "forbidden"), answer.text
        assert await everything(prod.maker) == before
    for weak in (await person(prod, "Ben", "operator"), await person(prod, "Eve", "auditor")):
        assert (await say(weak, approval)).status_code == 403
    robot = await person(prod, "robot", automated=True)
    assert "program" in (await say(robot, approval)).json()["detail"]
    elsewhere = prod.client(await prod.key("approver", "churn", person="Cem"))
    assert (await say(elsewhere, approval)).status_code == 403


async def test_nobody_decides_on_what_he_has_not_seen(prod: Api) -> None:
    approval, ben = await asked(prod), await person(prod, "Ben")
    path = f"/approvals/{approval['id']}"
    assert (await ben.post(f"{path}/approve", json=WHY)).status_code == 428
    assert (await say(ben, {**approval, "etag": '"1-00"'})).json()["type"].endswith("stale-revision")
    assert (await ben.get(path)).json()["state"] == "pending"


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE model_versions SET digest = 'sha256:' || repeat('f', 64) WHERE version = '2'",
        "UPDATE model_versions SET evidence = jsonb_set(evidence, '{metric,value}', '0.99') WHERE version = '2'",
        """UPDATE model_versions SET config = config || '{"rollout": {"failure_limit": 3}}' WHERE version = '2'""",
        "UPDATE models SET production_version = NULL",
    ],
)
async def test_a_changed_proposal_is_refused_and_ends(prod: Api, change: str) -> None:
    approval, ben = await asked(prod), await person(prod, "Ben")
    async with prod.maker.begin() as session:
        await session.execute(text(change))
    refused = await say(ben, approval)
    assert (refused.status_code, refused.json()["type"].rsplit("/")[-1]) == (409, "stale-proposal")
    await govern.look(prod.maker, promotion.Policy(governance="prod"))
    assert (await ben.get(f"/approvals/{approval['id']}")).json()["state"] == "stale"
    assert (await asked(prod))["id"] != approval["id"]
    assert await count(prod, "rollouts") == 1


async def test_of_two_approvers_at_once_one_wins_and_the_other_is_told(prod: Api) -> None:
    approval = await asked(prod)
    everybody = [await person(prod, name) for name in ("Ben", "Cem", "Dan", "Eve")]
    answers = await asyncio.gather(*(say(who, approval) for who in everybody))
    assert sorted(answer.status_code for answer in answers) == [200, 409, 409, 409]
    assert await count(prod, "rollouts") == 2
    assert await count(prod, "approval_votes") == 1


class Crash(Exception):
    pass


@pytest.mark.parametrize("at", ["_shown_now", "vote", "carry_out", "save", "_tell", "after"])
async def test_a_crash_at_any_step_leaves_the_yes_and_what_follows_from_it_together(
    prod: Api, monkeypatch: pytest.MonkeyPatch, at: str
) -> None:
    """The last step before the commit is `after`: nothing of it is there. Given again, it happens once."""
    approval = await asked(prod)
    before = await everything(prod.maker)
    platform = promotion.Policy(governance="prod")
    cause, seen = Cause(Actor("Ben", "approver"), "test"), approval["etag"]

    async def attempt() -> None:
        async with prod.maker.begin() as session:
            await approvals.approve(
                session, store.UUID(approval["id"]), seen, "yes", platform=platform, cause=cause, now=datetime.now(UTC)
            )
            if at == "after" and armed:
                raise Crash

    owner: Any = {"vote": store, "save": store, "carry_out": proposals}.get(at, approvals)
    armed = True
    if at != "after":
        real = getattr(owner, at)

        async def dying(*args: Any, **named: Any) -> Any:
            await real(*args, **named)
            raise Crash

        monkeypatch.setattr(owner, at, dying)
    with pytest.raises(Crash):
        await attempt()
    assert await everything(prod.maker) == before
    monkeypatch.undo()
    armed = False
    await attempt()
    with pytest.raises(Conflict):
        await attempt()
    assert await count(prod, "rollouts") == 2


async def test_rejected_withdrawn_and_expired_are_over_and_audited(prod: Api) -> None:
    ann, ben = await person(prod, "Ann", "operator"), await person(prod, "Ben")
    first = await asked(prod, ann)
    assert (await say(await person(prod, "Cem", "operator"), first, "withdraw")).status_code == 403
    assert (await say(ann, first, "withdraw")).json()["why"] == "Withdrawn by Ann: withdraw it"
    second = await asked(prod, ann)
    assert (await say(ben, second, "reject")).json()["state"] == "rejected"
    third = await asked(prod, ann)
    async with prod.maker.begin() as session:
        await session.execute(text("UPDATE approvals SET expires_at = now() WHERE state = 'pending'"))
    assert (await say(ben, third)).status_code == 409
    await govern.look(prod.maker, promotion.Policy(governance="prod"))
    assert (await ben.get(f"/approvals/{third['id']}")).json()["state"] == "expired"
    async with prod.maker() as session:
        ended = await audit.recent_of(session, ["approval.withdraw", "approval.reject", "approval.expire"], 5)
    assert {r["action"]: r["evidence"]["escalated"] for r in ended} == {
        "approval.withdraw": False,
        "approval.reject": True,
        "approval.expire": True,
    }
    assert await count(prod, "rollouts") == 1


async def test_a_person_rolls_back_at_once_and_a_program_asks(prod: Api) -> None:
    approval, ben = await asked(prod), await person(prod, "Ben")
    await say(ben, approval)
    await reconcile(prod.maker)
    await reconcile(prod.maker, later=timedelta(hours=1))  # the bake is over: version 2 is settled
    robot = await person(prod, "robot", "operator", automated=True)
    wish = await robot.post("/models/fraud/rollback", json=WHY)
    assert (wish.status_code, wish.json()["operation"], wish.json()["automated"]) == (202, "roll_back_settled", True)
    assert wish.json()["will"] == ["Version 1 of fraud answers every customer again instead of version 2."]
    back = await (await person(prod, "Ann", "operator")).post("/models/fraud/rollback", json=WHY)
    assert (back.status_code, back.json()["kind"]) == (202, "rollback")
    late = await say(ben, wish.json())  # what it showed is no longer so
    assert late.status_code == 409


async def test_everything_that_changes_who_answers_waits_and_what_calms_things_down_does_not(prod: Api) -> None:
    ann = await person(prod, "Ann", "operator")
    await add_version(prod.maker, "fraud", "3")
    retrain = await ann.post("/models/fraud/retrain", json=WHY)
    staging = await ann.post("/models/fraud/promote/staging", json={"version": "3", **WHY})
    etag = (await ann.get("/models/fraud/traffic")).headers["etag"]
    arms = [{"version": "1", "percent": 90}, {"version": "2", "percent": 10}]
    split = await ann.put("/models/fraud/traffic", json={"arms": arms, **WHY}, headers={"If-Match": etag})
    back = await ann.put("/models/fraud/traffic", json={"arms": [], **WHY}, headers={"If-Match": etag})
    assert [a.status_code for a in (retrain, staging, split, back)] == [202, 202, 202, 200]
    assert {a.json()["operation"] for a in (retrain, staging, split)} == {"retrain", "deploy", "set_traffic"}
    ben = await person(prod, "Ben")
    assert (await say(ben, split.json())).status_code == 409  # the traffic has moved meanwhile
    trained = await say(ben, retrain.json())
    assert (await ben.get(f"/jobs/{trained.json()['result']['job']}")).json()["created_by"] == "Ann"
    assert (await say(ben, staging.json())).json()["result"] == {"version": "3", "stage": "Staging"}
    promoted = await say(
        ben, await asked(prod, ann, strategy="canary", steps=[{"weight": 5, "hold_s": 9}], by_hand=True)
    )
    rollout = promoted.json()["result"]["rollout"]
    await reconcile(prod.maker)
    skip = await ann.post(f"/rollouts/{rollout}/promote", json=WHY)
    assert (skip.status_code, skip.json()["operation"]) == (202, "skip_steps")
    step = (await ann.post(f"/rollouts/{rollout}/skip", json=WHY)).json()
    assert "Step 1 is skipped: version 2 of fraud goes on to what comes next." in step["will"], step
    assert (await ann.post(f"/rollouts/{rollout}/pause", json=WHY)).json()["phase"] == "paused"
    assert (await say(ben, skip.json())).status_code == 409  # its rollout has moved meanwhile
    assert (await ann.post(f"/rollouts/{rollout}/abort", json=WHY)).json()["phase"] == "aborted"


async def test_what_cannot_be_done_now_is_put_before_nobody(prod: Api) -> None:
    await add_version(prod.maker, "fraud", "3", evidence={})
    ann = await person(prod, "Ann", "operator")
    refused = await ann.post("/models/fraud/promote/production", json={"version": "3", **WHY})
    assert (refused.status_code, refused.json()["type"].rsplit("/")[-1]) == (409, "gates-not-met")
    assert await count(prod, "approvals") == 0


async def test_the_sdk_waits_for_the_approval_and_the_command_line_gives_it(prod: Api) -> None:
    ann, key = await prod.key("operator", person="Ann"), await prod.key("approver", person="Ben")
    async with AsyncControlPlane(prod.url, ann) as cp:
        approval: Any = await cp.promote("fraud", "2", reason="better", bake_s=60)
        assert approval.state == "pending"
        waiting = asyncio.create_task(cp.wait_rollout(approval, timeout_s=0.5))
        with pytest.raises(Exception, match="1 more person has to agree"):
            await waiting
    assert "promote" in await mlcp(prod, key, "approvals", "list")
    shown = await mlcp(prod, key, "approvals", "show", str(approval.id))
    assert "Version 2 of fraud goes live instead of version 1" in " ".join(shown.split())
    given = await mlcp(prod, key, "approvals", "approve", str(approval.id), "--reason", "seen")
    assert "Ben: yes, seen" in given
    assert await count(prod, "rollouts") == 2


async def test_the_page_shows_what_will_happen_and_takes_a_decision_of_its_own_forms_alone(prod: Api) -> None:
    approval = await asked(prod, reason="<script>alert(1)</script> & more")
    key = await prod.key("approver", person="Ben")
    async with httpx.AsyncClient(base_url=prod.url) as browser:
        assert (await browser.get("/pages/approvals")).headers["location"] == "/pages/sign-in"
        assert (await browser.post("/pages/sign-in", data={"key": "mlcp_no"})).status_code == 401
        signed = await browser.post("/pages/sign-in", data={"key": key})
        cookie = signed.headers["set-cookie"]
        assert all(word in cookie for word in ("HttpOnly", "SameSite=strict", "Path=/pages"))
        assert key not in cookie
        path = f"/pages/approvals/{approval['id']}"
        page = await browser.get(path)
        assert "<script" not in page.text
        assert "&lt;script&gt;" in page.text
        assert "goes live instead of version 1" in page.text
        assert "<svg" in page.text
        assert "default-src 'none'" in page.headers["content-security-policy"]
        hidden = re.findall(r'name="(proof|etag)" value="([^"]*)"', page.text[page.text.index(f'"{path}/approve"') :])
        form = {name: value.replace("&#34;", '"') for name, value in hidden[:2]} | {"reason": "seen"}
        for forged in ({**form, "proof": "0" * 64}, {name: form[name] for name in ("etag", "reason")}):
            assert (await browser.post(f"{path}/approve", data=forged)).status_code == 403
        evil = {"Origin": "https://evil.example"}
        assert (await browser.post(f"{path}/approve", data=form, headers=evil)).status_code == 403
        assert (await browser.post(f"{path}/reject", data=form)).status_code == 403  # its proof is for approve
        assert await count(prod, "rollouts") == 1
        done = await browser.post(f"{path}/approve", data=form, headers={"Origin": prod.url})
        assert (done.status_code, done.headers["location"]) == (303, path)
        assert "Approved by Ben." in (await browser.get(path)).text
        assert (await browser.post(f"{path}/approve", data=form)).status_code == 409
        assert await count(prod, "rollouts") == 2


async def test_people_are_told_of_what_waits_and_louder_of_what_was_refused(prod: Api) -> None:
    waiting = await asked(prod)
    await asked(prod)  # the same again is the same approval, and told once
    assert (await say(await person(prod, "Ben"), waiting, "reject")).status_code == 200
    async with prod.maker() as session:
        found = await session.execute(text("SELECT event, severity, lines FROM notices ORDER BY id"))
        told = [(event, severity, " ".join(lines)) for event, severity, lines in found]
    assert [line[:2] for line in told] == [("approval.asked", "warning"), ("approval.rejected", "critical")]
    assert "Asked for by Ann" in told[0][2]
    assert "reject it" in told[1][2]
