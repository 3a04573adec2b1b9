"""Looks at a model whose days are simulated: noise is no alarm, a shift is one, and one incident tells its story."""

from datetime import UTC, date, datetime, timedelta
from typing import Any

import numpy as np
import pytest
from sqlalchemy import insert, text
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from control_plane.adapters.store import drift as store
from control_plane.adapters.store.tables import DriftProfileRow, ModelRow, ModelVersionRow
from control_plane.contracts.drift import DriftView
from control_plane.domain.drift import compact, document, fold, profiles
from control_plane.domain.drift.monitor import Kind
from control_plane.domain.model_config import FeatureType
from control_plane.domain.rollouts import Verdict
from control_plane.services import drift, drift_view
from control_plane.services.drift import Looked

pytestmark = pytest.mark.integration
Sessions = async_sessionmaker[AsyncSession]
TYPES = {"amount": FeatureType.NUMBER, "age": FeatureType.NUMBER, "country": FeatureType.CATEGORY}
COUNTRIES = ["fr", "de", "it", "es"]
START = date(2026, 3, 2)
CONFIG = {
    "name": "churn",
    "problem": "binary",
    "features": {name: {"type": kind.value} for name, kind in TYPES.items()},
    "target": {"column": "left", "positive": 1},
}
EVIDENCE = {"importances": {"features": {"amount": 0.9, "age": 0.1, "country": 0.2}}, "metrics": {"roc_auc": 0.8}}


def columns(rng: np.random.Generator, rows: int, shift: float, scale: float = 1.0) -> dict[str, fold.Column]:
    amount = rng.normal(shift, scale, rows)
    return {
        "amount": amount,
        "age": rng.normal(40, 10, rows),
        "country": [COUNTRIES[i] for i in rng.integers(0, 4, rows)],
    }


def probability(amount: Any) -> Any:
    return 1 / (1 + np.exp(-np.asarray(amount)))


def grid(rows: int = 20_000) -> profiles.Profile:
    given = columns(np.random.default_rng(0), rows, 0.0)
    return fold.reference(
        given, TYPES, cells=fold.Cells(), prediction=(FeatureType.NUMBER, probability(given["amount"]))
    )


GRID = grid()


class Life:
    """A model in Production whose hours are written as the ingest writes them."""

    def __init__(self, maker: Sessions) -> None:
        self.maker, self.rng = maker, np.random.default_rng(5)

    async def begin(self, version: str = "1", when: date = START, reference: profiles.Profile = GRID) -> None:
        at = store.midnight(when)
        async with self.maker.begin() as session:
            if version == "1":
                await session.execute(insert(ModelRow).values(name="churn", created_at=at, salt="s", revision=1))
            await session.execute(
                text("UPDATE model_versions SET stage = 'Archived' WHERE model = 'churn' AND stage = 'Production'")
            )
            facts = {"model": "churn", "version": version, "stage": "Production", "stage_since": at, "source": "s"}
            facts |= {"config": CONFIG, "evidence": EVIDENCE, "created_at": at, "discovered_at": at}
            await session.execute(insert(ModelVersionRow).values(**facts))
            await session.execute(text(f"UPDATE models SET production_version = '{version}'"))
            await store.add_reference(session, "churn", version, "training", document.to_json(reference), now=at)

    async def hours(
        self,
        day: date,
        shift: float = 0.0,
        *,
        version: str = "1",
        hours: range = range(24),
        blocks: int = 60,
        reference: profiles.Profile = GRID,
        **odd: Any,
    ) -> None:
        rows = []
        for hour in hours:
            given = columns(self.rng, blocks, shift + 0.5 * np.cos(hour / 24 * 2 * np.pi)) | odd
            said = probability(given["amount"]) if "amount" in given else None
            window = fold.fold(reference, given, prediction=said)
            facts = {"model": "churn", "version": version, "variant": "stable", "grain": "part", "rows": blocks}
            starts = store.midnight(day) + timedelta(hours=hour)
            rows += [facts | {"kind": k, "starts": starts, "data": compact.pack(window)} for k in ("rows", "blocks")]
        async with self.maker.begin() as session:
            await session.execute(insert(DriftProfileRow), rows)

    async def look(self, day: date, hour: int = 12, *, early: bool = False) -> Looked:
        async with self.maker.begin() as session:
            now = store.midnight(day) + timedelta(hours=hour, minutes=30)
            found = await drift.look(session, "churn", settings=drift.Settings(early=early), now=now)
        assert found is not None
        return found

    async def view(self, day: date, hour: int = 12) -> DriftView:
        async with self.maker() as session:
            now = store.midnight(day) + timedelta(hours=hour, minutes=31)
            return await drift_view.view(session, "churn", days=30, now=now)


