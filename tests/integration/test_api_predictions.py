"""One logged prediction, and the performance of a period against counts made by hand."""

import random
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from sklearn import metrics

from control_plane.services import quality
from tests.support import logged
from tests.support.api import CONFIG, Api, add_model, add_version

pytestmark = pytest.mark.integration


async def log(api: Api, *, minutes_ago: float, **changed: Any) -> UUID:
    """A logged prediction, stored as the ingester stores it."""
    record = logged.record(datetime.now(UTC) - timedelta(minutes=minutes_ago))
    record = {name: value for name, value in {**record, **changed}.items() if value is not None}
    return (await logged.store(api.maker.kw["bind"], [record]))[0]


async def folded(api: Api) -> None:
    """Every hour that is due, folded as the worker folds it."""
    while await quality.fold_due(api.maker, now=datetime.now(UTC)):
        pass


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
    await folded(api)
    found = (await viewer.get("/models/fraud/performance", params={"period": "day"})).json()
    by_version = {row["version"]: row for row in found["versions"]}
    one = by_version["1"]
    assert (one["predictions"], one["failures"], one["labelled"]) == (6, 1, 5), "one of them in place of version 2"
    assert one["accuracy"] == pytest.approx(3 / 5)
    assert one["precision"] == pytest.approx(2 / 3)
    assert one["recall"] == pytest.approx(2 / 3)
    assert (one["latency_ms_mean"], one["latency_ms_p95"]) == (pytest.approx(2.0), pytest.approx(2.0, rel=0.1))
    assert (by_version["2"]["predictions"], by_version["2"]["failures"]) == (0, 1)  # assigned to 2, answered by 1
    assert (found["predictions"], found["labelled"], found["accuracy"]) == (6, 5, pytest.approx(3 / 5))


async def test_the_performance_of_a_regression_is_its_error_in_the_targets_unit(api: Api) -> None:
    await add_model(api.maker, versions=0)
    metric = {"name": "mae", "minimum": 10.0}
    await add_version(api.maker, "fraud", "1", config={**CONFIG, "problem": "regression", "metric": metric})
    viewer, product = await api.as_("viewer"), await api.as_("predictor")
    answers = [({"value": 10.0}, 12), ({"value": 10.0}, 7.5), ({"value": "ten"}, 10), ({"value": 1.0}, "one")]
    for output, truth in answers:
        identity = await log(api, minutes_ago=1, output=output, decision=None, threshold=None)
        await product.post("/outcomes", json={"prediction_id": str(identity), "value": truth})
    await folded(api)
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
    for version in (None, "8", "99"):  # Production of this model came without any
        answer = await viewer.get("/models/fraud/explain", params={"version": version} if version else {})
        assert (answer.status_code, answer.json()["type"].rpartition("/")[2]) == (404, "not-found")
    refused = await viewer.get("/models/fraud/explain", params={"version": "x"})
    assert (refused.status_code, refused.json()["type"].rpartition("/")[2]) == (422, "invalid-input")


async def test_a_customers_outcome_labels_its_predictions_once_the_label_had_its_time(api: Api) -> None:
    await add_model(api.maker, versions=0)
    label = {"delay_s": 3_600, "absence_means": "negative"}
    await add_version(api.maker, "fraud", "1", config={**CONFIG, "label": label})
    viewer, product = await api.as_("viewer"), await api.as_("predictor")
    now = datetime.now(UTC)

    async def tell(value: bool, minutes_ago: float, **subject: str) -> None:
        at = (now - timedelta(minutes=minutes_ago)).isoformat()
        body = {"model": "fraud", "value": value, "observed_at": at, **subject}
        assert (await product.post("/outcomes", json=body)).status_code == 201

    await tell(True, 170, unit_id="early")  # before its prediction is in the log
    for unit in ("early", "late", "silent", "corrected"):
        await log(api, minutes_ago=200, unit_id=unit, decision="allow", output={"probability": 0.2})
    await log(api, minutes_ago=30, unit_id="late")  # too young to be judged
    await tell(True, 199, unit_id="corrected")
    await folded(api)
    before = (await viewer.get("/models/fraud/performance")).json()
    (one,) = before["versions"]
    assert (one["predictions"], one["labelled"], before["label_delay_s"]) == (5, 4, 3_600)
    assert one["metrics"]["positive_rate"]["value"] == pytest.approx(2 / 4)
    await tell(False, 150, unit_id="corrected")
    for _ in range(2):
        await tell(True, 10, unit_id="late", outcome_id="0199c7d2-6f0a-7cc3-98a1-0a2b8f6f1a55")
    await tell(True, 60 * 24 * 30, unit_id="silent")  # of long before its prediction
    await folded(api)
    (two,) = (await viewer.get("/models/fraud/performance")).json()["versions"]
    assert (two["labelled"], two["metrics"]["positive_rate"]["value"]) == (4, pytest.approx(2 / 4))
    assert two["accuracy"] == pytest.approx(2 / 4), "silent and corrected were no fraud"


async def test_every_metric_of_a_period_is_what_scikit_learn_says_of_its_rows(api: Api) -> None:
    await add_model(api.maker, versions=0)
    costs = {"false_positive": 2.0, "false_negative_column": "amount", "true_positive": 1.0}
    await add_version(api.maker, "fraud", "1", config={**CONFIG, "costs": costs})
    viewer, product = await api.as_("viewer"), await api.as_("predictor")
    rng = random.Random(5)
    scores = [round(rng.random() ** 2, 3) * 0.98 + 0.01 for _ in range(120)]
    truths = [rng.random() < score for score in scores]
    amounts = [float(rng.randrange(1, 500)) for _ in scores]
    said = [score >= 0.5 for score in scores]
    labels = list[dict[str, Any]]()
    for number, (score, amount) in enumerate(zip(scores, amounts, strict=True)):
        variant = "candidate" if number % 3 == 0 else "stable"
        identity = await log(
            api,
            minutes_ago=1 + number,  # over several hours
            assigned_variant=variant,
            features={"amount": amount},
            output={"probability": score},
            decision=None,
        )
        labels.append({"prediction_id": str(identity), "model": "fraud", "value": truths[number]})
    assert (await product.post("/outcomes", json=labels)).status_code == 201
    await folded(api)
    answer = (await viewer.get("/models/fraud/performance", params={"period": "7d"})).json()
    (row,) = answer["versions"]
    found = {name: metric["value"] for name, metric in row["metrics"].items()}
    assert found["accuracy"] == pytest.approx(metrics.accuracy_score(truths, said))
    assert found["precision"] == pytest.approx(metrics.precision_score(truths, said))
    assert found["recall"] == pytest.approx(metrics.recall_score(truths, said))
    assert found["log_loss"] == pytest.approx(metrics.log_loss(truths, scores))
    assert found["roc_auc"] == pytest.approx(metrics.roc_auc_score(truths, scores), abs=0.005)
    assert found["average_precision"] == pytest.approx(metrics.average_precision_score(truths, scores), abs=0.01)
    price = {(True, True): 1.0, (True, False): 2.0, (False, False): 0.0}
    paid = [price.get((s, t), amount) for s, t, amount in zip(said, truths, amounts, strict=True)]
    assert found["cost"] == pytest.approx(sum(paid) / len(paid))
    assert {v["variant"]: v["labelled"] for v in answer["variants"]} == {"stable": 80, "candidate": 40}
