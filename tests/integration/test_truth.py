"""One truth: the drift page and the performance page count the same outcomes; what cannot be folded blocks no hour."""

import random
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pytest
from sklearn import metrics
from sqlalchemy import select, text
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker
from structlog.testing import capture_logs

from control_plane.adapters.store import answered
from control_plane.adapters.store import quality as store
from control_plane.adapters.store.drift import Reference
from control_plane.adapters.store.quality import Errors, Join
from control_plane.adapters.store.tables import LogHourRow, ModelVersionRow, QualityRow
from control_plane.domain.drift import fold
from control_plane.domain.drift.decide import Policy
from control_plane.domain.model_config import FeatureType
from control_plane.services import evidence, labels, performance, quality
from control_plane.services.labels import Labels
from tests.support import logged
from tests.support.api import CONFIG, add_model, add_version

pytestmark = pytest.mark.integration
Sessions = async_sessionmaker[AsyncSession]
NOW = datetime.now(UTC)
LABEL = {"delay_s": 3_600, "absence_means": "negative", "depends_on_decision": True}


async def looked(maker: Sessions) -> Labels:
    """Labels of version 1 of fraud, as a look at its drift reads them."""
    grid = fold.reference({"amount": np.arange(100.0)}, {"amount": FeatureType.NUMBER}, cells=fold.Cells())
    async with maker() as session:
        version = await session.get(ModelVersionRow, ("fraud", "1"))
        assert version is not None
        config, _ = evidence.config(version)
        return await labels.look(session, version, Reference("1", "training", NOW, grid), config, Policy(), now=NOW)


async def test_the_drift_page_and_the_performance_page_count_the_same_truths(maker: Sessions) -> None:
    await add_model(maker, versions=0)
    await add_version(maker, "fraud", "1", config={**CONFIG, "label": LABEL})
    rng = random.Random(3)
    records, outcomes = list[dict[str, Any]](), list[dict[str, Any]]()
    known = list[tuple[float, bool]]()
    for number in range(400):
        at = NOW - timedelta(minutes=61 + number % 120)
        score = round(0.02 + 0.9 * rng.random(), 3)
        said, real = "block" if score >= 0.5 else "allow", rng.random() < score
        unit = f"customer-{number}"
        record = logged.record(at, unit_id=unit, output={"probability": score}, decision=said)
        records.append(record)
        match number % 5:
            case 0:  # nothing came: a no, unless it was blocked
                if said == "allow":
                    known.append((score, False))
                continue
            case 1:
                outcomes.append(logged.outcome(at + timedelta(minutes=5), real, prediction_id=record["prediction_id"]))
            case 2:  # corrected by one that names the customer
                outcomes.append(logged.outcome(at + timedelta(minutes=5), not real, unit_id=unit))
                outcomes.append(logged.outcome(at + timedelta(minutes=6), real, unit_id=unit))
            case 3:  # the newest of both kinds
                named = {"prediction_id": record["prediction_id"]}
                outcomes.append(logged.outcome(at + timedelta(minutes=5), not real, **named))
                outcomes.append(logged.outcome(at + timedelta(minutes=6), real, unit_id=unit))
            case _:  # one that came before says nothing
                outcomes.append(logged.outcome(at - timedelta(minutes=1), not real, unit_id=unit))
                outcomes.append(logged.outcome(at + timedelta(minutes=6), real, unit_id=unit))
        known.append((score, real))
    young = logged.record(NOW - timedelta(minutes=30), unit_id="young")  # its label has not had its time
    outcomes.append(logged.outcome(NOW - timedelta(minutes=20), True, unit_id="young"))
    await logged.store(maker.kw["bind"], [*records, young], outcomes)
    while await quality.fold_due(maker, now=datetime.now(UTC)):
        pass
    async with maker() as session:
        page = await performance.view(session, "fraud", "24h", now=NOW)
    found = await looked(maker)
    realised = found.document["realised"]
    assert realised["rows"] == page.labelled == len(known)
    assert realised["value"] == pytest.approx(metrics.roc_auc_score([t for _, t in known], [s for s, _ in known]))
    assert found.target.why == "The reference has no labels."


