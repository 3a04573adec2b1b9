"""Rows for a retraining out of the log: each answer with its newest truth, none before its label had its time."""

import gzip
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker

from control_plane.adapters.archive import Archive
from control_plane.domain.model_config import Feature, FeatureType, Label, ModelConfig, Problem, Target, Training
from control_plane.domain.retraining import Gathered
from control_plane.services import archive as archive_service
from control_plane.services import gathering
from tests.support import logged

pytestmark = pytest.mark.integration
Sessions = async_sessionmaker[AsyncSession]
NOW = datetime.now(UTC)
DAY = timedelta(days=1)
FRAUD = ModelConfig(
    "fraud",
    Problem.BINARY,
    {"amount": Feature(FeatureType.NUMBER)},
    target=Target("fraud", positive=1),
    unit="customer",
    id="payment",
    label=Label(delay_s=86_400),
)


@pytest.fixture
def archive(tmp_path: Path) -> Archive:
    return Archive((tmp_path / "archive").as_uri())


async def gathered(
    maker: Sessions, archive: Archive, config: ModelConfig = FRAUD, *, since: timedelta = 90 * DAY, most: int = 1_000
) -> tuple[list[dict[str, Any]], Gathered]:
    given = {"since": NOW - since, "now": NOW, "most": most}
    found = await gathering.gather(maker, archive, "fraud", config, **given)  # type: ignore[arg-type]
    return [json.loads(line) for line in gzip.decompress(found.packed()).splitlines()], found.found


async def test_every_answer_is_counted_once_and_a_label_is_believed_only_after_its_time(
    maker: Sessions, engine: AsyncEngine, archive: Archive
) -> None:
    old, young = NOW - 3 * DAY, NOW - timedelta(hours=3)
    labelled = logged.record(old, unit_id="a", features={"amount": 1.0, "other": 9})
    corrected = logged.record(old + timedelta(minutes=1), unit_id="b", features={"amount": 2.0})
    by_unit = logged.record(old + timedelta(minutes=2), unit_id="c", features={"amount": 3.0})
    silent = logged.record(old + timedelta(minutes=3), unit_id="d")
    failed = logged.record(old + timedelta(minutes=4), unit_id="e", status="error")
    nobody = logged.record(old + timedelta(minutes=5))
    shadow = logged.record(old + timedelta(minutes=6), unit_id="a", shadow=True)
    early = logged.record(young, unit_id="f")
    names = [{"prediction_id": row["prediction_id"]} for row in (labelled, corrected, early, failed, nobody, shadow)]
    outcomes = [logged.outcome(old + timedelta(hours=1), 1, **name) for name in names]
    outcomes.append(logged.outcome(old + timedelta(hours=2), 0, **names[1]))
    outcomes.append(logged.outcome(old + timedelta(hours=2), True, unit_id="c"))
    outcomes.append(logged.outcome(old + timedelta(hours=9), 50, name="chargeback", **names[0]))
    everything = [labelled, corrected, by_unit, silent, failed, nobody, shadow, early]
    await logged.store(engine, everything, outcomes)
    rows, found = await gathered(maker, archive)
    assert [(row["customer"], row["amount"], row["fraud"]) for row in rows] == [
        ("c", 3.0, 1),
        ("b", 2.0, 0),
        ("a", 1.0, 1),
    ]
    assert set(rows[0]) == {"customer", "payment", "amount", "fraud", "received_at"}
    assert rows[2]["payment"] == labelled["prediction_id"]
    assert found == Gathered(answers=7, unusable=2, young=1, unlabelled=1, rows=3, classes={"1": 2, "0": 1})


async def test_what_the_archive_alone_has_is_read_with_the_labels_that_came_since(
    maker: Sessions, engine: AsyncEngine, archive: Archive
) -> None:
    day = logged.of_today() - 40 * DAY
    records = [
        logged.record(day + timedelta(hours=n), unit_id=f"u{n}", features={"amount": float(n)}) for n in range(3)
    ]
    await logged.store(engine, records, [logged.outcome(day + DAY, 0, prediction_id=records[0]["prediction_id"])])
    report = await archive_service.run(maker, archive, now=NOW, keep=35 * DAY)
    assert report.dropped == [f"{day:%Y-%m-%d}"]
    await logged.store(engine, [], [logged.outcome(day + 2 * DAY, 1, prediction_id=records[1]["prediction_id"])])
    rows, found = await gathered(maker, archive)
    assert [(row["amount"], row["fraud"]) for row in rows] == [(1.0, 1), (0.0, 0)]
    assert (found.answers, found.unlabelled) == (3, 1)
    assert (await gathered(maker, archive, since=39 * DAY))[0] == []


async def test_the_newest_rows_are_taken_and_a_case_that_came_again_counts_as_it_was_last(
    maker: Sessions, engine: AsyncEngine, archive: Archive
) -> None:
    start = NOW - 5 * DAY
    records = [
        logged.record(start + timedelta(minutes=20 * n), unit_id=f"u{n % 4}", features={"amount": float(n)})
        for n in range(12)
    ]
    outcomes = [logged.outcome(start + DAY, n % 2, prediction_id=row["prediction_id"]) for n, row in enumerate(records)]
    await logged.store(engine, records, outcomes)
    per_customer = ModelConfig(**{**_members(FRAUD), "id": "customer", "training": Training(unique=("customer",))})
    rows, found = await gathered(maker, archive, per_customer)
    assert [row["amount"] for row in rows] == [11.0, 10.0, 9.0, 8.0]
    assert (found.repeated, found.rows) == (8, 4)
    rows, found = await gathered(maker, archive, most=5)
    assert [row["amount"] for row in rows] == [11.0, 10.0, 9.0, 8.0, 7.0]
    assert found.rows == 5


def _members(config: ModelConfig) -> dict[str, Any]:
    return {name: getattr(config, name) for name in ModelConfig.__dataclass_fields__}


async def test_outcomes_leave_postgres_once_the_archive_alone_has_what_they_speak_of(
    maker: Sessions, engine: AsyncEngine, archive: Archive
) -> None:
    day, kept = logged.of_today() - 40 * DAY, logged.of_today() - 3 * DAY
    async with maker.begin() as session:
        await session.execute(
            text("INSERT INTO models (name, created_at, salt, revision) VALUES ('fraud', now(), 's', 1)")
        )
    old, new = logged.record(day, unit_id="a"), logged.record(kept, unit_id="b")
    outcomes = [
        logged.outcome(day + timedelta(hours=1), 1, prediction_id=old["prediction_id"]),
        logged.outcome(day + timedelta(hours=2), 0, unit_id="a"),
        logged.outcome(kept, 1, prediction_id=new["prediction_id"]),
        logged.outcome(kept, 1, unit_id="b"),
    ]
    await logged.store(engine, [old, new], outcomes)

    async def left() -> int:
        async with maker() as session:
            return int(await session.scalar(text("SELECT count(*) FROM outcomes")) or 0)

    async def forget(report: archive_service.Report) -> int:
        before = NOW - 35 * DAY
        await archive_service.forget(maker, report, closed_before=before, outcomes_before=before)
        return report.outcomes

    assert await forget(archive_service.Report(dropped=["as if"])) == 0, "the log still has the day"
    report = await archive_service.run(maker, archive, now=NOW, keep=35 * DAY)
    assert report.dropped == [f"{day:%Y-%m-%d}"], report
    assert await forget(report) == 2
    assert await left() == 2
    rows, _ = await gathered(maker, archive)
    assert [row["customer"] for row in rows] == ["b", "a"], "the archive still knows what became of it"
