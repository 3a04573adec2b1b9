"""Plans of rollouts on the real API: what is refused, with every reason, and what a preview says."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import msgspec
import pytest
import yaml
from sqlalchemy import text, update
from sqlalchemy.ext.asyncio import AsyncEngine

from control_plane.adapters.store import ids, ingest, rollouts
from control_plane.adapters.store.tables import DeploymentRow, ModelRow, ModelVersionRow
from control_plane.contracts.records import PredictionRecord
from control_plane.ingest import rows
from control_plane.services import analysis as analysis_service
from tests.integration.test_sdk_api import mlcp
from tests.support.api import CONFIG, Api, add_model, add_version, everything

pytestmark = pytest.mark.integration
PROMOTE = "/models/fraud/promote/production"
WHY = {"reason": "a test"}


@pytest.fixture
async def live(api: Api) -> Api:
    """Version 1 of fraud is Production; version 2 could follow."""
    await add_model(api.maker)
    async with api.maker.begin() as session:
        await session.execute(update(ModelRow).values(production_version="1"))
        await session.execute(update(ModelVersionRow).where(ModelVersionRow.version == "1").values(stage="Production"))
    return api


async def seen(engine: AsyncEngine, customers: int) -> None:
    """One request of each, within the last minutes."""
    at_us = int(datetime.now(UTC).timestamp() * 1e6)
    records = [
        PredictionRecord(
            v=1, prediction_id=str(ids.new()), model="fraud", status="ok", received_at_us=at_us - number,
            latency_us=3_000, epoch=1, revision=1, assigned_variant="stable", assigned_version="1",
            served_variant="stable", served_version="1", unit_id=f"c-{number}",
        )
        for number in range(customers)
    ]  # fmt: skip
    made = [rows.prediction(msgspec.json.encode(record))[0] for record in records]
    async with ingest.connection(engine) as connection:
        await ingest.make_partitions(connection, [datetime.now(UTC).date()])
        await ingest.fold(connection, predictions=made, outcomes=[], moves=[])


async def test_a_plan_that_cannot_be_carried_out_is_refused_with_every_reason_and_changes_nothing(live: Api) -> None:
    operator = await live.as_("operator")
    await add_version(live.maker, "fraud", "3", stage="Archived")
    more = {**CONFIG["features"], "iban_age": {"type": "number"}}
    await add_version(live.maker, "fraud", "4", config={**CONFIG, "features": more})
    before = await everything(live.maker)
    ramp = [{"weight": 80, "hold_s": 1}, {"weight": 60, "hold_s": 1}]
    analysis = {"metrics": [{"name": "outcome:paid", "role": "goal", "margin": 0.1}], "alpha": 0.7}
    plan = {"strategy": "canary", "steps": ramp, "analysis": analysis}
    refused = await operator.post(PROMOTE, json={"version": "3", **plan, **WHY})
    assert refused.status_code == 422
    said = "\n".join(refused.json()["reasons"])
    for part in ("weights never fall", "at most 50", "unknown metric", "alpha", "Archived"):
        assert part in said, said
    needy = await operator.post(PROMOTE, json={"version": "4", **WHY})
    assert (needy.status_code, "iban_age" in needy.text) == (409, True)
    goalless = await operator.post(PROMOTE, json={"version": "2", "strategy": "ab_test", **WHY})
    assert (goalless.status_code, "goal" in goalless.json()["reasons"][0]) == (422, True)
    unmeasured = {"metrics": [{"name": "promql:q", "query": "up", "at_least": 1}]}
    queried = await operator.post(PROMOTE, json={"version": "2", "strategy": "canary", "analysis": unmeasured, **WHY})
    assert "MLCP_PROMETHEUS_URL" in queried.text
    twice = {"strategy": "canary", "analysis": {}, "by_hand": True}
    assert "by_hand" in (await operator.post(PROMOTE, json={"version": "2", **twice, **WHY})).text
    assert await everything(live.maker) == before


async def test_a_plan_that_could_never_decide_is_refused_with_the_time_it_would_take(
    live: Api, engine: AsyncEngine
) -> None:
    operator = await live.as_("operator")
    await seen(engine, 40)
    analysis = {"metrics": [{"name": "error_rate", "margin": 0.0001}], "decide_within_s": 86_400}
    plan: dict[str, Any] = {"version": "2", "strategy": "canary", "analysis": analysis}
    refused = await operator.post(PROMOTE, json={**plan, **WHY})
    assert refused.status_code == 422
    [reason] = refused.json()["reasons"]
    assert "would not decide within 24 hours" in reason
    assert "days at" in reason
    assert "customers per arm" in reason
    begun = await operator.post(PROMOTE, json={**plan, "by_hand": True, "analysis": None, **WHY})
    assert (begun.status_code, begun.json()["plan"]) == (202, None)


async def test_everything_in_the_way_is_said_at_once_by_rest_and_on_the_command_line(
    live: Api, engine: AsyncEngine, tmp_path: Path
) -> None:
    operator, key = await live.as_("operator"), await live.key("operator")
    await seen(engine, 40)
    more = {**CONFIG["features"], "iban_age": {"type": "number"}}
    config = {**CONFIG, "features": more}
    await add_version(live.maker, "fraud", "4", stage="Archived", config=config, digest=None)
    plan: dict[str, Any] = {
        "version": "4",
        "strategy": "canary",
        "steps": [{"weight": 40, "hold_s": 1}, {"weight": 30, "hold_s": 1}],
        "analysis": {
            "metrics": [{"name": "error_rate", "margin": 0.0001}, {"name": "outcome:paid", "margin": 0.1}],
            "decide_within_s": 86_400,
        },
    }
    parts = (
        "weights never fall",
        "outcome:paid: unknown metric",
        "would not decide within 24 hours. About",
        "Archived",
        "digest",
        "iban_age",
    )
    before = await everything(live.maker)
    refused = await operator.post(PROMOTE, json={**plan, **WHY})
    preview = await operator.post("/models/fraud/plan", json=plan)
    assert (refused.status_code, preview.status_code) == (422, 200), (refused.text, preview.text)
    file = tmp_path / "rollout.yaml"
    file.write_text(yaml.safe_dump({"kind": "rollout", "model": "fraud", **plan, **WHY}))
    dry = await mlcp(live, key, "apply", "-f", str(file), "--dry-run", exits=4)
    begun = await mlcp(live, key, "apply", "-f", str(file), exits=4)
    assert max(map(len, dry.splitlines())) <= 80
    for said in ("\n".join(refused.json()["reasons"]), "\n".join(preview.json()["reasons"]), dry, begun):
        flat = " ".join(said.split())
        for part in parts:
            assert part in flat, (part, said)
    assert "40 % for at least 1 s" in dry
    split = await mlcp(live, key, "traffic", "set", "fraud", "2=30", "--reason", "a test", exits=7)
    assert "sum to 100" in split
    assert "has to be one of them" in split
    assert await everything(live.maker) == before


async def test_a_preview_says_what_would_happen_beside_the_open_rollout_and_writes_nothing(
    live: Api, engine: AsyncEngine
) -> None:
    operator, viewer = await live.as_("operator"), await live.as_("viewer")
    await seen(engine, 500)
    plan: dict[str, Any] = {"version": "2", "strategy": "canary", "steps": [{"weight": 50, "hold_s": 60}]}
    before = await everything(live.maker)
    first = await viewer.post("/models/fraud/plan", json=plan)
    assert first.status_code == 200, first.text
    assert (first.json()["open"], first.json()["reasons"]) == (False, [])
    assert first.json()["forecast"]["seconds"] > 60
    assert {need["metric"] for need in first.json()["forecast"]["needs"]} == {"error_rate", "latency"}
    assert await everything(live.maker) == before
    begun = await operator.post(PROMOTE, json={**plan, **WHY})
    assert begun.status_code == 202, begun.text
    assert [metric["name"] for metric in begun.json()["plan"]["metrics"]] == ["error_rate", "latency"]
    same = (await viewer.post("/models/fraud/plan", json=plan)).json()
    assert (same["open"], same["changes"]) == (True, [])
    assert any(reason.startswith("rollout:") for reason in same["reasons"])
    other = (await viewer.post("/models/fraud/plan", json={**plan, "bake_s": 5})).json()
    assert [change["field"] for change in other["changes"]] == ["bake_s"]
    blue = (await viewer.post("/models/fraud/plan", json={"strategy": "blue_green", "by_hand": True})).json()
    assert (blue["steps"], blue["analysis"]) == ([{"weight": 0.0, "hold_s": 0.0}], None)
    at_once = (await viewer.post("/models/fraud/plan", json={"strategy": "immediate", "by_hand": True})).json()
    assert any("could wait for a hand" in reason for reason in at_once["reasons"])
    async with live.maker.begin() as session:
        await session.execute(update(DeploymentRow).values(state="ready"))
        assert await session.scalar(text("SELECT count(*) FROM rollouts")) == 1
    shown = (await viewer.get(f"/rollouts/{begun.json()['id']}")).json()
    assert (shown["analyses"], shown["conclusion"]) == ([], None)


async def test_units_named_are_digests_from_the_first_moment_on_and_slices_of_a_layer_do_not_meet(live: Api) -> None:
    operator = await live.as_("operator")
    await add_model(live.maker, "churn")
    async with live.maker.begin() as session:
        await session.execute(update(ModelRow).values(production_version="1"))
    steps = [{"weight": 0, "hold_s": 5}, {"weight": 50, "hold_s": 60}]
    layer = {"name": "checkout", "first": 0, "last": 60}
    targeting = {"allow": ["customer-no-1", "customer-no-2"], "exclude": ["customer-no-3"], "layer": layer}
    plan: dict[str, Any] = {"version": "2", "strategy": "canary", "steps": steps, "targeting": targeting}
    begun = await operator.post(PROMOTE, json={**plan, **WHY}, headers={"Idempotency-Key": "once"})
    assert begun.status_code == 202, begun.text
    assert begun.json()["targeting"] == {
        "allowed": 2, "excluded": 1, "layer": "checkout", "first": 0.0, "last": 60.0,
    }  # fmt: skip
    again = (await operator.post("/models/fraud/plan", json=plan)).json()
    assert (again["open"], again["changes"]) == (True, [])
    async with live.maker.begin() as session:
        names = (await session.scalars(text("SELECT tablename FROM pg_tables WHERE schemaname = 'public'"))).all()
        for name in names:
            rows_ = await session.scalars(text(f"SELECT t::text FROM {name} t"))
            assert not any("customer-no" in row for row in rows_), name
    meets = {**plan, "targeting": {"layer": {**layer, "first": 59, "last": 100}}, "steps": steps[1:]}
    refused = await operator.post("/models/churn/promote/production", json={**meets, **WHY})
    assert refused.status_code == 422
    assert "fraud tests on 0 to 60 % of checkout already" in refused.text
    meets["targeting"]["layer"]["first"] = 60
    beside = await operator.post("/models/churn/promote/production", json={**meets, **WHY})
    assert beside.status_code == 202, beside.text
    both = {**plan, "targeting": {"allow": ["a"], "exclude": ["a"]}}
    assert "both allowed and excluded" in (await operator.post("/models/fraud/plan", json=both)).text


async def test_ratios_ranks_and_the_time_before_are_metrics_of_a_plan(live: Api) -> None:
    operator = await live.as_("operator")
    declared = {**CONFIG, "outcomes": {"spent": {"kind": "amount"}}}
    await add_version(live.maker, "fraud", "3", config=declared)
    ratio = {"name": "ratio:each", "numerator": "outcome:spent", "denominator": "requests", "role": "goal", "margin": 1}
    spent = {"name": "outcome:spent", "margin": 2, "cuped_s": 86_400}
    analysis = {"metrics": [ratio, spent, {"name": "auc"}, {"name": "average_precision"}, {"name": "recall"}]}
    plan: dict[str, Any] = {"version": "3", "strategy": "ab_test", "analysis": analysis}
    begun = await operator.post(PROMOTE, json={**plan, **WHY})
    assert begun.status_code == 202, begun.text
    assert begun.json()["plan"]["metrics"][0]["denominator"] == "requests"
    async with live.maker.begin() as session:
        entry = await rollouts.load(session, UUID(begun.json()["id"]))
        made = await analysis_service.setup(session, entry)
    assert made is not None
    measures = {measure.name: measure for group in made.groups for measure in group.measures}
    assert (measures["ratio:each"].outcome, measures["ratio:each"].below) == ("spent", None)
    assert measures["outcome:spent"].before == timedelta(days=1)
