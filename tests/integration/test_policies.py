"""Signals on the real API and database: taken in once, decided once, carried out once, looked at afterwards."""

import asyncio
import base64
import hmac
import json
import random
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest
from pydantic import SecretStr
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from control_plane.adapters.metrics import Metrics
from control_plane.adapters.store import audit, jobs, work
from control_plane.contracts import policies as contract
from control_plane.domain.audit import first_bad
from control_plane.domain.governance.decide import Signal, Status
from control_plane.domain.governance.policy import Severity, Source
from control_plane.domain.reports.facts import Kind
from control_plane.services import governor, reports, signals
from control_plane.services.promotion import Policy
from control_plane.settings import ApiSettings
from control_plane.telemetry import Metric
from control_plane.worker import govern
from tests.integration.test_api_releases import reconcile
from tests.integration.test_sdk_api import mlcp
from tests.support.api import Api, add_model, everything, serving

pytestmark = pytest.mark.integration
SECRET = "a shared secret"
WHY = {"reason": "a test"}
PROD = Policy(governance="prod")


@pytest.fixture
async def prod(dsn: str, maker: async_sessionmaker[AsyncSession], home: Path) -> AsyncIterator[Api]:
    """The API under the policy prod with fraud and churn, version 1 of each in Production."""
    for model in ("fraud", "churn"):
        await add_model(maker, model)
    settings = ApiSettings(
        postgres_dsn=SecretStr(dsn), home=home, policy="prod", alert_webhook_secret=SecretStr(SECRET)
    )
    async with serving(settings, Metrics(home / "run" / "metrics", "api")) as url:
        api = Api(url, maker)
        ann, ben = await api.as_("operator"), api.client(await api.key("approver", person="Ben"))
        for model in ("fraud", "churn"):
            spec = {"version": "1", **WHY}
            asked = (await ann.post(f"/models/{model}/promote/production", json=spec)).json()
            path, seen = f"/approvals/{asked['id']}/approve", {"If-Match": asked["etag"]}
            assert (await ben.post(path, json=WHY, headers=seen)).status_code == 200
        await reconcile(maker)
        yield api
        await api.close()


def alert(name: str, number: int = 0, **labels: str) -> dict[str, Any]:
    return {
        "status": "firing",
        "labels": {"alertname": name, "severity": "warning", "model_name": "fraud", **labels},
        "annotations": {"summary": "something is wrong"},
        "startsAt": "2026-01-01T00:00:00.123456Z",
        "endsAt": "0001-01-01T00:00:00Z",
        "generatorURL": "http://prometheus/graph",
        "fingerprint": f"{number:016x}",
    }


def group(*alerts: dict[str, Any]) -> bytes:
    return json.dumps({"version": "4", "groupKey": "g", "status": "firing", "alerts": alerts}).encode()


def signed(body: bytes, *, at: float | None = None, secret: str = SECRET) -> dict[str, str]:
    timestamp = str(int(time.time() if at is None else at))
    mac = hmac.new(secret.encode(), f"{timestamp}.".encode() + body, sha256).digest()
    signature = "v1," + base64.b64encode(mac).decode()
    return {"X-Mlcp-Signature": signature, "X-Mlcp-Timestamp": timestamp, "Content-Type": "application/json"}


async def send(client: httpx.AsyncClient, body: bytes, headers: dict[str, str] | None = None) -> httpx.Response:
    return await client.post(
        "/webhooks/alertmanager", content=body, headers=signed(body) if headers is None else headers
    )


async def count(api: Api, query: str) -> int:
    async with api.maker() as session:
        return int(await session.scalar(text(f"SELECT count(*) FROM {query}")) or 0)


def counted(home: Path) -> dict[str, float]:
    families = Metrics(home / "run" / "metrics", "test").families()
    samples = [s for f in families if f.name == Metric.WEBHOOKS.removesuffix("_total") for s in f.samples]
    return {s.labels["outcome"]: s.value for s in samples if s.labels["webhook"] == "alertmanager"}


