"""The SDK and the command line on the real API with a real Postgres."""

import asyncio
import json
import sys

import pytest
from sqlalchemy import text

from control_plane import errors
from control_plane.contracts.outcomes import OutcomeSpec
from control_plane.domain.rollouts import Phase
from control_plane.sdk import AsyncControlPlane, ControlPlane, async_every
from tests.integration.test_api_releases import reconcile
from tests.support.api import Api, add_model, add_version

pytestmark = pytest.mark.integration
WHY = "a test"


@pytest.fixture
async def key(api: Api) -> str:
    return await api.key("admin")


async def mlcp(api: Api, key: str, *argv: str, exits: int = 0) -> str:
    """Run the command as a user would, at 80 columns; what it printed."""
    env = {"MLCP_API_URL": api.url, "MLCP_API_KEY": key, "COLUMNS": "80", "PATH": "/usr/bin:/bin"}
    command = "import sys; from control_plane.cli import main; sys.argv[0] = 'mlcp'; main()"
    pipe = asyncio.subprocess.PIPE
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-c", command, *argv, env=env, stdout=pipe, stderr=pipe
    )
    out, err = (piece.decode() for piece in await asyncio.wait_for(child.communicate(), 240))
    assert child.returncode == exits, (argv, child.returncode, out, err)
    if "--json" not in argv:
        assert max(map(len, (out + err).splitlines()), default=0) <= 80
    return out + err


async def test_a_release_is_made_watched_and_taken_back(api: Api, key: str) -> None:
    await add_model(api.maker)
    async with AsyncControlPlane(api.url, key) as cp:
        assert [model.name for model in (await cp.models()).items] == ["fraud"]
        assert [version.version for version in (await cp.versions("fraud")).items] == ["2", "1"]
        detail = await cp.version("fraud", "2")
        assert any(gate.stage == "Production" and gate.allowed for gate in detail.gates)
        first = await cp.promote("fraud", "1", reason=WHY)
        await reconcile(api.maker)
        assert (await cp.rollout(first.id)).cut_over
        second = await cp.promote("fraud", reason=WHY, strategy="canary", steps=[(5, 0), (50, 0)], bake_s=60)
        assert (second.candidate_version, [step.weight for step in second.steps]) == ("2", [5, 50])
        with pytest.raises(errors.DeadlineExceeded, match="pending"):
            await cp.wait_rollout(second, timeout_s=0.2)
        with pytest.raises(errors.RolloutOpen):
            await cp.promote("fraud", "2", reason=WHY)
        assert (await cp.pause(second.id, reason=WHY)).phase is Phase.PAUSED
        assert (await cp.resume(second.id, reason=WHY)).phase is Phase.PENDING
        back = await cp.rollback("fraud", reason="enough")
        assert (back.id, back.phase) == (second.id, Phase.ABORTED)
        with pytest.raises(errors.Conflict):
            await cp.abort(second.id, reason=WHY)
        assert [r.id for r in (await cp.rollouts(model="fraud")).items] == [second.id, first.id]
        assert (await cp.rollouts(open=True)).items == []
        timeline = await cp.timeline("fraud")
        assert timeline.production_version == "1"
        assert (await cp.timeline("fraud", as_of=timeline.events[-1].at)).events
        assert (await cp.performance("fraud", period="1h")).predictions == 0


async def test_a_change_asked_for_twice_under_one_key_is_made_once(api: Api, key: str) -> None:
    await add_model(api.maker)
    async with AsyncControlPlane(api.url, key) as cp:
        asked = [cp.promote("fraud", "1", reason=WHY, key="only-once") for _ in range(3)]
        rollouts = await asyncio.gather(*asked)
        assert len({rollout.id for rollout in rollouts}) == 1
        with pytest.raises(errors.IdempotencyMismatch):
            await cp.promote("fraud", "2", reason=WHY, key="only-once")
        rows = [row async for row in async_every(cp.audit, action="model.promote", limit=1)]
    assert len(rows) == 1


async def test_refusals_arrive_as_their_class_with_every_reason(api: Api, key: str) -> None:
    await add_model(api.maker, versions=1)
    await add_version(api.maker, "fraud", "2", digest=None, evidence={})
    async with AsyncControlPlane(api.url, key) as cp:
        with pytest.raises(errors.GatesNotMet) as gates:
            await cp.promote("fraud", "2", reason=WHY)
        assert len(gates.value.extra["reasons"]) >= 2
        with pytest.raises(errors.NotFound):
            await cp.versions("nosuch")
        with pytest.raises(errors.InvalidInput) as invalid:
            await cp.promote("fraud", "one", reason="", strategy="magic")
        assert len(invalid.value.extra["reasons"]) == 3
        with pytest.raises(errors.NotFound):
            await cp.model("../keys")
    async with AsyncControlPlane(api.url, await api.key("predictor")) as powerless:
        with pytest.raises(errors.Forbidden):
            await powerless.rollback("fraud", reason=WHY)
    async with AsyncControlPlane(api.url, "mlcp_wrong") as nobody:
        with pytest.raises(errors.Unauthenticated):
            await nobody.models()


