"""Promote, roll back, split: the whole life of a release on the real API; the reconciler's moves are played here."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from sqlalchemy import text, update
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from control_plane.adapters.store import audit, routers
from control_plane.adapters.store import rollouts as store
from control_plane.adapters.store.tables import DeploymentRow, ModelVersionRow
from control_plane.domain import rollouts
from control_plane.domain.audit import first_bad
from control_plane.domain.rollouts import Observation
from control_plane.services import cutover
from tests.support.api import CONFIG, EVIDENCE, SETUP, Api, add_model, add_version, everything

pytestmark = pytest.mark.integration
WHY = {"reason": "a test"}
WARM = timedelta(minutes=10)


async def deploy(maker: async_sessionmaker[AsyncSession], state: str = "ready") -> None:
    async with maker.begin() as session:
        await session.execute(update(DeploymentRow).where(DeploymentRow.state == "pending").values(state=state))


async def reconcile(maker: async_sessionmaker[AsyncSession], *, later: timedelta = timedelta(0)) -> None:
    """What the reconciler does with a ready candidate."""
    now = datetime.now(UTC) + later
    await deploy(maker)
    async with maker.begin() as session:
        for entry in await store.all_open(session):
            new = rollouts.advance(entry.rollout, Observation(True, entry.rollout.since), now=now)
            if new != entry.rollout:
                await cutover.move(session, entry, new, action="rollout.look", cause=SETUP, now=now, warm=WARM)


async def stages(maker: async_sessionmaker[AsyncSession]) -> dict[str, str]:
    async with maker.begin() as session:
        rows = await session.execute(text("SELECT version, stage FROM model_versions ORDER BY version"))
        return {row.version: row.stage for row in rows}


async def test_a_version_goes_live_is_replaced_and_comes_back(api: Api) -> None:
    await add_model(api.maker)
    operator = await api.as_("operator")
    first = await operator.post("/models/fraud/promote/production", json={"version": "1", **WHY})
    assert first.status_code == 202
    assert {k: first.json()[k] for k in ("phase", "strategy", "applied", "stable_version")} == {
        "phase": "pending",
        "strategy": "immediate",  # a first version has nobody to go back to
        "applied": False,
        "stable_version": None,
    }
    await reconcile(api.maker)
    second = await operator.post("/models/fraud/promote/production", json={"version": "2", "bake_s": 60, **WHY})
    assert (second.status_code, second.json()["stable_version"], second.json()["bake_s"]) == (202, "1", 60)
    await reconcile(api.maker)
    assert await stages(api.maker) == {"1": "Archived", "2": "Production"}
    model = (await operator.get("/models/fraud")).json()
    assert (model["production_version"], model["previous_version"]) == ("2", "1")
    back = await operator.post("/models/fraud/rollback", json=WHY)
    assert (back.status_code, back.json()["phase"], back.json()["id"]) == (202, "aborted", second.json()["id"])
    assert await stages(api.maker) == {"1": "Production", "2": "Staging"}
    model = (await operator.get("/models/fraud")).json()
    assert (model["production_version"], model["previous_version"]) == ("1", None)
    again = await operator.post("/models/fraud/promote/production")  # no body: the newest eligible version
    assert (again.status_code, again.json()["candidate_version"]) == (202, "2")


async def test_a_rollback_after_the_bake_is_immediate_while_the_old_version_is_warm(api: Api) -> None:
    await add_model(api.maker)
    operator = await api.as_("operator")
    for version in ("1", "2"):
        await operator.post("/models/fraud/promote/production", json={"version": version, "bake_s": 60, **WHY})
        await reconcile(api.maker)
        await reconcile(api.maker, later=timedelta(minutes=2))
    back = await operator.post("/models/fraud/rollback", json=WHY)
    assert (back.status_code, back.json()["kind"], back.json()["phase"]) == (202, "rollback", "succeeded")
    assert await stages(api.maker) == {"1": "Production", "2": "Staging"}
    nothing = await operator.post("/models/fraud/rollback", json=WHY)
    assert (nothing.status_code, nothing.json()["type"].rsplit("/")[-1]) == (409, "conflict")


async def test_a_rollback_to_a_cold_version_deploys_it_first_and_is_asked_for_once(api: Api) -> None:
    await add_model(api.maker)
    operator = await api.as_("operator")
    for version in ("1", "2"):
        await operator.post("/models/fraud/promote/production", json={"version": version, "bake_s": 0, **WHY})
        await reconcile(api.maker)
    async with api.maker.begin() as session:
        gone = update(DeploymentRow).where(DeploymentRow.version == "1").values(state="stopped", desired="stopped")
        await session.execute(gone)
    back = await operator.post("/models/fraud/rollback", json=WHY)
    assert (back.status_code, back.json()["phase"]) == (202, "pending")
    assert await stages(api.maker) == {"1": "Archived", "2": "Production"}  # nothing moves before it is ready
    twice = await operator.post("/models/fraud/rollback", json=WHY)
    assert (twice.status_code, twice.json()["id"]) == (202, back.json()["id"])
    await reconcile(api.maker)
    assert await stages(api.maker) == {"1": "Production", "2": "Staging"}


async def test_ten_times_forth_and_back_leaves_one_production_version_and_a_whole_chain(api: Api) -> None:
    await add_model(api.maker)
    operator, auditor = await api.as_("operator"), await api.as_("auditor")
    await operator.post("/models/fraud/promote/production", json={"version": "1", **WHY})
    await reconcile(api.maker)
    for turn in range(10):
        forth = await operator.post("/models/fraud/promote/production", json={"version": "2", **WHY})
        assert forth.status_code == 202, forth.text
        await reconcile(api.maker)
        assert await stages(api.maker) == {"1": "Archived", "2": "Production"}
        if turn % 2:  # back after the bake, as well as during it
            await reconcile(api.maker, later=timedelta(hours=1))
        assert (await operator.post("/models/fraud/rollback", json=WHY)).status_code == 202
        assert await stages(api.maker) == {"1": "Production", "2": "Staging"}
    verified = (await auditor.get("/audit/verify")).json()
    assert (verified["ok"], verified["first_bad"]) == (True, None)


async def test_a_refusal_names_every_gate_and_changes_nothing(api: Api) -> None:
    await add_model(api.maker, versions=1)
    weak = {**EVIDENCE, "metric": {**EVIDENCE["metric"], "value": 0.41}, "data": {"validated": False}}
    await add_version(api.maker, "fraud", "2", evidence=weak, digest=None)
    operator = await api.as_("operator")
    before = await everything(api.maker)
    answer = await operator.post("/models/fraud/promote/production", json={"version": "2", **WHY})
    problem = answer.json()
    assert (answer.status_code, problem["type"].rsplit("/")[-1]) == (409, "gates-not-met")
    assert answer.headers["content-type"] == "application/problem+json"
    assert problem["reasons"] == [
        "digest: version 2 has no artifact digest to verify its servers against.",
        "metric: average_precision 0.4100 is below the minimum 0.5000.",
        "validated_data: the training data of version 2 was refused.",
    ]
    assert await everything(api.maker) == before
    shown = (await operator.get("/models/fraud/versions/2")).json()
    gates = {gate["stage"]: gate for gate in shown["gates"]}
    assert gates["Production"]["reasons"] == problem["reasons"]
    assert gates["Staging"]["reasons"] == problem["reasons"][:1]


async def test_the_newest_eligible_version_is_one_that_passes(api: Api) -> None:
    await add_model(api.maker)
    await add_version(api.maker, "fraud", "10", digest=None)
    operator = await api.as_("operator")
    chosen = await operator.post("/models/fraud/promote/production", json={})
    assert (chosen.status_code, chosen.json()["candidate_version"]) == (202, "2")


async def test_production_is_never_compared_across_different_hold_outs(api: Api) -> None:
    await add_model(api.maker, versions=1)
    other = {**EVIDENCE, "data": {"validated": True, "sha256": "bb"}}
    await add_version(api.maker, "fraud", "2", evidence=other)
    await add_version(api.maker, "fraud", "3", evidence={**other, "production": {"version": "1", "value": 0.78}})
    await add_version(api.maker, "fraud", "4", evidence={**other, "production": {"version": "1", "value": 0.70}})
    operator = await api.as_("operator")
    await operator.post("/models/fraud/promote/production", json={"version": "1", **WHY})
    await reconcile(api.maker)
    reasons: list[Any] = []
    for version in "234":
        answer = await operator.post("/models/fraud/promote/production", json={"version": version, **WHY})
        reasons += answer.json().get("reasons", [str(answer.status_code)])
    assert reasons == [
        "degradation: version 2 and Production version 1 were not compared on the same hold-out (INCONCLUSIVE); "
        "train it again.",
        "degradation: average_precision 0.7200 is worse than Production version 1 (0.7800) by more than 0.0500.",
        "202",
    ]


async def test_of_many_promotions_at_once_exactly_one_opens_a_rollout(api: Api) -> None:
    await add_model(api.maker)
    operator = await api.as_("operator")
    post = operator.post
    answers = await asyncio.gather(
        *(post("/models/fraud/promote/production", json={"version": v, **WHY}) for v in "12" * 5)
    )
    assert sorted(answer.status_code for answer in answers) == [202] + [409] * 9
    assert {a.json()["type"].rsplit("/")[-1] for a in answers if a.status_code == 409} == {"rollout-open"}
    async with api.maker.begin() as session:
        assert await session.scalar(text("SELECT count(*) FROM rollouts")) == 1


async def test_staging_moves_no_traffic_and_starts_servers(api: Api) -> None:
    await add_model(api.maker)
    await add_version(api.maker, "fraud", "3", evidence={})
    operator = await api.as_("operator")
    staged = await operator.post("/models/fraud/promote/staging", json={"version": "3", **WHY})
    assert (staged.status_code, staged.json()["to_stage"]) == (202, "Staging")
    shown = (await operator.get("/models/fraud/versions/3")).json()
    assert (shown["stage"], shown["deployment"]["desired"]) == ("Staging", "running")
    assert (await operator.get("/models/fraud")).json()["staging_version"] == "3"
    again = await operator.post("/models/fraud/promote/Staging", json={"version": "3", **WHY})
    assert (again.status_code, len(again.json()["reasons"])) == (409, 1)
    assert (await operator.post("/models/fraud/promote/nowhere", json=WHY)).status_code == 422


@pytest.mark.parametrize(
    "plan",
    [
        {"strategy": "canary"},  # nobody to share with
        {"strategy": "immediate", "bake_s": 5},
        {"strategy": "blue_green", "steps": [{"weight": 5, "hold_s": 1}]},
        {"strategy": "sideways"},
        {"steps": [{"weight": 5.005, "hold_s": -1}]},
    ],
)
async def test_a_plan_that_cannot_be_honoured_is_refused_not_bent(api: Api, plan: dict[str, Any]) -> None:
    await add_model(api.maker)
    operator = await api.as_("operator")
    before = await everything(api.maker)
    answer = await operator.post("/models/fraud/promote/production", json={"version": "1", **plan, **WHY})
    assert answer.status_code == 422, answer.text
    assert await everything(api.maker) == before


async def test_the_timeline_tells_who_was_production_when(api: Api) -> None:
    await add_model(api.maker)
    operator, began = await api.as_("operator"), datetime.now(UTC)
    moments: list[datetime] = []
    for version in ("1", "2"):
        await operator.post("/models/fraud/promote/production", json={"version": version, **WHY})
        await reconcile(api.maker)
        moments.append(datetime.now(UTC))
    await operator.post("/models/fraud/rollback", json={"reason": "it was wrong"})
    held: list[str | None] = []
    for moment in (began, *moments, datetime.now(UTC)):
        answer = await operator.get("/models/fraud/timeline", params={"as_of": moment.isoformat()})
        held.append(answer.json()["production_version"])
    assert held == [None, "1", "2", "1"]
    newest = (await operator.get("/models/fraud/timeline")).json()["events"][0]
    assert (newest["version"], newest["to_stage"], newest["reason"]) == ("1", "Production", "it was wrong")
    assert newest["actor"] == "operator-person"


async def test_a_split_by_hand_passes_the_gates_and_needs_the_etag(api: Api) -> None:
    await add_model(api.maker)
    await add_version(api.maker, "fraud", "3", digest=None)
    operator = await api.as_("operator")
    await operator.post("/models/fraud/promote/production", json={"version": "1", **WHY})
    await reconcile(api.maker)
    current = await operator.get("/models/fraud/traffic")
    assert current.json()["arms"] == [{"variant": "stable", "version": "1", "percent": 100.0}]
    etag, half = current.headers["etag"], [{"version": "1", "percent": 87.66}, {"version": "2", "percent": 12.34}]

    async def put(arms: list[dict[str, Any]], match: str | None) -> httpx.Response:
        headers = {} if match is None else {"If-Match": match}
        return await operator.put("/models/fraud/traffic", json={"arms": arms, **WHY}, headers=headers)

    before = await everything(api.maker)
    assert (await put(half, None)).status_code == 428
    assert (await put(half, '"99"')).status_code == 409
    bad = await put([{"version": "2", "percent": 50}], etag)
    assert (bad.status_code, len(bad.json()["reasons"])) == (422, 2)
    gate = await put([{"version": "1", "percent": 50}, {"version": "3", "percent": 50}], etag)
    assert (gate.status_code, gate.json()["type"].rsplit("/")[-1]) == (409, "gates-not-met")
    assert await everything(api.maker) == before
    done = await put(half, etag)
    assert (done.status_code, done.json()["fixed"]) == (200, True)
    assert [arm["percent"] for arm in done.json()["arms"]] == [87.66, 12.34]
    assert (await put(half, etag)).status_code == 409  # the ETag has moved
    ended = await put([], done.headers["etag"])
    assert (ended.status_code, ended.json()["fixed"], len(ended.json()["arms"])) == (200, False, 1)


async def test_a_rollout_counts_as_applied_when_every_live_router_has_it(api: Api) -> None:
    await add_model(api.maker)
    operator = await api.as_("operator")
    started = (await operator.post("/models/fraud/promote/production", json={"version": "1", **WHY})).json()

    async def waiting() -> str | None:
        shown = (await operator.get(f"/rollouts/{started['id']}")).json()
        assert shown["applied"] == (shown["waiting_for"] is None)
        return str(shown["waiting_for"]) if shown["waiting_for"] else None

    assert await waiting() == "the model servers of version 1"
    await reconcile(api.maker)
    assert await waiting() == "the routing snapshot"
    async with api.maker.begin() as session:
        await store.mark_published(session, await store.unpublished(session), 7)
    assert await waiting() == "a live router"
    async with api.maker.begin() as session:
        await routers.report(session, "a", epoch=1, revision=7, pins={}, rejected=None)
        await routers.report(session, "b", epoch=1, revision=6, pins={}, rejected=None)
    assert await waiting() == "1 of 2 routers: b"
    async with api.maker.begin() as session:
        await routers.report(session, "b", epoch=1, revision=8, pins={}, rejected=None)
    assert await waiting() is None


async def test_a_canary_is_steered_by_hand_and_listed_as_an_experiment(api: Api) -> None:
    await add_model(api.maker)
    operator = await api.as_("operator")
    await operator.post("/models/fraud/promote/production", json={"version": "1", **WHY})
    await reconcile(api.maker)
    plan = {"strategy": "canary", "steps": [{"weight": 5, "hold_s": 60}, {"weight": 50, "hold_s": 60}]}
    started = await operator.post("/models/fraud/promote/production", json={"version": "2", **plan, **WHY})
    await reconcile(api.maker)
    path = f"/rollouts/{started.json()['id']}"
    assert (await operator.get(path)).json()["weight"] == 5
    percents = {a["variant"]: a["percent"] for a in (await operator.get("/models/fraud/traffic")).json()["arms"]}
    assert percents == {"candidate": 5, "stable": 90, "baseline": 5}
    walked = [("pause", 200, "paused"), ("pause", 409, "paused"), ("resume", 200, "progressing")]
    walked += [("skip", 200, "progressing"), ("promote", 200, "baking"), ("skip", 409, "baking")]
    walked += [("abort", 200, "aborted"), ("abort", 409, "aborted")]
    for verb, status, phase in walked:
        answer = await operator.post(f"{path}/{verb}", json=WHY)
        assert (answer.status_code, answer.json().get("phase")) == (status, phase), answer.text
        if (verb, status) == ("skip", 200):
            assert (answer.json()["step"], answer.json()["weight"]) == (1, 50)
    assert await stages(api.maker) == {"1": "Production", "2": "Staging"}
    found = (await operator.get("/experiments")).json()["items"]
    assert [(e["candidate_version"], e["baseline_version"], e["status"]) for e in found] == [("2", "1", "aborted")]
    assert (await operator.get("/ab-tests", params={"model": "fraud"})).json()["items"] == found
    test = (await operator.get(f"/ab-tests/{started.json()['id']}")).json()
    assert (test["phase"], test["alpha"]) == ("aborted", 0.05)
    assert [(one["decides"]["comparison"], one["posterior"]) for one in test["metrics"]] == [("undecided", None)] * 2
    first = (await operator.get("/rollouts")).json()["items"][-1]["id"]
    assert (await operator.get(f"/ab-tests/{first}")).status_code == 404  # it compared nothing


async def test_aborting_the_first_release_takes_the_model_out_of_service(api: Api) -> None:
    await add_model(api.maker)
    operator = await api.as_("operator")
    plan = {"version": "1", "strategy": "blue_green", "bake_s": 60}
    started = await operator.post("/models/fraud/promote/production", json={**plan, **WHY})
    await reconcile(api.maker)
    refused = await operator.post("/models/fraud/rollback", json=WHY)
    assert (refused.status_code, "first" in refused.json()["detail"]) == (409, True)
    aborted = await operator.post(f"/rollouts/{started.json()['id']}/abort", json=WHY)
    assert (aborted.status_code, aborted.json()["phase"]) == (200, "aborted")
    assert (await operator.get("/models/fraud")).json()["production_version"] is None
    assert (await operator.get("/models/fraud/traffic")).json()["arms"] == []


async def test_an_unreadable_config_is_named_and_never_a_500(api: Api) -> None:
    await add_model(api.maker, versions=1)
    await add_version(api.maker, "fraud", "2", config={"name": "fraud"}, evidence={"metric": "odd", "cost": [1]})
    await add_version(api.maker, "fraud", "3", config={**CONFIG, "features": {}}, evidence={"metric": {"value": "x"}})
    operator = await api.as_("operator")
    assert (await operator.get("/models/fraud/versions")).status_code == 200
    for version in "23":
        shown = await operator.get(f"/models/fraud/versions/{version}")
        assert any(reason.startswith("config: ") for reason in shown.json()["gates"][0]["reasons"]), shown.text
        answer = await operator.post("/models/fraud/promote/production", json={"version": version, **WHY})
        assert answer.status_code == 409


async def test_every_change_leaves_one_audit_row_that_says_who_why_and_what(api: Api) -> None:
    await add_model(api.maker)
    operator, auditor = await api.as_("operator"), await api.as_("auditor")
    sent = {"X-Request-Id": "ticket-4711", "User-Agent": "mlcp-cli"}
    body = {"version": "1", "reason": "the new one is better"}
    await operator.post("/models/fraud/promote/production", json=body, headers=sent)
    found = (await auditor.get("/audit", params={"object": "model:fraud"})).json()["items"]
    assert len(found) == 1
    row = found[0]
    assert (row["action"], row["reasons"], row["request_id"]) == ("model.promote", [body["reason"]], "ticket-4711")
    assert (row["actor"]["person"], row["actor"]["role"], row["trigger"]) == ("operator-person", "operator", "cli")
    assert (row["after"]["candidate"], row["evidence"]["digest"][:7]) == ("1", "sha256:")
    async with api.maker.begin() as session:
        assert first_bad(await audit.links(session)) is None
        await session.execute(update(ModelVersionRow).values(semver="9"))  # no audit: not a change of a release