async def test_of_a_burst_with_duplicates_disorder_and_garbage_each_alert_is_acted_on_once(
    prod: Api, home: Path
) -> None:
    genuine = [alert("HighErrors", number) for number in range(60)]
    over = [{**one, "status": "resolved"} for one in genuine[:20]]
    rng = random.Random(7)
    bodies: list[tuple[bytes, dict[str, str] | None, int]] = []
    for _ in range(850):
        body = group(*rng.sample(genuine + over, rng.randint(1, 6)), {**alert("HighErrors", 10**6 + len(bodies))})
        bodies.append((body, None, 202))
    for number in range(150):
        body = group(alert("HighErrors", 2 * 10**6 + number))
        garbage = [
            (b"{" + body, None, 422),
            (json.dumps({"version": "3", "alerts": []}).encode(), None, 422),
            (body, signed(body, secret="another"), 401),
            (body, signed(body, at=time.time() - 900), 401),
            (body, {"Content-Type": "application/json"}, 401),
        ]
        bodies.append(garbage[number % 5])
    rng.shuffle(bodies)
    client, room = prod.client(), asyncio.Semaphore(8)

    async def deliver(body: bytes, headers: dict[str, str] | None) -> int:
        async with room:
            return (await send(client, body, headers)).status_code

    answers = await asyncio.gather(*(deliver(body, headers) for body, headers, _ in bodies))
    assert [status for _, _, status in bodies] == answers
    assert await count(prod, "signals WHERE name = 'HighErrors' AND status = 'firing'") == 60 + 850
    assert await count(prod, "signals WHERE status = 'resolved'") == 20
    assert counted(home) == {"accepted": 850, "malformed": 60, "unsigned": 90}
    forged = {f"{2 * 10**6 + number:016x}" for number in range(150)}
    async with prod.maker() as session:
        kept = set(await session.scalars(text("SELECT facts->>'fingerprint' FROM signals")))
    assert not kept & forged


async def test_each_signal_is_decided_once_and_each_act_done_once_however_many_are_at_it(prod: Api) -> None:
    client = prod.client()
    alerts = [alert("HighErrors", n, severity="critical") for n in range(12)]
    assert (await send(client, group(*alerts, *alerts))).json() == {"received": 24, "new": 12}
    await asyncio.gather(*(govern.govern(prod.maker, PROD) for _ in range(3)))
    assert await count(prod, "signals WHERE decided_at IS NULL") == 0
    assert await count(prod, "audit WHERE action = 'policy.decide'") == 12
    assert await count(prod, "audit WHERE action = 'policy.notify'") == 1  # then the cool-down holds it
    assert await count(prod, "notices WHERE event = 'signal.notify' AND severity = 'critical'") == 1
    assert await count(prod, "policy_acts WHERE state = 'wanted'") == 0
    async with prod.maker() as session:
        assert first_bad(await audit.links(session)) is None


async def test_what_is_not_proven_genuine_is_refused_and_changes_nothing(prod: Api, home: Path) -> None:
    body, client = group(alert("X")), prod.client()
    viewer, robot = await prod.as_("viewer"), prod.client(await prod.key("operator", scopes=["alert"]))
    before, signals = await everything(prod.maker), await count(prod, "signals")
    once = signed(body)
    refusals = [
        (await send(client, body, {})).status_code,
        (await send(client, body + b" ", once)).status_code,
        (await send(client, body, signed(body, at=time.time() + 900))).status_code,
        (await send(client, body, {**once, "X-Mlcp-Timestamp": "now"})).status_code,
        (await send(viewer, body, {"Content-Type": "application/json"})).status_code,
        (await send(client, b" " * 1_100_000)).status_code,
        (await send(client, group({**alert("X"), "startsAt": "yesterday"}))).status_code,
        (await send(client, group({**alert("X"), "fingerprint": "../etc"}))).status_code,
    ]
    assert refusals == [401, 401, 401, 401, 403, 413, 422, 422]
    assert (await everything(prod.maker), await count(prod, "signals")) == (before, signals)
    assert (await send(client, body, once)).status_code == 202
    replayed = await send(client, body, once)
    assert (replayed.status_code, replayed.json()["type"].rsplit("/")[-1]) == (409, "conflict")
    assert (await send(robot, body, {"Content-Type": "application/json"})).json() == {"received": 1, "new": 0}
    assert (await robot.get("/models")).status_code == 403
    assert counted(home)["replayed"] == counted(home)["oversized"] == counted(home)["forbidden"] == 1