async def test_an_outcome_of_a_customer_long_after_the_prediction_is_of_neither_page(maker: Sessions) -> None:
    await add_model(maker, versions=0)
    await add_version(maker, "fraud", "1", config=CONFIG)
    at = NOW - timedelta(days=3)
    told = [logged.outcome(at + timedelta(days=2), True, unit_id="late")]
    await logged.store(maker.kw["bind"], [logged.record(at, unit_id="late")], told)
    for window, real in ((timedelta(days=1), None), (timedelta(days=2), True), (None, None)):
        async with maker() as session:
            since = NOW - timedelta(days=4)
            facts: dict[str, Any] = {"since": since, "until": NOW, "limit": 10, "window": window}
            (answer,) = await answered.newest(session, "fraud", "1", **facts)
        assert (answer.reported, answer.word, answer.above, answer.score) == (real, "block", True, 0.9)


async def test_a_number_beyond_reason_is_the_nearest_one_within_and_keeps_no_hour_unfolded(maker: Sessions) -> None:
    await add_model(maker, versions=0)
    config = {**CONFIG, "problem": "regression", "metric": {"name": "mae"}, "costs": None}
    await add_version(maker, "fraud", "1", config=config)
    hour = logged.of_today() - timedelta(hours=2)
    said = [1.0, 1e300, 1e-310, 1.0]
    records = [logged.record(hour, output={"value": value}, decision=None, threshold=None) for value in said]
    told = [2.0, -1e100, 1e-310, 1e308]
    outcomes = [
        logged.outcome(NOW, value, prediction_id=record["prediction_id"])
        for value, record in zip(told, records, strict=True)
    ]
    await logged.store(maker.kw["bind"], records, outcomes)
    async with maker.begin() as session:  # digits no double has: as another client may have written them
        await session.execute(text("UPDATE predictions SET output = '{\"value\": 1e-400}' WHERE prediction_id = :id"),
                              {"id": records[2]["prediction_id"]})  # fmt: skip
    assert await quality.fold_due(maker, now=datetime.now(UTC)) == 1
    async with maker() as session:
        errors = (await session.scalars(select(QualityRow.tally))).one()["errors"]
    assert errors[0] == 4
    assert errors[2] == pytest.approx(1 + 2e15 + 0 + 1e15)


async def test_hours_that_cannot_be_folded_are_put_off_with_the_reason_and_block_no_other(
    maker: Sessions, monkeypatch: pytest.MonkeyPatch
) -> None:
    await add_model(maker, versions=0)
    config = {**CONFIG, "problem": "regression", "metric": {"name": "mae"}, "costs": None}
    await add_version(maker, "fraud", "1", config=config)
    hours = [logged.of_today() - timedelta(hours=number) for number in range(24, 1, -1)]
    good = hours[-1]
    records = [logged.record(hour, output={"value": 1.0}, decision=None, threshold=None) for hour in hours]
    outcomes = [logged.outcome(NOW, 2.0, prediction_id=record["prediction_id"]) for record in records]
    reduce = store.errors

    async def refuses(session: AsyncSession, join: Join) -> list[Errors]:
        if join.hour != good:
            raise ValueError("out of range")
        return await reduce(session, join)

    monkeypatch.setattr(store, "errors", refuses)
    await logged.store(maker.kw["bind"], records, outcomes)
    async with maker.begin() as session:  # the good one comes last
        await session.execute(text("UPDATE log_hours SET quality_due_at = hour"))
    now = datetime.now(UTC)
    with capture_logs() as told:
        assert [await quality.fold_due(maker, now=now) for _ in range(3)] == [0, 1, 0]
    assert [entry["event"] for entry in told] == ["quality.not_folded"] * 22
    assert all("out of range" in entry["why"] for entry in told)
    async with maker() as session:
        assert list(await session.scalars(select(QualityRow.hour))) == [good]
        bad = select(LogHourRow.quality_due_at).where(LogHourRow.hour != good)
        waiting = list(await session.scalars(bad))
    assert len(waiting) == 22
    assert all(due is not None and due > now for due in waiting)
    monkeypatch.undo()
    assert await quality.fold_due(maker, now=now + timedelta(hours=1)) == 20