async def test_traffic_keys_jobs_outcomes_and_the_audit(api: Api, key: str) -> None:
    await add_model(api.maker)
    async with AsyncControlPlane(api.url, key) as cp:
        await cp.promote("fraud", "1", reason=WHY, bake_s=0)
        await reconcile(api.maker)
        seen = await cp.traffic("fraud")
        with pytest.raises(errors.StaleRevision):
            await cp.set_traffic("fraud", {"1": 100.0}, revision=seen.revision + 1, reason=WHY)
        split = await cp.set_traffic("fraud", {"1": 90.0, "2": 10.0}, revision=seen.revision, reason=WHY)
        assert split.fixed
        assert {arm.version: arm.percent for arm in split.arms} == {"1": 90.0, "2": 10.0}

        made = await cp.create_key("bob", "viewer", models=["fraud*"], expires_in_s=3_600, rate_limit_rps=5, reason=WHY)
        assert made.rate_limit_rps == 5
        with pytest.raises(errors.InvalidInput):
            await cp.create_key("bob", "viewer", rate_limit_rps=0, reason=WHY)
        fresh = await cp.rotate_key(made.id, reason=WHY)
        assert fresh.secret != made.secret
        assert (await cp.revoke_key(fresh.id, reason=WHY)).revoked_at is not None
        assert {"bob"} <= {principal.person for principal in (await cp.principals()).items}
        assert len([k async for k in async_every(cp.keys, limit=1)]) == len((await cp.keys()).items)

        job = await cp.retrain("fraud", seed=3, reason=WHY)
        assert (await cp.job(job.id)).args == {"source": "archive", "seed": 3}
        wanted = (await cp.jobs(model="fraud")).items
        assert [found.id for found in wanted if found.kind == "train"] == [job.id]
        assert (await cp.job_logs(job.id)).text == ""
        assert (await cp.cancel_job(job.id, reason=WHY)).cancel_requested_at is not None

        report = OutcomeSpec(model="fraud", unit_id="c1", value=True)
        assert (await cp.outcomes([report, report])).accepted == 2
        verified = await cp.verify_audit()
        assert verified.ok
        assert verified.links == (await cp.audit(limit=1)).items[0].seq
        assert (await cp.health()).version


async def test_the_command_line_on_the_real_api(api: Api, key: str) -> None:
    await add_model(api.maker)
    promoted = json.loads(await mlcp(api, key, "promote", "fraud", "1", "--reason", WHY, "--json"))
    await reconcile(api.maker)
    assert "fraud" in await mlcp(api, key, "models")
    listed = json.loads(await mlcp(api, key, "versions", "fraud", "--json"))
    assert {version["version"]: version["stage"] for version in listed} == {"1": "Production", "2": "Development"}
    told = await mlcp(api, key, "promote", "fraud", "2", "--reason", WHY, "--wait", "--timeout", "0.1", exits=8)
    assert "No answer within the deadline" in told
    await mlcp(api, key, "promote", "fraud", "1", "--reason", WHY, exits=4)
    assert "aborted" in await mlcp(api, key, "rollback", "fraud", "--reason", "practice")
    assert "model.promote" in await mlcp(api, key, "why", promoted["id"])
    assert "1 was Production of fraud" in await mlcp(api, key, "timeline", "fraud")
    await mlcp(api, key, "rollouts", "list", "fraud")
    await mlcp(api, key, "keys", "create", "bob", "--role", "viewer", "--reason", WHY)
    await mlcp(api, key, "keys", "list")
    await mlcp(api, key, "traffic", "show", "fraud")
    await mlcp(api, key, "audit", "list")
    assert json.loads(await mlcp(api, key, "audit", "verify", "--json"))["ok"] is True
    await mlcp(api, key, "versions", "nosuch", exits=3)
    await mlcp(api, "wrong", "models", exits=5)


async def test_the_synchronous_client_survives_a_database_that_is_away_for_a_moment(api: Api, key: str) -> None:
    """Its retries cover a Postgres that drops every connection."""
    await add_model(api.maker)

    def work() -> int:
        with ControlPlane(api.url, key) as cp:
            return len([cp.models() for _ in range(20)])

    working = asyncio.create_task(asyncio.to_thread(work))
    for _ in range(3):
        await asyncio.sleep(0.05)
        async with api.maker.begin() as session:
            others = "FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND datname = current_database()"
            await session.execute(text(f"SELECT pg_terminate_backend(pid) {others}"))
    assert await working == 20