async def test_who_cannot_sign_shows_the_secret_which_is_good_for_alerts_alone(prod: Api) -> None:
    stranger, before = prod.client(), await count(prod, "signals")
    shown = {"Authorization": f"Bearer {SECRET}", "Content-Type": "application/json"}
    assert (await send(stranger, group(alert("HighErrors", 1)), shown)).status_code == 202
    assert (await stranger.get("/models", headers=shown)).status_code == 401
    assert (await stranger.post("/webhooks/mlflow", headers=shown)).status_code == 401
    wrong = shown | {"Authorization": f"Bearer {SECRET[:-1]}"}
    assert (await send(stranger, group(alert("HighErrors", 2)), wrong)).status_code == 401
    assert await count(prod, "signals") == before + 1


async def test_an_outage_in_a_bake_is_taken_back_and_looked_at_afterwards(prod: Api) -> None:
    ann, ben = await prod.as_("operator"), prod.client(await prod.key("approver", person="Ben"))
    spec = {"version": "2", "bake_s": 600, **WHY}
    asked = (await ann.post("/models/fraud/promote/production", json=spec)).json()
    await ben.post(f"/approvals/{asked['id']}/approve", json=WHY, headers={"If-Match": asked["etag"]})
    await reconcile(prod.maker)
    assert (await ben.get("/models/fraud")).json()["production_version"] == "2"
    await send(prod.client(), group(alert("HighErrors", severity="critical", slo="availability")))
    await govern.govern(prod.maker, PROD)
    assert (await ben.get("/models/fraud")).json()["production_version"] == "1"
    decision = (await ben.get("/policies/decisions?model=fraud")).json()["items"][0]
    assert (decision["source"], decision["diagnosis"]) == ("slo", "bad_release")
    assert {a["operation"]: a["state"] for a in decision["acts"]} == {
        "notify": "done",
        "roll_back": "done",
        "roll_back_settled": "held",
    }
    assert decision["inputs"]["situation"]["rollout_open"] is True
    later = datetime.now(UTC) + timedelta(hours=1)
    await govern.govern(prod.maker, PROD, at=later)
    acts = (await ben.get("/policies/decisions?model=fraud")).json()["items"][0]["acts"]
    assert [a["effect"] for a in acts] == [None, "unknown", None]  # nobody asked the model anything
    assert await count(prod, "audit WHERE action = 'policy.check'") == 1


async def test_drift_leads_to_one_retraining_that_a_person_agrees_to(prod: Api) -> None:
    robot = await prod.as_("operator")
    for number in range(3):
        noticed = {"name": "incident", "source": "performance", "model": "churn", "id": str(number)}
        assert (await robot.post("/webhooks/alerts", json=noticed)).json() == {"received": 1, "new": 1}
    await govern.govern(prod.maker, PROD)
    ben = prod.client(await prod.key("approver", person="Ben"))
    waiting = (await ben.get("/approvals?state=pending")).json()["items"]
    assert [(a["operation"], a["model"], a["author"], a["automated"]) for a in waiting] == [
        ("retrain", "churn", "policy", True)
    ]
    seen = {"If-Match": waiting[0]["etag"]}
    done = await ben.post(f"/approvals/{waiting[0]['id']}/approve", json=WHY, headers=seen)
    job = (await ben.get(f"/jobs/{done.json()['result']['job']}")).json()
    assert (job["kind"], job["model"], job["created_by"]) == ("train", "churn", "policy")
    async with prod.maker() as session:
        told = await reports.gather(session, Kind.RETRAINING, "churn", report_id=uuid4(), now=datetime.now(UTC))
    agreed = [(a.action, a.asked_by, a.approved_by, a.why) for a in told.approvals]
    assert agreed[-1] == ("retrain", "policy", "Ben", WHY["reason"])
    assert [action for action, *_ in agreed] == ["promote", "retrain"]