@pytest.fixture
async def life(maker: Sessions) -> Life:
    made = Life(maker)
    await made.begin()
    return made


def verdicts(looked: Looked) -> dict[str, str]:
    return {reading.kind.value: reading.verdict.value for reading in looked.readings}


def day(number: int) -> date:
    return START + timedelta(days=number)


async def test_weeks_of_noise_raise_no_alarm_and_a_shift_is_found_within_the_day_with_its_feature(life: Life) -> None:
    for number in range(12):
        await life.hours(day(number))
        for hour in (1, 9, 17, 23):  # the course of the day is a shift of half a standard deviation, every day
            looked = await life.look(day(number), hour)
            assert not looked.incident, (number, hour, looked.readings)
    await life.hours(day(12), 0.4)
    looked = await life.look(day(12), 23)
    by_kind = {reading.kind: reading for reading in looked.readings}
    assert looked.incident
    assert by_kind[Kind.DATA].features == ("amount",)
    assert by_kind[Kind.PREDICTION].alarm
    found = await life.view(day(12), 23)
    assert found.alarm
    assert [(i.severity, i.features, i.kinds) for i in found.incidents] == [
        ("high", ["amount"], ["data", "prediction"])
    ]
    assert found.features[0].name == "amount"
    assert found.features[0].share == 1.0
    shown = found.features[0].histogram
    assert shown is not None
    assert sum(shown.reference) == pytest.approx(1, abs=1e-4)
    assert len(shown.cells) == len(shown.current)
    assert found.basis == "11 usual days"


async def test_an_incident_closes_after_a_usual_day_and_another_episode_is_another_incident(life: Life) -> None:
    for number in range(11):
        await life.hours(day(number))
        await life.look(day(number), 23)
    for number in (11, 12):
        await life.hours(day(number), 0.6)
        assert (await life.look(day(number), 23)).incident
    assert len((await life.view(day(12), 23)).incidents) == 1
    await life.hours(day(13))
    assert (await life.look(day(13), 23)).incident
    await life.hours(day(14), hours=range(2))
    assert not (await life.look(day(14), 1)).incident
    await life.hours(day(14), hours=range(2, 24))
    assert not (await life.look(day(15), 0)).incident
    await life.hours(day(15), 0.6)
    assert (await life.look(day(16), 0)).incident
    found = await life.view(day(16), 0)
    assert [len(i.history) for i in found.incidents] == [1, 2]
    assert [e.what for e in found.incidents[1].history] == ["open", "close"]


async def test_a_new_version_with_its_own_reference_closes_the_incident_of_the_old_one(life: Life) -> None:
    await life.hours(day(0), 1.5)
    assert (await life.look(day(0), 23, early=True)).incident
    await life.begin("2", day(1))
    assert (await life.look(day(1), 1, early=True)).incident  # nothing is known of it yet
    await life.hours(day(1), 0.0, version="2")
    assert not (await life.look(day(1), 23, early=True)).incident
    assert (await life.view(day(1), 23)).incidents[0].history[-1].what == "close"


async def test_a_new_version_whose_hold_out_is_too_small_to_tell_ends_it_with_its_first_usual_day(life: Life) -> None:
    small = grid(300)
    await life.hours(day(0), 1.5)
    assert (await life.look(day(0), 23, early=True)).incident
    await life.begin("2", day(1), small)
    for number in (1, 2):
        await life.hours(day(number), version="2", reference=small)
    assert (await life.look(day(2), 23)).incident, "the day it began on was no whole one"
    looked = await life.look(day(3), 5)
    data = next(reading for reading in looked.readings if reading.kind is Kind.DATA)
    assert data.verdict is Verdict.INCONCLUSIVE
    assert "the reference has 300 rows" in data.why
    assert not looked.incident
    closed = (await life.view(day(3), 5)).incidents[0].history[-1]
    assert (closed.what, closed.version) == ("close", "2")


