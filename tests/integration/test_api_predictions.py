"""One logged prediction, and the performance of a period against counts made by hand."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import insert, text

from control_plane.adapters.store import ids
from control_plane.adapters.store.tables import PredictionRow
from tests.support.api import CONFIG, Api, add_model, add_version

pytestmark = pytest.mark.integration


async def log(api: Api, *, minutes_ago: float, **changed: Any) -> UUID:
    """A logged prediction, as the ingester stores them; its day partition is made where there is none."""
    at = datetime.now(UTC) - timedelta(minutes=minutes_ago)
    identity = ids.new(int(at.timestamp() * 1_000))
    day = at.replace(hour=0, minute=0, second=0, microsecond=0)
    row = {"day": day, "prediction_id": identity, "model": "fraud", "status": "ok", "received_at": at}
    row |= {"latency_us": 2_000, "epoch": 1, "revision": 3, "pinned": False, "shadow": False}
    row |= {"assigned_version": "1", "served_version": "1", "served_variant": "stable", "assigned_variant": "stable"}
    row |= {"features": {"amount": 12.5}, "output": {"probability": 0.9}, "threshold": 0.5, "decision": "block"}
    async with api.maker.begin() as session:
        bounds = f"FROM ('{day.isoformat()}') TO ('{(day + timedelta(days=1)).isoformat()}')"
        part = f"CREATE TABLE IF NOT EXISTS predictions_{day:%Y%m%d} PARTITION OF predictions FOR VALUES {bounds}"
        await session.execute(text(part))
        await session.execute(insert(PredictionRow).values({**row, **changed}))
    return identity


async def test_a_prediction_is_shown_with_every_outcome_it_had(api: Api) -> None:
    await add_model(api.maker)
    operator, product = await api.as_("operator"), await api.as_("predictor")
    identity = await log(api, minutes_ago=5, request_id="r-1", unit_id="customer-1")
    outcome = {"prediction_id": str(identity), "value": False}
    assert (await product.post("/outcomes", json=outcome)).json() == {"accepted": 1, "known": 0}  # model looked up
    later = {**outcome, "value": True, "observed_at": (datetime.now(UTC) + timedelta(hours=1)).isoformat()}
    assert (await product.post("/outcomes", json=later)).status_code == 201
    shown = (await operator.get(f"/predictions/{identity}")).json()
    assert (shown["features"], shown["output"]) == ({"amount": 12.5}, {"probability": 0.9})
    assert (shown["latency_ms"], shown["unit_id"], shown["request_id"]) == (2.0, "customer-1", "r-1")
    assert [o["value"] for o in shown["outcomes"]] == [False, True]
    other = await api.as_("operator", "churn")
    assert (await other.get(f"/predictions/{identity}")).status_code == 403


async def test_performance_counts_customers_requests_and_the_newest_truth(api: Api) -> None:
    await add_model(api.maker)
    viewer, product = await api.as_("viewer"), await api.as_("predictor")
    empty = (await viewer.get("/models/fraud/performance")).json()
    assert (empty["predictions"], empty["accuracy"], empty["note"]) == (
        0,
        None,
        "No predictions were logged in this period.",
    )
    blocked = [await log(api, minutes_ago=n) for n in (1, 2, 3)]
    allowed = [await log(api, minutes_ago=n, decision="allow", output={"probability": 0.1}) for n in (4, 5)]
    await log(api, minutes_ago=6, shadow=True)
    await log(api, minutes_ago=6, pinned=True)
    await log(api, minutes_ago=60 * 30)  # of another day
    await log(api, minutes_ago=7, status="error", served_version=None, output=None, decision=None)
    await log(api, minutes_ago=7, assigned_version="2", assigned_variant="candidate", fallback_reason="dead")
    unlabelled = (await viewer.get("/models/fraud/performance")).json()
    assert (unlabelled["labelled"], unlabelled["accuracy"]) == (0, None)
    assert "quality cannot be computed" in unlabelled["note"]
    truths = [(blocked[0], True), (blocked[1], True), (blocked[2], False), (allowed[0], False), (allowed[1], True)]
    labels = [{"prediction_id": str(p), "value": not t, "observed_at": "2026-01-01T00:00:00Z"} for p, t in truths]
    labels += [{"prediction_id": str(p), "value": t, "observed_at": "2026-01-02T00:00:00Z"} for p, t in truths]
    assert (await product.post("/outcomes", json=labels)).status_code == 201
    found = (await viewer.get("/models/fraud/performance", params={"period": "day"})).json()
    rows = {row["version"]: row for row in found["versions"]}
    one = rows["1"]
    assert (one["predictions"], one["failures"], one["labelled"]) == (5, 1, 5)
    assert one["accuracy"] == pytest.approx(3 / 5)
    assert one["precision"] == pytest.approx(2 / 3)
    assert one["recall"] == pytest.approx(2 / 3)
    assert (one["latency_ms_mean"], one["latency_ms_p95"]) == (2.0, 2.0)
    assert (rows["2"]["predictions"], rows["2"]["failures"]) == (0, 1)  # assigned to 2, answered by 1
    assert (found["predictions"], found["labelled"], found["accuracy"]) == (5, 5, pytest.approx(3 / 5))


async def test_the_performance_of_a_regression_is_its_error_in_the_targets_unit(api: Api) -> None:
    await add_model(api.maker, versions=0)
    metric = {"name": "mae", "minimum": 10.0}
    await add_version(api.maker, "fraud", "1", config={**CONFIG, "problem": "regression", "metric": metric})
    viewer, product = await api.as_("viewer"), await api.as_("predictor")
    answers = [({"value": 10.0}, 12), ({"value": 10.0}, 7.5), ({"value": "ten"}, 10), ({"value": 1.0}, "one")]
    for output, truth in answers:
        identity = await log(api, minutes_ago=1, output=output, decision=None, threshold=None)
        await product.post("/outcomes", json={"prediction_id": str(identity), "value": truth})
    row = (await viewer.get("/models/fraud/performance")).json()["versions"][0]
    assert (row["labelled"], row["mean_absolute_error"], row["accuracy"]) == (2, pytest.approx(2.25), None)


async def test_importances_are_of_production_unless_a_version_is_named_largest_first_with_their_space(api: Api) -> None:
    await add_model(api.maker)
    measured = {"statistic": "mean_absolute_contribution", "space": "margin", "rows": 1_000}
    features = {"amount": 0.25, "night": 1.5}
    await add_version(api.maker, "fraud", "7", evidence={"importances": measured | {"features": features}})
    viewer = await api.as_("viewer")
    found = (await viewer.get("/models/fraud/explain", params={"version": "7"})).json()
    assert found == measured | {"model": "fraud", "version": "7", "features": features}
    assert list(found["features"]) == ["night", "amount"]
    await add_version(api.maker, "fraud", "8", evidence={"importances": features})  # some other trainer's own
    for version in (None, "8", "99", "x"):  # Production of this model came without any
        answer = await viewer.get("/models/fraud/explain", params={"version": version} if version else {})
        assert (answer.status_code, answer.json()["type"].rpartition("/")[2]) == (404, "not-found")