async def test_of_a_group_of_five_thousand_alerts_each_is_one_signal_and_told_again_none(prod: Api) -> None:
    named = {"status": "firing", "labels": {"alertname": "Down"}, "startsAt": "2026-01-01T00:00:00Z"}
    alerts = [named | {"fingerprint": f"{number % 4_000:x}"} for number in range(5_000)]
    body = group(*alerts)
    async with httpx.AsyncClient(base_url=f"{prod.url}/api/v1", timeout=120) as client:
        first, again = await send(client, body), await send(client, group(*reversed(alerts)))
    assert (first.json(), again.json()) == ({"received": 5_000, "new": 4_000}, {"received": 5_000, "new": 0})


async def test_a_retrained_version_is_decided_about_when_its_replay_is_over(prod: Api) -> None:
    now = datetime.now(UTC)
    async with prod.maker.begin() as session:
        job = await jobs.want(session, "replay", "fraud", {}, created_by="worker", now=now)
        found = Signal(Source.RETRAINING, "better", "fraud", Severity.INFO, Status.FIRING, now, {"replay": str(job)})
        await signals.notice(session, "j", found, now=now)
    await govern.govern(prod.maker, PROD)
    assert await count(prod, "signals WHERE decided_at IS NULL") == 1
    async with prod.maker.begin() as session:
        await work.end(session, job, "failed", now=now, error="no room")
    await govern.govern(prod.maker, PROD)
    assert await count(prod, "signals WHERE decided_at IS NULL") == 0


class Crash(Exception):
    pass


@pytest.mark.parametrize("at", ["decide_one", "act_one"])
async def test_a_crash_between_decision_and_deed_does_neither_twice(
    prod: Api, monkeypatch: pytest.MonkeyPatch, at: str
) -> None:
    await send(prod.client(), group(alert("HighErrors")))
    real = getattr(governor, at)

    async def dying(*args: Any, **named: Any) -> Any:
        await real(*args, **named)
        raise Crash

    monkeypatch.setattr(governor, at, dying)
    with pytest.raises(Crash):
        await govern.govern(prod.maker, PROD)
    monkeypatch.undo()
    for _ in range(2):
        await govern.govern(prod.maker, PROD)
    assert await count(prod, "audit WHERE action = 'policy.decide'") == 1
    assert await count(prod, "audit WHERE action = 'policy.notify'") == 1


async def test_the_kill_switch_holds_everything_but_telling(prod: Api) -> None:
    ann, ben = await prod.as_("operator"), prod.client(await prod.key("approver", person="Ben"))
    assert (await ann.post("/policies/halt", json=WHY)).status_code == 200
    assert (await ann.post("/policies/halt", json=WHY)).status_code == 409
    tried = await ann.post("/policies/try", json={"name": "incident", "source": "performance", "model": "fraud"})
    assert {a["operation"]: a["outcome"] for a in tried.json()["acts"]} == {
        "notify": "do",
        "pause_rollout": "hold",
        "retrain": "hold",
    }
    assert "halted: a test" in tried.json()["text"]
    assert (await ann.get("/policies/current")).json()["halted"]["by"] == "operator-person"
    assert (await ann.post("/policies/resume", json=WHY)).status_code == 403
    assert (await ben.post("/policies/resume", json=WHY)).status_code == 200
    assert await count(prod, "signals") == 0  # trying writes nothing