async def test_a_new_version_with_a_small_hold_out_whose_customers_have_moved_keeps_the_incident_open(
    life: Life,
) -> None:
    small = grid(300)
    await life.hours(day(0), 1.5)
    assert (await life.look(day(0), 23, early=True)).incident
    await life.begin("2", day(1), small)
    for number in (1, 2):
        await life.hours(day(number), 1.5, version="2", reference=small)
    assert (await life.look(day(3), 5)).incident


@pytest.mark.parametrize(
    ("odd", "issue", "alarm"),
    [
        ({"amount": [None] * 60}, "all_nulls", True),
        ({"amount": [fold.MISSING] * 60}, "missing", True),
        ({"amount": ["12"] * 60}, "new_type", True),
        ({"amount": [0.3] * 60}, "constant", False),
    ],
)
async def test_broken_input_is_named_and_inconclusive(life: Life, odd: dict[str, Any], issue: str, alarm: bool) -> None:
    given = dict(odd)
    if issue in {"all_nulls", "missing", "new_type"}:
        window = {k: v for k, v in columns(life.rng, 60, 0.0).items() if k != "amount"} | given
        data = compact.pack(fold.fold(GRID, window, prediction=[0.5] * 60))
        facts = {"model": "churn", "version": "1", "variant": "stable", "grain": "part", "rows": 60, "data": data}
        async with life.maker.begin() as session:
            starts = store.midnight(day(0)) + timedelta(hours=10)
            await session.execute(
                insert(DriftProfileRow), [facts | {"kind": k, "starts": starts} for k in ("rows", "blocks")]
            )
    else:
        await life.hours(day(0), hours=range(10, 12), **given)
    looked = await life.look(day(0), 12)
    found = await life.view(day(0), 12)
    amount = next(feature for feature in found.features if feature.name == "amount")
    assert amount.verdict is Verdict.INCONCLUSIVE
    assert amount.psi is None
    assert amount.findings[0].issue == issue
    assert verdicts(looked)["data"] == "inconclusive"
    quality = next(reading for reading in looked.readings if reading.kind is Kind.QUALITY)
    assert quality.alarm is alarm
    assert "amount" in quality.why


async def test_ten_rows_and_no_rows_are_inconclusive_with_a_reason(life: Life) -> None:
    looked = await life.look(day(0))
    assert set(verdicts(looked).values()) == {"inconclusive"}
    assert all(reading.why for reading in looked.readings)
    await life.hours(day(0), hours=range(11, 12), blocks=10)
    looked = await life.look(day(0), early=True)
    assert set(verdicts(looked).values()) == {"inconclusive"}
    assert "10 rows" in next(r for r in looked.readings if r.kind is Kind.QUALITY).why


async def test_windows_add_up_to_hours_days_and_months_without_losing_a_row(life: Life) -> None:
    for _ in range(3):
        await life.hours(day(0), blocks=5)
    await life.hours(day(1), blocks=7)

    async def stored() -> list[tuple[str, int, int]]:
        async with life.maker() as session:
            query = "SELECT grain, count(*), sum(rows) FROM drift_profiles WHERE kind = 'rows' GROUP BY 1 ORDER BY 1"
            return [(g, n, int(rows)) for g, n, rows in await session.execute(text(query))]

    async def whole() -> profiles.Profile:
        async with life.maker() as session:
            reference = await store.reference(session, "churn", "1")
            assert reference is not None
            until = store.midnight(day(3))
            return await store.window(session, reference, "churn", "rows", store.midnight(START), until)

    before = await whole()
    assert before.rows == 24 * 15 + 24 * 7
    for grain, until, expected in (
        ("hour", day(3), [("hour", 48, 528)]),
        ("day", day(1), [("day", 1, 360), ("hour", 24, 168)]),
        ("month", day(3), [("month", 1, 528)]),
    ):
        async with life.maker.begin() as session:
            await store.roll_up(session, grain, before=store.midnight(until))
        assert await stored() == expected
        async with life.maker.begin() as session:
            assert await store.roll_up(session, grain, before=store.midnight(until)) == 0  # again changes nothing
    after = await whole()
    if START.day != 1:  # the month's row starts on its first
        async with life.maker() as session:
            reference = await store.reference(session, "churn", "1")
            assert reference is not None
            first = datetime(START.year, START.month, 1, tzinfo=UTC)
            after = await store.window(session, reference, "churn", "rows", first, store.midnight(day(3)))
    assert after.features["country"] == before.features["country"]