async def test_a_policy_is_applied_from_a_file_after_the_approval_the_old_one_asks_for(prod: Api, home: Path) -> None:
    admin, ben = await prod.key("admin", person="Ada"), prod.client(await prod.key("approver", person="Ben"))
    file = home / "policy.yaml"
    document = (await ben.get("/policies/prod")).json()["document"]
    document["limits"]["per_hour"] = 2
    file.write_text(json.dumps(document))
    said = await mlcp(prod, admin, "apply", "-f", str(file), "--dry-run")
    assert "limits.per_hour" in said
    assert "wait for an approval" in said
    assert "approvals show" in await mlcp(prod, admin, "apply", "-f", str(file), "--reason", "calmer")
    waiting = (await ben.get("/approvals?state=pending")).json()["items"][0]
    assert waiting["will"] == ["The policy prod is in force from then on.", "limits.per_hour: 6 -> 2"]
    seen = {"If-Match": waiting["etag"]}
    assert (await ben.post(f"/approvals/{waiting['id']}/approve", json=WHY, headers=seen)).status_code == 200
    assert (await ben.get("/policies/current")).json()["version"] == 1
    assert "per_hour: 2" in await mlcp(prod, admin, "policies", "show")
    assert "calmer" in await mlcp(prod, admin, "policies", "list")
    tried = await mlcp(prod, admin, "policies", "try", "incident", "--model", "fraud", "--source", "performance")
    assert "retrain: ask" in tried
    file.write_text(json.dumps({**document, "rules": {"promote": {"tier": "never"}}}))
    assert "rules.promote" in await mlcp(prod, admin, "apply", "-f", str(file), "--reason", "x", exits=7)
    assert contract.template("prod").limits.per_hour == 6


async def test_schedules_raise_one_signal_a_period_and_model(prod: Api) -> None:
    policy = {"kind": "policy", "name": "w", "rules": {"configure": {"tier": "automatic"}}}
    policy["schedules"] = [{"name": "review", "every_s": 3600, "models": ["fraud"]}]
    admin = prod.client(await prod.key("admin", person="Ada"))
    asked = (await admin.post("/policies", json={"document": policy, **WHY})).json()
    ben = prod.client(await prod.key("approver", person="Ben"))
    await ben.post(f"/approvals/{asked['id']}/approve", json=WHY, headers={"If-Match": asked["etag"]})
    at = datetime(2026, 1, 1, 12, 30, tzinfo=UTC)
    for minutes in (0, 10, 20, 40):
        await govern.govern(prod.maker, PROD, at=at + timedelta(minutes=minutes))
    assert await count(prod, "signals WHERE source = 'schedule' AND model = 'fraud'") == 2


async def test_a_rollout_that_fails_by_itself_is_a_signal_and_one_that_is_aborted_is_not(prod: Api) -> None:
    from control_plane.adapters.store import rollouts as store
    from control_plane.domain import rollouts
    from control_plane.domain.rollouts import Observation
    from control_plane.reconciler.context import CAUSE
    from control_plane.services import cutover

    ann, ben = await prod.as_("operator"), prod.client(await prod.key("approver", person="Ben"))
    for failing in (True, False):
        asked = (await ann.post("/models/fraud/promote/production", json={"version": "2", **WHY})).json()
        done = await ben.post(f"/approvals/{asked['id']}/approve", json=WHY, headers={"If-Match": asked["etag"]})
        rollout = done.json()["result"]["rollout"]
        if not failing:
            assert (await ann.post(f"/rollouts/{rollout}/abort", json=WHY)).status_code == 200
            continue
        now = datetime.now(UTC)
        async with prod.maker.begin() as session:
            entry = await store.load(session, store.UUID(rollout))
            new = rollouts.advance(entry.rollout, Observation(False, deploy_error="no memory"), now=now)
            warm = timedelta(minutes=1)
            await cutover.move(session, entry, new, action="rollout.aborted", cause=CAUSE, now=now, warm=warm)
    assert await count(prod, "signals WHERE source = 'rollout' AND model = 'fraud'") == 1
    await govern.govern(prod.maker, PROD)
    decision = (await ben.get("/policies/decisions")).json()["items"][0]
    assert (decision["diagnosis"], decision["inputs"]["signal"]["facts"]["why"]) == (
        "failed_rollout",
        "The candidate could not be deployed: no memory",
    )
